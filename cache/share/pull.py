"""`bas cache pull`, `bas cache merge`, and `bas cache push` to a folder: matches into a store on this machine.

What arrives is trusted in nothing: sizes and hashes have to be those of the manifest, and every check of
`bas cache verify` has to pass before a match appears, by one rename.
"""

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ...errors import InputError, refuse_differing
from ...files import MatchBusy, disk_errors, file_sha256, sync_path, write_atomic
from ...workers import SILENT, MatchResult, Progress, Summary, failed
from ..layout import METADATA, PARTIAL, canonical_json, inside, partial_name
from ..match import read_match
from ..partial import JOURNAL, TREE, lock_match, publish, read_journal
from ..settings import FeatureSettings
from ..store import FeatureStore
from ..verify import check_match
from ..writer import require_own_place
from .manifest import MatchManifest, choose
from .source import Source, StoreSource, open_source

Item = TypeVar("Item")
Result = TypeVar("Result")
MATCHES_AT_ONCE = 4
"""Matches under way at a time; the files of each travel side by side."""
_WAKE_SECONDS = 0.2
_SPARE_BYTES = 256 << 20
"""Left free on the disk."""
_INCOMING, _OLD = "incoming", "old"
"""Folders beside the staged match: a file on its way, and the replaced match until the new one is in its place."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which part of a store travels; empty: all."""

    matches: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    views: tuple[str, ...] = ()


class Traffic:
    """Counts the bytes that travel, from any thread."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.num_bytes, self.total, self.is_stopped = progress, 0, 0, False
        self._lock = threading.Lock()

    def plan(self, num_matches: int, num_bytes: int) -> None:
        """Say what is to travel."""
        self.total = num_bytes
        self.progress.started(num_matches, num_bytes)

    def add(self, num_bytes: int) -> None:
        """Count bytes that have just travelled. Raises InputError where no more are to come."""
        if self.is_stopped:
            raise InputError("stopped")
        with self._lock:
            self.num_bytes += num_bytes
            self.progress.advanced("", self.num_bytes, max(self.total, self.num_bytes), "")

    def each(self, act: Callable[[Item], Result], items: Iterable[Item], *, at_once: int) -> list[Result]:
        """Results of `act` on items side by side, in order; the first error after all have ended.

        Left by Ctrl-C, it starts nothing more, and does not wait for what is under way: a slow server may hold it for
        minutes, and a process may end at any point.
        """
        pool = ThreadPoolExecutor(at_once)
        try:
            futures = [pool.submit(act, item) for item in items]
            # it wakes up now and then: a signal that another thread was given is heard only while this one runs
            while wait(futures, timeout=_WAKE_SECONDS).not_done:
                pass
            return [future.result() for future in futures]
        except BaseException as error:
            self.is_stopped = self.is_stopped or not isinstance(error, Exception)
            raise
        finally:
            pool.shutdown(wait=not self.is_stopped, cancel_futures=True)


def pull(
    url: str,
    out: Path,
    selection: Selection,
    *,
    replace: bool = False,
    jobs: int = 8,
    progress: Progress = SILENT,
) -> Summary:
    """Bring matches of a shared store into a store on this machine; what is there does not travel.

    Args:
        url: folder or URL.
        out: the store; made where it does not exist.
        selection: which matches and views.
        replace: matches that are there with other content are replaced.
        jobs: files of a match under way at a time, >= 1.
        progress: hears of bytes.

    Raises:
        InputError: the source is no store, the store here is of other settings or classes, nothing is chosen, or the
            disk has no room. A match that fails is in the result instead.
    """
    return receive(open_source(url), out, selection, replace=replace, jobs=jobs, progress=progress)


def merge(sources: Sequence[Path], out: Path, *, replace: bool = False, progress: Progress = SILENT) -> Summary:
    """Bring all matches of several stores into one.

    Raises:
        InputError: as `pull`; all stores are looked at before the first match is copied.
    """
    first, *others = stores = [FeatureStore.open(path) for path in sources]
    for each in others:
        require_same_rows(first.settings, each.settings, here=str(first.path), there=str(each.path))
    summaries = [receive(StoreSource(each), out, Selection(), replace=replace, progress=progress) for each in stores]
    results = tuple(result for summary in summaries for result in summary.results)
    amount, seconds = sum(each.amount for each in summaries), sum(each.seconds for each in summaries)
    return summary_of(results, ", ".join(map(str, sources)), str(out), num_megabytes=amount, seconds=seconds)


def receive(
    source: Source,
    out: Path,
    selection: Selection,
    *,
    replace: bool = False,
    jobs: int = 8,
    progress: Progress = SILENT,
) -> Summary:
    """As `pull`, from a source that is open."""
    started, traffic = time.monotonic(), Traffic(progress)
    require_jobs(jobs)
    theirs = source.store
    chosen, left_out = take(source, selection)
    keys = (theirs.settings.key(), theirs.settings.key_with_name())
    for each in chosen:
        if each.settings_key not in keys:
            cure = "have its owner push it again with --replace, or leave it out by --match"
            raise InputError(f"{source.name}: {each.match_id} is of other settings than its store", cure=cure)
    store = _open_or_make(out, theirs, source)
    plans = [_plan(store, each, replace=replace) for each in chosen]
    num_bytes = sum(plan.outline.num_bytes for plan in plans if plan.outline)
    _require_room(out, num_bytes)
    traffic.plan(sum(plan.outline is not None for plan in plans), num_bytes)

    def carry_out(plan: Plan) -> MatchResult:
        result = plan.result
        if plan.outline is None:
            return result
        try:
            result = _receive(source, store, plan, plan.outline, traffic, replace=replace, jobs=jobs)
        except Exception as error:  # a match that fails does not stop the others
            result = failed(result.match_id, error)
        if not traffic.is_stopped:
            progress.finished(result)
        return result

    results = traffic.each(carry_out, plans, at_once=MATCHES_AT_ONCE)
    megabytes, seconds = traffic.num_bytes / 1e6, time.monotonic() - started
    return summary_of((*results, *left_out), source.name, str(out), num_megabytes=megabytes, seconds=seconds)


def summary_of(
    results: tuple[MatchResult, ...], source: str, target: str, *, num_megabytes: float, seconds: float
) -> Summary:
    """How a transfer ended; bytes that an earlier run had brought are left out."""
    return Summary(
        results=results, target=target, seconds=seconds, unit="MB", amount=num_megabytes, record={"source": source}
    )


def require_jobs(jobs: int) -> None:
    """Raise InputError where no file could travel."""
    if jobs < 1:
        raise InputError("--jobs is not usable", got=jobs, wanted="a whole number >= 1")


def take(source: Source, selection: Selection) -> tuple[list[MatchManifest], tuple[MatchResult, ...]]:
    """Matches that are asked for, and those among them that cannot be shared.

    Raises:
        InputError: as `choose`, or none can be shared.
    """
    offered, damaged = source.offered()
    asked = {each: error for each, error in damaged.items() if not selection.matches or each in selection.matches}
    if asked and len(asked) == (len(selection.matches) or len(offered) + len(damaged)):
        raise next(iter(asked.values()))
    chosen = choose(
        offered,
        match_ids=[each for each in selection.matches if each not in asked],
        splits=selection.splits,
        views=selection.views,
        where=source.name,
    )
    return chosen, tuple(failed(match_id, error) for match_id, error in asked.items())


@dataclass(frozen=True)
class Plan:
    """What is to be done for one match."""

    result: MatchResult
    """As it ends where all goes well."""
    outline: MatchManifest | None = None
    """What travels; None: nothing."""

    @property
    def is_adding(self) -> bool:
        """Whether further views of a match travel."""
        return self.result.status == "views added"

    @property
    def is_replacing(self) -> bool:
        """Whether what is there goes."""
        return self.result.status == "replaced"


def compare(
    offered: MatchManifest, there: MatchManifest | None, *, replace: bool, damage: str = "", arrived: str = "received"
) -> Plan:
    """What is to be done for a match that is offered, by metadata only.

    Args:
        offered: all of the match.
        there: what the target has of it; None: nothing, or nothing usable.
        replace: other content is replaced.
        damage: why what the target has is not usable; empty where it has nothing.
        arrived: status of a new match.
    """

    def ends(status: str, travels: MatchManifest | None = None, message: str = "") -> Plan:
        views, num_bytes = (travels.views, travels.num_bytes) if travels else ((), 0)
        columns = {"split": offered.split or "", "views": " ".join(views), "MB": num_bytes / 1e6 if num_bytes else ""}
        is_done = status != "differs"
        result = MatchResult(
            match_id=offered.match_id, status=status, is_done=is_done, message=message, columns=columns
        )
        return Plan(result, travels)

    if there is None and not damage:
        return ends(arrived, offered)
    differing = offered.differing(there) if there else [damage]
    if differing and replace:
        return ends("replaced", offered)
    if differing:
        return ends("differs", message=f"not the same there and here: {', '.join(differing)}; --replace replaces it")
    new = [view for view in offered.views if there and view not in there.views]
    return ends("views added", offered.only(new)) if new else ends("already there")


def _plan(store: FeatureStore, offered: MatchManifest, *, replace: bool) -> Plan:
    if not store.views(offered.match_id):
        return compare(offered, None, replace=replace)
    try:
        return compare(offered, StoreSource(store).outline(offered.match_id), replace=replace)
    except InputError as error:
        return compare(offered, None, replace=replace, damage=f"what is here is damaged: {error}")


def _receive(
    source: Source,
    store: FeatureStore,
    plan: Plan,
    outline: MatchManifest,
    traffic: Traffic,
    *,
    replace: bool,
    jobs: int,
) -> MatchResult:
    """One match: stage its files, check them all, publish it. What an earlier run has brought whole does not travel."""
    manifest, root = source.whole(outline), store.path
    manifest.require_fitting(store.settings, where=source.name)
    folder = inside(root, f"{PARTIAL}/{partial_name(manifest.match_id)}")
    with lock_match(root, manifest.match_id), disk_errors(folder):
        now = _plan(store, outline, replace=replace)
        if now != plan:  # another process has brought it before this one had the lock
            if now.outline is None:
                return now.result
            raise MatchBusy(f"match {manifest.match_id!r} was just changed by another process", cure="try again")
        require_own_place(root, manifest.match_id)
        journal = _begin(folder, manifest, plan)

        def bring(path: str) -> None:
            entry, target = manifest.files[path], folder / TREE / path
            if target.is_file() and file_sha256(target) == entry.sha256:
                return
            part = folder / _INCOMING / hashlib.sha256(path.encode()).hexdigest()
            source.fetch(manifest.match_id, path, part, entry, traffic.add)
            sync_path(part)  # on the disk before it has its name, so that what a crash leaves is whole as well
            target.parent.mkdir(parents=True, exist_ok=True)
            part.replace(target)

        traffic.each(bring, manifest.files, at_once=jobs)
        shutil.rmtree(folder / _INCOMING)  # empty by now, and no part of the match
        _check(folder, store, manifest, where=source.name)
        _publish(root, folder, manifest.match_id, plan, journal)
    return plan.result


def _begin(folder: Path, manifest: MatchManifest, plan: Plan) -> dict[str, Any]:
    """Keep the staged files where they are of the same content, else begin empty; the journal."""
    # a replacement never goes on from what was begun as a plain transfer, nor the other way round
    views = [f"{view} (replaced)" for view in manifest.views] if plan.is_replacing else list(manifest.views)
    fingerprint = {"manifest": manifest.name, "views": views}
    journal = read_journal(folder)
    if journal is None or journal["fingerprint"] != fingerprint or journal["adding"] != plan.is_adding:
        shutil.rmtree(folder, ignore_errors=True)
        journal = {
            "match": manifest.match_id,
            "adding": plan.is_adding,
            "committing": False,
            "fingerprint": fingerprint,
            "rows_done": 0,
            "crc32c": {},
        }
        write_atomic(folder / JOURNAL, canonical_json(journal, where=manifest.match_id))
    shutil.rmtree(folder / _INCOMING, ignore_errors=True)
    (folder / _INCOMING).mkdir()
    return journal


def _check(folder: Path, store: FeatureStore, manifest: MatchManifest, *, where: str) -> None:
    """Every check of `bas cache verify`, and that the match is the manifest's; else what has arrived is thrown away."""
    staged = FeatureStore(folder, store.record)
    errors = [finding.message for finding in check_match(staged, TREE) if finding.severity != "note"]
    if not errors:
        match = read_match(folder, TREE)
        said = (match.num_rows, match.meta.split, None if match.meta.labels is None else len(match.meta.labels))
        if said != (manifest.num_rows, manifest.split, manifest.num_events):
            errors = [f"record and manifest differ: {said}"]
    if errors:
        shutil.rmtree(folder)
        got = "; ".join(errors).replace(str(folder / TREE), manifest.match_id)
        raise InputError(
            f"{where}: match {manifest.match_id!r}: what arrived is not usable",
            got=got.replace(f"{TREE}/", f"{manifest.match_id}/")[:400],
            cure="do not trust this store; have its owner run `bas cache verify` and push the match again",
        )


def _publish(root: Path, folder: Path, match_id: str, plan: Plan, journal: dict[str, Any]) -> None:
    for parent, _, _ in os.walk(folder / TREE, topdown=False):
        sync_path(Path(parent))
    write_atomic(folder / JOURNAL, canonical_json({**journal, "committing": True}, where=match_id))
    if plan.is_replacing:  # for an instant there is neither; who has mapped the old rows reads on
        (root / match_id).rename(folder / _OLD)
    publish(root, folder, match_id, adding=plan.is_adding)
    shutil.rmtree(folder)


def _open_or_make(out: Path, theirs: FeatureStore, source: Source) -> FeatureStore:
    """The store here, made or held against the settings of what is to come; InputError where they differ."""
    settings, reduction = theirs.settings, None
    if (out / METADATA).exists():
        settings = FeatureStore.open(out).settings
        require_same_rows(settings, theirs.settings, here=str(out), there=source.name)
    else:
        reduction = source.reduction()
    return theirs.create_like(out, settings, reduction)


def require_same_rows(mine: FeatureSettings, theirs: FeatureSettings, *, here: str, there: str) -> None:
    """Raise InputError where rows of two settings would mix; names what differs."""
    refuse_differing(
        mine.differing(theirs),
        f"{here} and {there} hold features of other settings",
        got=vars(theirs),
        wanted=vars(mine),
        cure="keep them in stores of their own",
    )


def _require_room(out: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(out).free
    if num_bytes > free - _SPARE_BYTES:
        raise InputError(
            f"{out}: no room for what would travel",
            got=f"{num_bytes / 1e9:,.2f} GB; {free / 1e9:,.2f} GB are free",
            cure="free some space, or choose less by --split, --match, --view",
        )
