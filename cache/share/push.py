"""`bas cache push`: matches of a store to a place that shares it. Different matches may come from many at once."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from ...errors import InputError
from ...files import FileLock, disk_errors, read_bounded, write_atomic
from ...workers import SILENT, MatchResult, Progress, Summary, failed
from ..layout import MANIFESTS, METADATA, PARTIAL, canonical_json, group_metadata
from ..match import Terms
from ..reduction import REDUCTION_FILE, write_reduction
from ..store import FeatureStore
from .manifest import INDEX, MAX_DOCUMENT_BYTES, MatchManifest, index_document, is_manifest, require_apart, view_files
from .places import Place, Upload, folder_of, is_folder, open_place
from .pull import Plan, Selection, Traffic, compare, receive, require_jobs, require_same_rows, summary_of, take
from .source import Listing, StoreSource, fetch_reduction, listing, named, read_index, read_manifests, shared_root

_MAX_ROUNDS = 20
_LOCK_SECONDS = 600.0
CARD = "README.md"
_HUB_LICENCES = frozenset(
    ("apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-sa-4.0", "cc0-1.0", "mit")
)
"""Names by which the hub knows licences; it refuses a card that names another one in its head."""


def push(
    store_path: Path,
    url: str,
    selection: Selection,
    *,
    replace: bool = False,
    terms: Terms | None = None,
    jobs: int = 8,
    progress: Progress = SILENT,
) -> Summary:
    """Bring matches of a store to a folder or URL; what is there does not travel.

    Args:
        store_path: the store.
        url: where to; see `open_place`. A folder becomes a store like any other.
        selection: which matches and views.
        replace: matches that are there with other content are replaced.
        terms: licence and origin, which the store takes over first.
        jobs: files under way at a time, >= 1.
        progress: hears of bytes.

    Raises:
        InputError: no store, no licence or origin where the place asks for them, the place holds features of other
            settings or classes, nothing is chosen, or the place cannot be written. A match that fails is in the result
            instead.
    """
    store = FeatureStore.open(store_path)
    if terms is not None and terms != Terms():
        settings, software = store.settings, store.software
        store = FeatureStore.create_or_open(store_path, settings, classes=(), software=software, terms=terms)
    source = StoreSource(store)
    if is_folder(url):
        summary = receive(source, folder_of(url), selection, replace=replace, jobs=jobs, progress=progress)
        _write_manifests(folder_of(url), source.hashed)
        return summary
    require_jobs(jobs)
    started, place, traffic = time.monotonic(), open_place(url), Traffic(progress)
    if place.is_read_only:
        cure = "push to the folder that it serves, or to S3, the hub, ..."
        raise InputError(f"{place.url}: a web server is read only", cure=cure)
    if place.has_card:
        _require_terms(store, place.url)
    offered, left_out = take(source, selection)
    settings_key = _settle_root(place, store)  # before anything of a match: others push against the same root
    if place.has_card:
        place.create(CARD, _data_card(store, place.url))
    there = listing(place)
    require_apart({each.match_id for each in offered} | set(there.manifests), where=place.url)
    plans = [_plan(each, there, replace=replace) for each in offered]
    travelling = [plan for plan in plans if plan.outline]
    traffic.plan(len(travelling), sum(plan.outline.num_bytes for plan in travelling if plan.outline))

    def send(batch: Sequence[Plan]) -> list[MatchResult]:
        try:
            uploads = [_upload(source, plan, there, settings_key, replace=replace) for plan in batch]
            place.publish(uploads, traffic.add)
            results = [plan.result for plan in batch]
        except Exception as error:  # matches that fail do not stop the others
            results = [failed(plan.result.match_id, error) for plan in batch]
        for result in results:
            if not traffic.is_stopped:
                progress.finished(result)
        return results

    batches = [travelling[at : at + place.uploads_at_once] for at in range(0, len(travelling), place.uploads_at_once)]
    sent = {each.match_id: each for batch in traffic.each(send, batches, at_once=place.publishers) for each in batch}
    _update_index(place)
    results = (*(sent.get(plan.result.match_id, plan.result) for plan in plans), *left_out)
    megabytes, seconds = traffic.num_bytes / 1e6, time.monotonic() - started
    return summary_of(results, source.name, place.url, num_megabytes=megabytes, seconds=seconds)


def _plan(offered: MatchManifest, listed: Listing, *, replace: bool) -> Plan:
    there = listed.manifests.get(offered.match_id)
    damage = "what is there is damaged" if there is None and listed.names_of(offered.match_id) else ""
    return compare(offered, there, replace=replace, damage=damage, arrived="sent")


def _write_manifests(path: Path, arrived: Mapping[str, MatchManifest]) -> None:
    """Say of every match of a store in a folder what it holds, so that a web server can share it.

    Those that have just `arrived` have been checked, and are not hashed once more.
    """
    folder, lock_file = path / MANIFESTS, path / PARTIAL / "manifests.lock"
    with disk_errors(folder):
        # one at a time, so that whoever is last has seen what all others brought
        lock = FileLock.acquire(lock_file, wait_seconds=_LOCK_SECONDS)
        if lock is None:
            raise InputError(f"{folder}: in use", got=FileLock.owner(lock_file), cure="try again")
        with lock:
            said, source, holds = _said(folder), StoreSource(FeatureStore.open(path)), list[MatchManifest]()
            for outline in source.offered()[0]:
                for known in (said.get(outline.match_id), arrived.get(outline.match_id)):
                    if known is not None and known.views == outline.views and not known.differing(outline):
                        made = dataclasses.replace(known, settings_key=outline.settings_key)
                        break
                else:
                    made = source.whole(outline)
                if not (folder / made.name).is_file():
                    write_atomic(folder / made.name, made.document)
                holds.append(made)
            for name in {each.name for each in said.values()} - {each.name for each in holds}:
                (folder / name).unlink(missing_ok=True)
            index, document = folder / INDEX, index_document(holds)
            if not index.is_file() or index.read_bytes() != document:
                write_atomic(index, document)


def _said(folder: Path) -> dict[str, MatchManifest]:
    """Manifests in a folder by match id; damaged ones are removed."""
    said = {}
    for file in filter(lambda file: is_manifest(file.name), folder.glob("*.json")):
        try:
            document = read_bounded(file, max_bytes=MAX_DOCUMENT_BYTES)
            made = MatchManifest.parse(document, name=file.name, where=str(folder))
            said[made.match_id] = made
        except InputError:
            file.unlink(missing_ok=True)
    return said


def _settle_root(place: Place, store: FeatureStore) -> str:
    """Make the root of a shared store, or hold ours against it; the key of its settings."""
    if shared_root(place) is None:
        place.create(METADATA, _root_document(store.record))
    for _ in range(_MAX_ROUNDS):  # until what is there holds what this store needs: another may have written it as well
        theirs = shared_root(place)
        if theirs is None:
            raise InputError(f"{place.url}: what was just written there cannot be read", cure="check the rights")
        require_same_rows(theirs.settings, store.settings, here=place.url, there=str(store.path))
        with named(place.url):
            joined = theirs.joined_record(store.classes, store.origin, store.terms)
        if joined == theirs.record:
            _send_reduction(place, store)
            return str(theirs.record["settings_key"])
        place.write(METADATA, _root_document(joined))
    raise InputError(f"{place.url}: others change its {METADATA} all the time", cure="try again")


def _send_reduction(place: Place, store: FeatureStore) -> None:
    """Bring the components of reduced rows, unless they are there whole."""
    if store.reduction is None:
        return
    try:
        if fetch_reduction(place, store.settings) is not None:
            return
    except InputError:
        pass  # missing or damaged there
    with TemporaryDirectory() as folder:
        write_reduction(Path(folder), store.reduction)
        place.write(REDUCTION_FILE, (Path(folder) / REDUCTION_FILE).read_bytes())


def _update_index(place: Place) -> None:
    """Make the index hold every usable manifest that is there, however many push at once.

    Whoever writes the index looks again afterwards. So the one who wrote it last has seen all manifests that were there
    by then, and whoever brings another one later writes it again. This needs a place that shows at once what was
    written (S3 does). A process that is killed between a manifest and the index leaves the index behind, until somebody
    pushes anything; places that can be listed are read rightly even so.
    """
    unusable = set[str]()
    for _ in range(_MAX_ROUNDS):
        wanted = set(place.manifests() or ()) - unusable
        known = read_index(place, may_lack=True)[0]
        if set(known) == wanted:
            return
        made, damaged = read_manifests(place, sorted(wanted - set(known)))
        unusable |= set(damaged)
        usable = [each for name, each in (known | made).items() if name in wanted]
        place.write(f"{MANIFESTS}/{INDEX}", index_document(usable))


def _upload(source: StoreSource, plan: Plan, listed: Listing, settings_key: str, *, replace: bool) -> Upload:
    """What is to travel, every file hashed."""
    assert plan.outline is not None
    manifest = dataclasses.replace(source.whole(plan.outline), settings_key=settings_key)
    match_id, paths, there = manifest.match_id, list(manifest.files), listed.manifests.get(manifest.match_id)
    if plan.is_adding and there is not None:
        paths = [path for view in manifest.views for path in view_files(view)]
        manifest = there.joined(manifest)
    # in the order in which they must become visible: values, arrays, groups, the match itself
    paths.sort(key=lambda path: (path.endswith(METADATA), -path.count("/"), path))
    return Upload(
        manifest=manifest,
        folder=source.store.path / match_id,
        paths=tuple(paths),
        groups=tuple(parent.as_posix() for parent in reversed(PurePosixPath(match_id).parents) if parent.name),
        outdated=listed.names_of(match_id),
        overwrite=replace and not plan.is_adding,
    )


def _require_terms(store: FeatureStore, url: str) -> None:
    """Raise InputError where a store without licence or origin would go to where strangers may find it."""
    missing = [name for name in ("licence", "origin") if not getattr(store.terms, name)]
    if missing:
        raise InputError(
            f"{store.path}: nobody has said the {' and the '.join(missing)} of its videos and labels",
            wanted="both, for the data card: may you share features of these videos?",
            cure=f"bas cache push {store.path} {url} --licence TEXT --origin TEXT",
        )


def _data_card(store: FeatureStore, url: str) -> bytes:
    """What a store holds, its licence and its origin, as Markdown with the hub's head."""
    settings, terms = store.settings, store.terms
    name = terms.licence.lower()
    weights = f"{settings.weights} ({terms.weights_licence or 'licence not known'})"
    rows = {
        "licence": terms.licence,
        "origin of videos and labels": terms.origin,
        "backbone": settings.backbone,
        "weights": store.origin.describe() if store.origin and store.origin.is_run else weights,
        "channels": settings.dim,
        "rows a second": settings.fps,
        "classes of the labels": ", ".join(store.classes) or "none",
    }
    lines = [f"| {what} | {' '.join(str(value).split()).replace('|', '/')} |" for what, value in rows.items()]
    licence = name if name in _HUB_LICENCES else "other"
    head = ["---", f"license: {licence}", "tags: [action-spotting, video-features]", "---"]
    about = ["# Video features", "", "One row of features per frame, no pictures. Made and read by bas:", ""]
    how = ["```sh", f"bas cache pull {url} features.zarr", "```", "", "| | |", "|---|---|"]
    return "\n".join([*head, "", *about, *how, *lines, ""]).encode()


def _root_document(record: object) -> bytes:
    return canonical_json(group_metadata({"bas": record}), where=METADATA)
