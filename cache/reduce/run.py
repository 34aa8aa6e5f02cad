"""`bas cache pca`: a store of full rows to a store of reduced ones. The match is the unit of work.

D: channels of the reduced rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ...errors import InputError, named_values
from ...events import SPLITS
from ...files import MatchBusy
from ..layout import FEATURES, METADATA
from ..rows import array_metadata
from ..settings import FeatureSettings
from ..store import FeatureStore
from ..writer import MatchWriter
from .fit import READ_ROWS, FitSettings, fit, num_rows_read
from .reduction import Reduction

Status = Literal["reduced", "resumed", "already there", "busy elsewhere", "failed"]
FIRST_VIEW = "identity"


@dataclass(frozen=True, kw_only=True)
class ReduceOptions:
    """What the user asked for."""

    fit: FitSettings | None = None
    """None: follow the components that there are."""
    components: Path | None = None
    """A reduced store whose components are taken."""
    views: tuple[str, ...] = ()
    """Views to reduce; empty: all of every match. The first one (identity, where it is among them) is fitted on."""


@dataclass(frozen=True)
class ReduceResult:
    """How one match ended."""

    match: str
    split: str
    status: Status
    views: tuple[str, ...] = ()
    """Written now."""
    rows: int = 0
    bytes_before: int = 0
    """Of one full view."""
    bytes_after: int = 0
    """Of one reduced view."""
    message: str = ""
    """Why it failed, or why its unfinished rows were not used."""


@dataclass(frozen=True)
class ReduceSummary:
    """How a reduction ended."""

    store: Path
    reduction: Reduction
    is_fitted: bool
    """Whether it was fitted now; else it was there."""
    results: tuple[ReduceResult, ...]

    @property
    def complete(self) -> bool:
        """True where every match is in the store."""
        return all(result.status not in ("failed", "busy elsewhere") for result in self.results)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "store": str(self.store),
            "settings": self.reduction.settings.to_json(),
            "settings_key": self.reduction.settings.key(),
            "source_key": self.reduction.source.key(),
            "reduction": dict(self.reduction.about),
            "fitted": self.is_fitted,
            "complete": self.complete,
            "matches": [asdict(result) for result in self.results],
        }


def parse_fit(*, dim: str | None, quantize: str | None, split: str | None) -> FitSettings | None:
    """What the command line asks of a reduction; None where it asks for nothing.

    Raises:
        InputError: an option cannot be used.
    """
    if quantize not in (None, "uint8"):
        raise InputError("--quantize is not known", got=quantize, wanted="uint8")
    if split is not None and split not in SPLITS:
        raise InputError("--fit-split is not known", got=split, wanted=", ".join(SPLITS))
    if dim is None and quantize is None:
        if split is not None:
            raise InputError("--fit-split needs --dim or --quantize", cure="--dim 64")
        return None
    try:
        number = None if dim is None else int(dim) if dim.strip().isdigit() else float(dim)
    except ValueError:
        raise InputError("--dim is not usable", got=dim, wanted="channels, such as 64, or a share, 0.95") from None
    return FitSettings(dim=number, quantize=quantize is not None, split=split or "train")


def reduce_store(
    store_path: Path,
    out: Path,
    options: ReduceOptions,
    *,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> ReduceSummary:
    """Reduce every match of a store into another; what is there is left alone, what was cut off goes on.

    Args:
        store_path: a store of full rows.
        out: the reduced store; made where it does not exist. One that exists keeps its components.
        options: what is asked for.
        on_progress: called with rows done and rows in all, every pass over them counted.

    Raises:
        InputError: the store is reduced already, nothing can be fitted, or what is asked for is not what `out` holds.
            A match that fails is in the summary instead.
    """
    store = FeatureStore.open(store_path)
    _require_full(store, out)
    work = _work(store, options.views)
    count = _Count(on_progress, sum(store.match(match_id).num_rows * len(views) for match_id, views in work.items()))
    known = _known(store, out, options)
    reduction = known or _fitted(store, options.fit, fitted_view(work), count)
    target = FeatureStore.create_or_open(
        out,
        reduction.settings,
        classes=store.classes,
        software=store.software,
        origin=store.origin,
        reduction=reduction,
    )
    results = tuple(_reduce_or_explain(store, target, match_id, views, count) for match_id, views in work.items())
    return ReduceSummary(out, reduction, known is None, results)


def _fitted(store: FeatureStore, asked: FitSettings | None, view: str, count: "_Count") -> Reduction:
    if asked is None:
        raise InputError(
            "no components to follow, and none asked for", wanted="--dim, --quantize, or both", cure="--dim 64"
        )
    count.total += num_rows_read(store, asked, view=view)
    return fit(store, asked, view=view, on_rows=count.add)


def fitted_view(work: Mapping[str, Sequence[str]]) -> str:
    """The view that is fitted on: identity where any match has it, else the first by name."""
    names = sorted({view for views in work.values() for view in views})
    return FIRST_VIEW if FIRST_VIEW in names else names[0]


@dataclass
class _Count:
    """Rows done."""

    tell: Callable[[int, int], None]
    total: int
    done: int = 0

    def add(self, num_rows: int) -> None:
        self.done += num_rows
        self.tell(self.done, self.total)


def _require_full(store: FeatureStore, out: Path) -> None:
    if store.settings.reduction is not None:
        raise InputError(
            f"{store.path}: its rows are reduced already",
            got=store.settings.reduction[:40] + "...",
            wanted="a store of full rows",
            cure="name the store that it was made from",
        )
    if out.resolve() == store.path.resolve():
        raise InputError(f"{out}: the store cannot be reduced in place", cure="name another --out")


def _work(store: FeatureStore, views: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Match -> its views that are asked for."""
    work = {}
    for match_id in store.matches():
        there = store.views(match_id)
        missing = sorted(set(views) - set(there))
        if missing:
            raise InputError(
                f"{store.path}: match {match_id!r} lacks a view",
                got=", ".join(there),
                wanted=", ".join(missing),
                cure="leave --view out, or extract that view first",
            )
        work[match_id] = tuple(views) or tuple(there)
    if not work:
        raise InputError(f"{store.path}: no match to reduce")
    return work


def _known(store: FeatureStore, out: Path, options: ReduceOptions) -> Reduction | None:
    """The reduction that there is, in `out` or where its components are to be taken from; None: to be fitted."""
    if (out / METADATA).exists():
        where, place = out, FeatureStore.open(out)
        other = FeatureStore.open(options.components) if options.components else place
        if other.settings != place.settings:
            raise InputError(
                f"{out}: holds rows of other components",
                got=str(options.components),
                wanted=str(place.settings.reduction)[:40] + "...",
                cure="leave --components out to follow the store, or name another --out",
            )
    elif options.components is not None:
        where, place = options.components, FeatureStore.open(options.components)
    else:
        return None
    reduction = place.reduction
    if reduction is None:
        raise InputError(
            f"{where}: a store of full rows", wanted="one that `bas cache pca` made", cure="name another --out"
        )
    wrong = reduction.source.differing(store.settings)
    if wrong:
        raise InputError(
            f"{where}: its components are for rows of other settings; these differ: {', '.join(wrong)}",
            got=f"{store.path}: {named_values(wrong, vars(store.settings))}",
            wanted=named_values(wrong, vars(reduction.source)),
            cure="reduce the store into another --out, with components of its own",
        )
    _require_as_asked(reduction, options.fit, where=where)
    return reduction


def _require_as_asked(reduction: Reduction, asked: FitSettings | None, *, where: Path) -> None:
    """Refuse options that the components do not follow."""
    if asked is None:
        return
    held, wanted = reduction.about.get("asked", {}), asked.to_json()
    wrong = [name for name, value in wanted.items() if held.get(name) != value]
    if wrong == ["dim"] and asked.dim == reduction.dim and reduction.components is not None:
        return  # asked for by number now, by share then
    if wrong:
        raise InputError(
            f"{where}: its components were fitted with other options; these differ: {', '.join(wrong)}",
            got=named_values(wrong, wanted),
            wanted=named_values(wrong, {name: held.get(name) for name in wrong}),
            cure="leave these options out to follow the components, or name another --out",
        )


def _reduce_or_explain(
    store: FeatureStore, target: FeatureStore, match_id: str, views: tuple[str, ...], count: _Count
) -> ReduceResult:
    """A match that cannot be reduced does not stop the others."""
    split = ""
    try:
        split = store.match(match_id).meta.split or ""
        return _reduce(store, target, match_id, views, count)
    except MatchBusy as error:
        return ReduceResult(match_id, split, "busy elsewhere", message=str(error))
    except InputError as error:
        return ReduceResult(match_id, split, "failed", message=str(error))


def _reduce(
    store: FeatureStore, target: FeatureStore, match_id: str, views: tuple[str, ...], count: _Count
) -> ReduceResult:
    """One match: all its views that are missing, in blocks."""
    match, there, reduction = store.match(match_id), target.views(match_id), target.reduction
    assert reduction is not None
    missing = tuple(view for view in views if view not in there)
    count.add(match.num_rows * (len(views) - len(missing)))
    sizes = match.num_rows * _row_bytes(store.settings), match.num_rows * _row_bytes(target.settings)
    split, first_row, restarted = match.meta.split or "", 0, ""
    for view in missing:  # one by one: each array keeps what it was made from
        with target.writer(
            match_id,
            views=(view,),
            num_rows=match.num_rows,
            pts_ticks=store.pts(match_id),
            match_meta=match.meta,
            provenance=_provenance(store, match_id, view),
        ) as writer:
            first_row, restarted = max(first_row, writer.rows_done), restarted or writer.restarted_because
            _append_rows((store, match_id, view), reduction, writer, count)
            writer.commit()
    if not missing:
        return ReduceResult(match_id, split, "already there", (), match.num_rows, *sizes)
    message = f"begun anew, unfinished work was not used: {restarted}" if restarted else ""
    status: Status = "resumed" if first_row else "reduced"
    return ReduceResult(match_id, split, status, missing, match.num_rows, *sizes, message)


def _append_rows(
    source: tuple[FeatureStore, str, str], reduction: Reduction, writer: MatchWriter, count: _Count
) -> None:
    """From where the writer stands, a multiple of the rows that are projected at once, to the end."""
    store, match_id, view = source
    rows, valid = store.rows(match_id, view), store.valid(match_id)
    count.add(writer.rows_done)
    for start in range(writer.rows_done, len(valid), READ_ROWS):
        flags = valid[start : start + READ_ROWS]
        writer.append({view: reduction.encode(rows[start : start + READ_ROWS])}, flags)
        count.add(len(flags))


def _provenance(store: FeatureStore, match_id: str, view: str) -> dict[str, Any]:
    """Kept with the array, and equal where unfinished work is carried on."""
    of_source = array_metadata(store.path, f"{match_id}/{FEATURES}/{view}")["attributes"]
    return {"engine": "reduction", "source": {name: of_source.get(name) for name in ("sha256", "engine")}}


def _row_bytes(settings: FeatureSettings) -> int:
    return settings.dim * (1 if settings.dtype == "uint8" else 2)
