"""`bas cache pull`, `bas cache merge`, and `bas cache push` to a folder: matches into a store on this machine."""

import shutil
import time
from collections.abc import Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError, named_values
from ...files import MatchBusy
from ..layout import METADATA
from ..settings import FeatureSettings
from ..store import FeatureStore
from .arrival import Arrival
from .manifest import MatchManifest, choose
from .place import MATCHES_AT_ONCE
from .source import Source, StoreSource, named, open_source
from .transfer import Journey, MatchOutcome, Outcome, Reporter, Selection, Transfer, size_text

_SPARE_BYTES = 256 << 20
"""Left free on the disk."""


def pull(
    url: str,
    out: Path,
    selection: Selection,
    transfer: Transfer,
    report: Reporter,
) -> Outcome:
    """Bring matches of a shared store into a store on this machine; what is there does not travel.

    Args:
        url: folder or URL.
        out: the store; made where it does not exist.
        selection: which matches and views.
        transfer: how.
        report: hears of progress.

    Raises:
        InputError: the source is no store, the store here is of other settings or classes, nothing is chosen, or the
            disk has no room. A match that fails is in the result instead.
    """
    return receive(open_source(url), out, selection, transfer, report)


def receive(source: Source, out: Path, selection: Selection, transfer: Transfer, report: Reporter) -> Outcome:
    """As `pull`, from a source that is open."""
    started = time.monotonic()
    with named(source.name):
        theirs = FeatureStore.of_record(Path(source.name), source.record())
    chosen, left_out = take(source, selection)
    foreign = [each.match_id for each in chosen if each.settings_key != theirs.settings.key()]
    if foreign:
        cure = "have its owner push it again with --replace, or leave it out by --match"
        raise InputError(f"{source.name}: {foreign[0]} is of other settings than its store", cure=cure)
    store = _open_or_make(out, theirs, source)
    plans = [_plan(store, each, transfer) for each in chosen]
    num_bytes = sum(plan.outline.num_bytes for plan in plans if plan.outline)
    _require_room(out, num_bytes)
    report.planned(sum(plan.outline is not None for plan in plans), num_bytes)
    with Journey(report, matches=MATCHES_AT_ONCE, files=transfer.jobs) as journey:
        task = _Task(source, store, transfer, journey)
        results = tuple(journey.each(task.carry_out, plans))
    return Outcome(source.name, str(out), results + left_out, journey.num_bytes, time.monotonic() - started)


def take(source: Source, selection: Selection) -> tuple[list[MatchManifest], tuple[MatchOutcome, ...]]:
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
    return chosen, tuple(MatchOutcome(each, "", "failed", message=str(error)) for each, error in asked.items())


def merge(sources: Sequence[Path], out: Path, transfer: Transfer, report: Reporter) -> Outcome:
    """Bring all matches of several stores into one.

    Raises:
        InputError: as `pull`; all stores are looked at before the first match is copied.
    """
    stores = [FeatureStore.open(path) for path in sources]
    first, *others = stores
    for each in others:
        require_same_rows(first.settings, each.settings, here=str(first.path), there=str(each.path))
    outcomes = [receive(StoreSource(each), out, Selection(), transfer, report) for each in stores]
    return Outcome(
        ", ".join(map(str, sources)),
        str(out),
        tuple(result for outcome in outcomes for result in outcome.results),
        sum(outcome.bytes for outcome in outcomes),
        sum(outcome.seconds for outcome in outcomes),
    )


@dataclass(frozen=True)
class _Plan:
    """What is to be done for one match."""

    outcome: MatchOutcome
    """As it ends where all goes well."""
    outline: MatchManifest | None = None
    """What travels; None: nothing."""
    adding: bool = False
    replacing: bool = False


def _plan(store: FeatureStore, offered: MatchManifest, transfer: Transfer) -> _Plan:
    """Compare what is offered with what the store has; metadata only."""
    match_id, split = offered.match_id, offered.split or ""
    if not store.views(match_id):
        outcome = MatchOutcome(match_id, split, "received", offered.views, offered.num_bytes)
        return _Plan(outcome, offered)
    try:
        here = StoreSource(store).outline(match_id)
        differing = here.differing(offered)
    except InputError as error:
        differing = [f"what is here is damaged: {error}"]
    if differing and transfer.replace:
        outcome = MatchOutcome(match_id, split, "replaced", offered.views, offered.num_bytes)
        return _Plan(outcome, offered, replacing=True)
    if differing:
        message = f"{', '.join(differing)}; --replace takes the other's"
        return _Plan(MatchOutcome(match_id, split, "differs", message=message))
    new = [view for view in offered.views if view not in here.views]
    if not new:
        return _Plan(MatchOutcome(match_id, split, "already there"))
    part = offered.only(new)
    return _Plan(MatchOutcome(match_id, split, "views added", part.views, part.num_bytes), part, adding=True)


@dataclass(frozen=True)
class _Task:
    """Where matches come from and go to."""

    source: Source
    store: FeatureStore
    transfer: Transfer
    journey: Journey

    def carry_out(self, plan: _Plan) -> MatchOutcome:
        """A match that fails does not stop the others."""
        outcome = plan.outcome
        try:
            if plan.outline is not None:
                outcome = self._receive(plan, plan.outline)
        except MatchBusy as error:
            outcome = MatchOutcome(outcome.match, outcome.split, "busy elsewhere", message=str(error))
        except InputError as error:
            outcome = MatchOutcome(outcome.match, outcome.split, "failed", message=str(error))
        self.journey.finished(outcome)
        return outcome

    def _receive(self, plan: _Plan, outline: MatchManifest) -> MatchOutcome:
        """One match: stage its metadata, hold it against the store, stage its values, check all, publish."""
        manifest = self.source.whole(outline)
        metadata = [path for path in manifest.files if path.endswith(METADATA)]
        values = [path for path in manifest.files if not path.endswith(METADATA)]
        adding, replacing, where = plan.adding, plan.replacing, self.source.name
        with Arrival(self.store, manifest, where=where, adding=adding, replacing=replacing) as arrival:
            now = _plan(self.store, outline, self.transfer)
            if now != plan:  # another process has brought it before this one had the lock
                arrival.discard()
                if now.outline is None:
                    return now.outcome
                raise MatchBusy(f"match {manifest.match_id!r} was just changed by another process", cure="try again")
            self._bring(arrival, metadata)
            arrival.require_fitting()
            self._bring(arrival, values)
            arrival.publish()
        return plan.outcome

    def _bring(self, arrival: Arrival, paths: Sequence[str]) -> None:
        """Files side by side; the first error after all have ended."""
        bring, on_bytes = self.journey.files.submit, self.journey.on_bytes
        futures = [bring(arrival.receive, self.source, path, on_bytes) for path in paths]
        wait(futures)
        for future in futures:
            future.result()


def _open_or_make(out: Path, theirs: FeatureStore, source: Source) -> FeatureStore:
    """The store here, made or held against the settings of what is to come.

    Raises:
        InputError: it holds rows of other settings; names them.
    """
    settings, reduction = theirs.settings, None
    if (out / METADATA).exists():
        settings = FeatureStore.open(out).settings
        require_same_rows(settings, theirs.settings, here=str(out), there=source.name)
    else:
        reduction = source.reduction(settings)
    return FeatureStore.create_or_open(
        out,
        settings,
        classes=theirs.classes,
        software=theirs.software,
        origin=theirs.origin,
        reduction=reduction,
    )


def require_same_rows(mine: FeatureSettings, theirs: FeatureSettings, *, here: str, there: str) -> None:
    """Refuse to mix rows of two settings; the name of a weights file does not matter.

    Raises:
        InputError: names what differs.
    """
    wrong = mine.differing(theirs)
    if wrong:
        raise InputError(
            f"{here} and {there} hold features of other settings; these differ: {', '.join(wrong)}",
            got=named_values(wrong, vars(theirs)),
            wanted=named_values(wrong, vars(mine)),
            cure="keep them in stores of their own",
        )


def _require_room(out: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(out).free
    if num_bytes > free - _SPARE_BYTES:
        raise InputError(
            f"{out}: no room for what would travel",
            got=f"{size_text(num_bytes)}; {size_text(free)} are free",
            cure="free some space, or choose less by --split, --match, --view",
        )
