"""`bas cache push`: matches of a store to a place that shares it. Different matches may come from many at once."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ...errors import InputError
from ..layout import METADATA, canonical_json, group_metadata
from ..store import FeatureStore
from .components import send_components
from .folder import write_manifests
from .index import update_index
from .manifest import MatchManifest, require_apart, view_files
from .place import Place, Upload, folder_of, in_order, is_folder
from .places import open_place
from .pull import receive, require_same_rows, take
from .source import Listing, StoreSource, listing, named, root_record
from .transfer import Journey, MatchOutcome, Outcome, Reporter, Selection, Transfer

_MAX_ROUNDS = 5


def push(store_path: Path, url: str, selection: Selection, transfer: Transfer, report: Reporter) -> Outcome:
    """Bring matches of a store to a folder or URL; what is there does not travel.

    Args:
        store_path: the store.
        url: where to; see `open_place`. A folder becomes a store like any other.
        selection: which matches and views.
        transfer: how.
        report: hears of progress.

    Raises:
        InputError: no store, the place holds features of other settings or classes, nothing is chosen, or the place
            cannot be written. A match that fails is in the result instead.
    """
    store = FeatureStore.open(store_path)
    source = StoreSource(store)
    if is_folder(url):
        outcome = receive(source, folder_of(url), selection, transfer, report)
        write_manifests(folder_of(url))
        return outcome
    started, place = time.monotonic(), open_place(url)
    offered, left_out = take(source, selection)
    settings_key = settle_root(place, store)
    there = listing(place)
    require_apart({each.match_id for each in offered} | set(there.manifests), where=place.url)
    plans = [_plan(replace(each, settings_key=settings_key), there, transfer) for each in offered]
    travelling = [plan for plan in plans if plan.offered]
    report.planned(len(travelling), sum(plan.outcome.bytes for plan in travelling))
    batches = [travelling[at : at + place.uploads_at_once] for at in range(0, len(travelling), place.uploads_at_once)]
    with Journey(report, matches=place.publishers) as journey:
        sent = journey.each(lambda batch: _send_or_explain(source, store, place, batch, journey), batches)
        outcomes = {outcome.match: outcome for batch in sent for outcome in batch}
    update_index(place)
    results = tuple(outcomes.get(plan.outcome.match, plan.outcome) for plan in plans)
    return Outcome(source.name, place.url, results + left_out, journey.num_bytes, time.monotonic() - started)


def settle_root(place: Place, store: FeatureStore) -> str:
    """Make the root of a shared store, or hold ours against it; the key of its settings.

    Raises:
        InputError: it is of other settings or classes.
    """
    if root_record(place) is None:
        place.create(METADATA, _root_document(store.record))
    for _ in range(_MAX_ROUNDS):  # until what is there holds what this store needs: another may have written it as well
        record = root_record(place)
        if record is None:
            raise InputError(f"{place.url}: what was just written there cannot be read", cure="check the rights")
        with named(place.url):
            theirs = FeatureStore.of_record(Path(place.url), record)
            require_same_rows(theirs.settings, store.settings, here=place.url, there=str(store.path))
            joined = theirs.joined_record(store.classes, store.origin)
        if joined == record:
            send_components(place, store)
            return theirs.settings.key()
        place.write(METADATA, _root_document(joined))
    raise InputError(f"{place.url}: others change its {METADATA} all the time", cure="try again")


@dataclass(frozen=True)
class _Plan:
    """What is to be done for one match."""

    outcome: MatchOutcome
    """As it ends where all goes well."""
    offered: MatchManifest | None = None
    """Outline of what travels; None: nothing."""
    there: MatchManifest | None = None
    """What the place has of the match."""
    outdated: tuple[str, ...] = ()
    overwrite: bool = False


def _plan(offered: MatchManifest, listed: Listing, transfer: Transfer) -> _Plan:
    """Compare what is offered with what the place has; metadata only."""
    match_id, split = offered.match_id, offered.split or ""
    there, names = listed.manifests.get(match_id), listed.names_of(match_id)
    if not names:
        outcome = MatchOutcome(match_id, split, "sent", offered.views, offered.num_bytes)
        return _Plan(outcome, offered, overwrite=transfer.replace)
    differing = offered.differing(there) if there else ["what is there is damaged"]
    if differing and transfer.replace:
        outcome = MatchOutcome(match_id, split, "replaced", offered.views, offered.num_bytes)
        return _Plan(outcome, offered, there, names, overwrite=True)
    if there is None or differing:
        message = f"it differs there: {', '.join(differing)}; --replace puts yours in its place"
        return _Plan(MatchOutcome(match_id, split, "differs", message=message))
    new = [view for view in offered.views if view not in there.views]
    if not new:
        return _Plan(MatchOutcome(match_id, split, "already there"))
    num_bytes = sum(offered.files[path].num_bytes for view in new for path in view_files(view))
    return _Plan(MatchOutcome(match_id, split, "views added", tuple(new), num_bytes), offered.only(new), there, names)


def _send_or_explain(
    source: StoreSource, store: FeatureStore, place: Place, batch: Sequence[_Plan], journey: Journey
) -> list[MatchOutcome]:
    """Matches that fail do not stop the others."""
    try:
        place.publish([_upload(source, store, plan) for plan in batch], journey.on_bytes)
        outcomes = [plan.outcome for plan in batch]
    except InputError as error:
        outcomes = [replace(plan.outcome, status="failed", bytes=0, message=str(error)) for plan in batch]
    for outcome in outcomes:
        journey.finished(outcome)
    return outcomes


def _upload(source: StoreSource, store: FeatureStore, plan: _Plan) -> Upload:
    """What is to travel, every file hashed."""
    assert plan.offered is not None
    manifest, paths = source.whole(plan.offered), in_order(plan.offered.files)
    match_id = manifest.match_id
    if plan.there is not None and not plan.overwrite:
        paths = in_order({path: None for view in manifest.views for path in view_files(view)})
        manifest = plan.there.joined(manifest)
    return Upload(
        manifest=manifest,
        folder=store.path / match_id,
        paths=paths,
        groups=tuple(parent.as_posix() for parent in reversed(PurePosixPath(match_id).parents) if parent.name),
        outdated=plan.outdated,
        overwrite=plan.overwrite,
    )


def _root_document(record: object) -> bytes:
    return canonical_json(group_metadata({"bas": record}), where=METADATA)
