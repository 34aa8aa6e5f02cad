"""`bas cache pca`: a store of full rows to a store of reduced ones, fitted in blocks so that memory does not grow.

Legend: n rows of a block, C channels of the full rows, D channels of the reduced ones.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError, refuse_differing
from ..events import Split
from ..workers import SILENT, MatchResult, Progress, Summary, each_match
from .layout import DTYPES, METADATA
from .reduction import NUM_LEVELS, FloatArray, Reduction
from .store import FeatureStore

Float64 = npt.NDArray[np.float64]
READ_ROWS = WRITE_ROWS = 8192
"""Rows that are fitted on, and reduced, at a time; a multiple of the rows that are projected at once."""
_LEAST_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """What is asked of a reduction."""

    dim: int | float | None = None
    """Channels to keep, >= 1; a share of the variance below 1 takes as many as reach it; None: no PCA."""
    quantize: bool = False
    """Keep rows in 8 bits."""
    split: Split = "train"
    """Fitted on its matches and on no others."""
    margin: float = 0.25
    """Share of a channel's range over the rows that it was fitted on by which the levels reach further at each end."""

    def __post_init__(self) -> None:
        if self.dim is None and not self.quantize:
            raise InputError("nothing to do", wanted="--dim, --quantize, or both", cure="--dim 64 --quantize uint8")
        if self.dim is not None and not (0 < self.dim < 1 or (self.dim >= 1 and self.dim == int(self.dim))):
            raise InputError(
                "--dim is not usable", got=self.dim, wanted="channels, such as 64, or a share such as 0.95"
            )
        if not 0 <= self.margin <= 10:
            raise InputError("the margin of the levels is not usable", got=self.margin, wanted="0 to 10")


@dataclass(frozen=True)
class SplitRows:
    """The valid rows of some matches, one after the other."""

    store: FeatureStore
    match_ids: tuple[str, ...]
    view: str
    num_rows: int

    @classmethod
    def of(cls, store: FeatureStore, split: Split, view: str) -> "SplitRows":
        """Those of a split; there may be none."""
        ids = tuple(match_id for match_id in store.matches() if store.match(match_id).meta.split == split)
        return cls(store, ids, view, sum(int(store.valid(match_id).sum()) for match_id in ids))

    def blocks(self, max_rows: int) -> Iterator[Float64]:
        """(n, C) of about equal length, at most `max_rows`; the caller may write into them."""
        num_blocks = -(-self.num_rows // max_rows)
        bounds = np.linspace(0, self.num_rows, num_blocks + 1).astype(int)
        pieces, piece = self._pieces(), np.empty((0, 0), np.float16)
        for size in np.diff(bounds).tolist():
            block, filled = np.empty((size, self.store.settings.dim)), 0
            while filled < size:
                piece = piece if len(piece) else next(pieces)
                taken = piece[: size - filled]
                block[filled : filled + len(taken)] = taken
                filled, piece = filled + len(taken), piece[len(taken) :]
            yield block

    def _pieces(self) -> Iterator[npt.NDArray[Any]]:
        for match_id in self.match_ids:
            rows, valid = self.store.rows(match_id, self.view), self.store.valid(match_id)
            for start in range(0, len(rows), READ_ROWS):
                piece = rows[start : start + READ_ROWS][valid[start : start + READ_ROWS]]
                if len(piece):
                    yield piece


def fit(
    store: FeatureStore, settings: FitSettings, *, view: str, on_rows: Callable[[int], None] = lambda _: None
) -> Reduction:
    """Fit a reduction on full rows of a view. `on_rows` is called with rows done since the last call.

    Raises:
        InputError: no row to fit on, or too few for so many components.
    """
    train = SplitRows.of(store, settings.split, view)
    _require_rows(train, settings)
    mean = components = None
    if settings.dim is not None:
        mean, components = _principal(train, settings.dim, on_rows)
    plain = Reduction(source=store.settings, mean=mean, components=components) if components is not None else None
    scale = offset = None
    if settings.quantize:
        low_d, high_d = np.array(np.inf), np.array(-np.inf)
        for block in _counted(train.blocks(READ_ROWS), on_rows):
            values = block if plain is None else plain.project(block)
            low_d, high_d = np.minimum(low_d, values.min(0)), np.maximum(high_d, values.max(0))
        scale, offset = levels_of(low_d, high_d, settings.margin)
    bare = Reduction(source=store.settings, mean=mean, components=components, scale=scale, offset=offset)
    return Reduction(source=store.settings, **bare.arrays, about=_about(bare, train, settings, on_rows))


def levels_of(low_d: Float64, high_d: Float64, margin: float) -> tuple[FloatArray, FloatArray]:
    """(scale, offset), each (D,): 256 levels from lowest to highest value and a share of the range beyond each end.

    A channel that hardly ever changes, as many of a backbone do on one kind of video, gets steps of at least
    `_LEAST_SHARE` of the median step: other videos may move it. The middle of its range lies on a level.
    """
    scale_d = (high_d - low_d) * (1 + 2 * margin) / (NUM_LEVELS - 1)
    changing = scale_d[scale_d > 0]
    scale_d = scale_d.clip(min=_LEAST_SHARE * float(np.median(changing)) if len(changing) else 1.0)
    return scale_d.astype(np.float32), ((low_d + high_d) / 2 - NUM_LEVELS / 2 * scale_d).astype(np.float32)


def num_rows_read(store: FeatureStore, settings: FitSettings, *, view: str) -> int:
    """Rows that `fit` reads, each pass counted."""
    train, valid = (SplitRows.of(store, split, view).num_rows for split in (settings.split, "valid"))
    return train * (1 + (settings.dim is not None) + settings.quantize) + (valid if settings.split != "valid" else 0)


def kept_of(reduction: Reduction, blocks: Iterable[Float64]) -> tuple[float, float]:
    """What the reduction keeps of rows (n, C), in blocks: the share of their variance, at most 1, where rounding to
    float16 or 8 bits counts as lost; and the share of values that lie outside of the 256 levels."""
    count = clipped = total = 0
    lost, squares, sum_c = 0.0, 0.0, np.zeros(reduction.source.dim)
    for block in blocks:
        reduced = reduction.project(block)
        stored = reduction.store(reduced)
        lost += float(np.square(reduced - reduction.decode(stored)).sum())
        if reduction.mean is not None:
            block -= reduction.mean
            lost += float(np.square(block).sum() - np.square(reduced).sum())
        squares, sum_c = squares + float(np.square(block).sum()), sum_c + block.sum(0)
        count, total = count + len(block), total + reduced.size
        if reduction.levels is not None:
            scale, offset = reduction.levels
            wanted = np.rint((reduced - offset) / scale)
            clipped += int(np.count_nonzero((wanted < 0) | (wanted > NUM_LEVELS - 1)))
    variance = squares - float(np.square(sum_c).sum()) / count
    return 1 - lost / variance if variance > 0 else float(lost <= 0), clipped / total


def _principal(train: SplitRows, dim: int | float, on_rows: Callable[[int], None]) -> tuple[FloatArray, FloatArray]:
    """(C,) mean and (D, C) components."""
    from sklearn.decomposition import IncrementalPCA

    num_channels = train.store.settings.dim
    max_rows = max(READ_ROWS, 4 * num_channels)
    # all components are carried from block to block, so that nothing is lost between them; `dim` decides what is kept
    pca = None
    with np.errstate(divide="ignore", invalid="ignore"):  # shares of no variance at all, refused below
        for block in _counted(train.blocks(max_rows), on_rows):
            pca = pca or IncrementalPCA(n_components=min(num_channels, len(block)))
            pca.partial_fit(block, check_input=False)
    assert pca is not None
    total = pca.var_.sum() * (train.num_rows / (train.num_rows - 1))
    if not total > 0:
        raise InputError(f"{train.store.path}: nothing to reduce", got="training rows that are all the same")
    shares = np.cumsum(pca.explained_variance_) / total
    num_kept = int(dim) if dim >= 1 else min(len(shares), int(np.searchsorted(shares, dim)) + 1)
    components = pca.components_[:num_kept]
    largest = np.take_along_axis(components, np.abs(components).argmax(1)[:, None], 1)  # its sign is made +
    return pca.mean_.astype(np.float32), (components * np.sign(largest)).astype(np.float32)


def _require_rows(train: SplitRows, settings: FitSettings) -> None:
    where, most = train.store.path, min(train.store.settings.dim, train.num_rows - 1)
    if not train.num_rows:
        found = {train.store.match(match_id).meta.split or "no split" for match_id in train.store.matches()}
        raise InputError(
            f"{where}: no row to fit on: no match with a valid row in the split {settings.split!r}",
            got=", ".join(sorted(found)) or "no match",
            wanted=f"matches of the split {settings.split!r}",
            cure="add splits.json to the data set and extract again (rows are kept), name another split with "
            "--fit-split, or take the components of another store with --components",
        )
    if settings.dim is not None and settings.dim > most:
        raise InputError(
            f"{where}: so many components cannot be had",
            got=f"--dim {settings.dim:g}",
            wanted=f"1 to {most}: {train.store.settings.dim} channels, {train.num_rows:,} rows to fit on",
        )


def _about(
    reduction: Reduction, train: SplitRows, settings: FitSettings, on_rows: Callable[[int], None]
) -> dict[str, Any]:
    """What is kept with the arrays."""
    import sklearn

    splits = {settings.split: train}
    if settings.split != "valid":
        splits["valid"] = SplitRows.of(train.store, "valid", train.view)
    kept = {
        split: kept_of(reduction, _counted(rows.blocks(READ_ROWS), on_rows))
        for split, rows in splits.items()
        if rows.num_rows
    }
    return {
        "asked": dict(vars(settings)),
        "matches": list(train.match_ids),
        "rows": train.num_rows,
        "view": train.view,
        "kept_variance": {split: variance for split, (variance, _) in kept.items()},
        "clipped_share": {split: clipped for split, (_, clipped) in kept.items()},
        "software": {"scikit-learn": sklearn.__version__, "numpy": np.__version__},
    }


def _counted(blocks: Iterable[Float64], on_rows: Callable[[int], None]) -> Iterator[Float64]:
    for block in blocks:
        yield block
        on_rows(len(block))


def parse_fit(*, dim: str | None, quantize: str | None, split: Split | None) -> FitSettings | None:
    """What the command line asks of a reduction; None where it asks for nothing.

    Raises:
        InputError: an option cannot be used.
    """
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
    *,
    asked: FitSettings | None = None,
    components: Path | None = None,
    views: Sequence[str] = (),
    progress: Progress = SILENT,
) -> Summary:
    """Reduce every match of a store into another; what is there is left alone, what was cut off goes on.

    Args:
        store_path: a store of full rows.
        out: the reduced store; made where it does not exist. One that exists keeps its components.
        asked: what is to be fitted; None: follow the components that there are.
        components: a reduced store whose components are taken; nothing is fitted then.
        views: views to reduce; empty: all of every match. Identity, else the first, is fitted on.
        progress: counts rows, every pass over them.

    Raises:
        InputError: the store is reduced already, nothing can be fitted, or what is asked for is not what `out` holds.
            A match that fails is in the summary instead.
    """
    started, store = time.perf_counter(), FeatureStore.open(store_path)
    _require_full(store, out)
    work = _views_by_match(store, views)
    known_views = {view for of_match in work.values() for view in of_match}
    fitted_view = "identity" if "identity" in known_views else min(known_views)
    known = _existing_reduction(store, out, components, asked)
    done, total = 0, sum(store.match(match_id).num_rows * len(names) for match_id, names in work.items())
    if known is None:
        if asked is None:
            wanted = "--dim, --quantize, or both"
            raise InputError("no components to follow, and none asked for", wanted=wanted, cure="--dim 64")
        total += num_rows_read(store, asked, view=fitted_view)

    def count(num_rows: int) -> None:
        nonlocal done
        done += num_rows
        progress.advanced("", done, total, "")

    progress.started(len(work), total)
    reduction = known or fit(store, asked, view=fitted_view, on_rows=count)  # type: ignore[arg-type]  # one is there
    target = store.create_like(out, reduction.settings, reduction)
    results = each_match(work, lambda match_id: _reduce(store, target, match_id, work[match_id], count), progress)
    return Summary(
        results=tuple(results),
        target=str(out),
        seconds=time.perf_counter() - started,
        amount=sum(result.num_rows for result in results if result.status in ("reduced", "resumed")),
        record={
            "settings": reduction.settings.to_json(),
            "settings_key": reduction.settings.key(),
            "source_key": reduction.source.key(),
            "reduction": dict(reduction.about),
            "fitted": known is None,
        },
    )


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


def _views_by_match(store: FeatureStore, views: Sequence[str]) -> dict[str, tuple[str, ...]]:
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


def _existing_reduction(
    store: FeatureStore, out: Path, components: Path | None, asked: FitSettings | None
) -> Reduction | None:
    """The reduction that there is, in `out` or where its components are to be taken from; None: to be fitted."""
    if (out / METADATA).exists():
        where, place = out, FeatureStore.open(out)
        other = FeatureStore.open(components) if components else place
        if other.settings != place.settings:
            raise InputError(
                f"{out}: holds rows of other components",
                got=str(components),
                wanted=str(place.settings.reduction)[:40] + "...",
                cure="leave --components out to follow the store, or name another --out",
            )
    elif components is not None:
        where, place = components, FeatureStore.open(components)
    else:
        return None
    reduction = place.reduction
    if reduction is None:
        raise InputError(
            f"{where}: a store of full rows", wanted="one that `bas cache pca` made", cure="name another --out"
        )
    wrong = reduction.source.differing(store.settings)
    refuse_differing(
        wrong,
        f"{where}: its components are for rows of other settings",
        got=vars(store.settings),
        wanted=vars(reduction.source),
        cure="reduce the store into another --out, with components of its own",
    )
    held, wanted = reduction.about.get("asked", {}), vars(asked) if asked else {}
    wrong = [name for name, value in wanted.items() if held.get(name) != value]
    if asked and wrong == ["dim"] and asked.dim == reduction.dim and reduction.components is not None:
        return reduction  # asked for by number now, by share then
    refuse_differing(
        wrong,
        f"{where}: its components were fitted with other options",
        got=wanted,
        wanted=held,
        cure="leave these options out to follow the components, or name another --out",
    )
    return reduction


def _reduce(
    store: FeatureStore, target: FeatureStore, match_id: str, views: tuple[str, ...], count: Callable[[int], None]
) -> MatchResult:
    """Reduce all views of one match that are missing, in blocks."""
    started, reduction = time.perf_counter(), target.reduction
    match, there = store.match(match_id), target.views(match_id)
    assert reduction is not None
    missing = tuple(view for view in views if view not in there)
    count(match.num_rows * (len(views) - len(missing)))
    first_row, restarted = 0, ""
    for view in missing:  # one by one: each array keeps what it was made from
        rows, valid = store.rows(match_id, view), store.valid(match_id)
        with target.writer(
            match_id,
            views=(view,),
            num_rows=match.num_rows,
            pts_ticks=store.pts(match_id),
            match_meta=match.meta,
            provenance={"engine": "reduction", "source": store.source_of(match_id, view)},
        ) as writer:
            first_row, restarted = max(first_row, writer.rows_done), restarted or writer.restarted_because
            count(writer.rows_done)
            # rows_done is a multiple of the rows that are projected at once, so that a resumed store has equal bytes
            for start in range(writer.rows_done, len(valid), WRITE_ROWS):
                flags = valid[start : start + WRITE_ROWS]
                writer.append({view: reduction.encode(rows[start : start + WRITE_ROWS])}, flags)
                count(len(flags))
            writer.commit()
    row_bytes = (each.settings.dim * DTYPES[each.settings.dtype].itemsize for each in (store, target))
    before, after = (len(missing) * match.num_rows * each / 1e6 for each in row_bytes)
    return MatchResult(
        match_id=match_id,
        status="already there" if not missing else "resumed" if first_row else "reduced",
        num_rows=match.num_rows,
        seconds=time.perf_counter() - started,
        message=f"begun anew, unfinished work was not used: {restarted}" if restarted else "",
        columns={
            "split": match.meta.split or "",
            "views": " ".join(missing),
            "MB before": before,
            "MB": after,
        },
    )
