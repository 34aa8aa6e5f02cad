"""Rows of one match in memory: from a store or straight from its video, and a sample of both compared.

Legend: R rows of the match, C channels.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..cache.bank import FeatureBank, bank_of_rows, fits_in_memory, open_bank
from ..cache.layout import CHUNK_ROWS, DTYPES, ShardLayout
from ..cache.reduction import Reduction, RowEncoder
from ..cache.settings import FeatureSettings
from ..cache.store import FeatureStore
from ..cache.verify import StoreFinding, compare_rows
from ..cache.writer import cast_rows
from ..data.games import StoredPart, VideoPart
from ..data.sources import DataSet, Match
from ..errors import InputError
from ..files import file_sha256
from .extractor import Extractor
from .options import VIEWS, View, known_view
from .stream import RowBlock, Waits
from .video.demux import file_stamp, require_unchanged
from .video.reader import Video
from .video.timetable import require_few_bad

RowsCallback = Callable[[str, float, float, str], None]
"""See `workers.Progress.advanced`."""
TOLERANCE = 0.02
"""Largest difference that another engine may make, as a share of a row's length: a cosine of 0.9998."""


def extract_again(
    store_path: Path,
    data_set: DataSet,
    *,
    weights: str | None,
    num_places: int,
    matches: Sequence[str] | None = None,
) -> list[StoreFinding]:
    """Compare stored rows with rows made anew, at places spread over each match.

    Args:
        store_path: the store.
        data_set: the videos; a match of the store without its video gives a warning.
        weights: the weights file, where the store was made with one.
        num_places: places per match and view, >= 1; at each, up to 256 rows are made again.
        matches: ids; all by default.

    Raises:
        InputError: the backbone cannot be built with the weights that the store names.
    """
    store = FeatureStore.open(store_path)
    full = store.reduction.source if store.reduction else store.settings
    extractor = Extractor.like(full, weights=weights)
    videos = {match.id: match for match in data_set.matches}
    findings: list[StoreFinding] = []
    for match_id in store.matches() if matches is None else matches:
        if match_id not in videos:
            findings.append(
                StoreFinding("warning", match_id, "", "no video at hand: its rows were not extracted again")
            )
        else:
            findings += _compare_match(store, videos[match_id], extractor, num_places)
    return findings


def _compare_match(store: FeatureStore, match: Match, extractor: Extractor, num_places: int) -> Iterator[StoreFinding]:
    path, stored = match.require_video(), store.match(match.id)
    wanted_sha256 = stored.meta.video.get("sha256")
    if wanted_sha256 not in (None, file_sha256(path)):
        yield StoreFinding(
            "error", match.id, "", f"{path.name} is not the video that the features were made from (SHA-256)"
        )
        return
    video = extractor.open(path)
    if video.num_steps != stored.num_rows:
        message = f"the video has {video.num_steps} frames, the store {stored.num_rows} rows"
        yield StoreFinding("error", match.id, "", message)
        return
    for view in (view for view in VIEWS if view in store.views(match.id)):
        for place in np.unique(np.linspace(0, max(0, video.num_steps - CHUNK_ROWS), num_places).astype(int)):
            with closing(extractor.rows(video, views=(view,), first_row=int(place))) as blocks:
                for block in blocks:
                    yield from _compare_block(store, match.id, view, block)
                    if block.start + len(block.valid) >= place + CHUNK_ROWS:
                        break


def _compare_block(store: FeatureStore, match_id: str, view: View, block: RowBlock) -> list[StoreFinding]:
    """Rows made again against those of the store, both as heads see them.

    A projection makes no difference longer, but it does make rows shorter: what is allowed is a share of the full row's
    length. A value between two levels may fall to either.
    """
    made, reduction = block.rows[view], store.reduction
    kept = store.rows(match_id, view)[block.start : block.start + len(made)]
    lengths = np.linalg.norm(np.asarray(made, np.float64), axis=1)
    if reduction is not None:
        made, kept = reduction.decode(reduction.encode(made)), reduction.decode(kept)
    if reduction is not None and reduction.scale is not None:
        lengths = lengths + np.linalg.norm(reduction.scale) / TOLERANCE
    return compare_rows(
        kept, made, first_row=block.start, match=match_id, view=view, tolerance=TOLERANCE, lengths=lengths
    )


_BLOCK_ROWS = 8192


@dataclass(frozen=True)
class MatchRows:
    """Rows of one view of a match."""

    bank: FeatureBank
    fps: Fraction
    """Rows per second."""
    about: Mapping[str, Any]
    """Plain JSON: where they are from."""


def stored_rows(part: StoredPart, *, view: str, device: torch.device, reduction: Reduction | None = None) -> MatchRows:
    """Rows from a store, brought to the device or to memory where they fit.

    With a `reduction`, full rows are reduced; reduced ones are as they are.

    Raises:
        InputError: the match lacks the view, or is damaged.
    """
    match = part.store.match(part.id)
    if reduction is None or part.store.settings.reduction is not None:
        bank = open_bank(part.store, [part.id], views=(view,), device=device)
    else:
        rows, rows_rc = part.store.rows(part.id, view), _room(match.num_rows, reduction.settings, part.id)
        encoder = RowEncoder(reduction, rows_rc)
        for start in range(0, len(rows), _BLOCK_ROWS):
            encoder.add(rows[start : start + _BLOCK_ROWS])
        bank = bank_of_rows(rows_rc, match_id=part.id, device=device, levels=reduction.levels)
    about = {
        "invalid_rows": int(np.count_nonzero(~part.store.valid(part.id))),
        "store": part.store.path.name,
        "video": {name: match.meta.video.get(name) for name in ("name", "sha256")},
    }
    return MatchRows(bank, match.meta.fps, about)


def streamed_rows(
    part: VideoPart,
    extractor: Extractor,
    *,
    view: str,
    device: torch.device,
    max_bad_share: float,
    reduction: Reduction | None = None,
    opened: Callable[[Video], None] = lambda _: None,
    on_progress: RowsCallback = lambda *_: None,
) -> MatchRows:
    """Rows of a video in one pass, as a store would hold them; the rows stay in memory, the pictures pass through.

    Args:
        part, extractor, view, reduction, on_progress: as in `collect_rows`.
        device: where the rows are wanted.
        max_bad_share: share of frames, 0 to 1, that may be missing or damaged.
        opened: called before the first row is made; may raise.

    Raises:
        InputError: the video cannot be read, changes meanwhile, is too damaged, or its rows do not fit into memory.
    """
    path = part.match.require_video()
    stamp = file_stamp(path)
    video = extractor.open(path)
    video.require_few_missing(path, max_bad_share=max_bad_share)
    opened(video)
    rows_rc, num_invalid = collect_rows(
        video, extractor, view=view, match_id=part.id, reduction=reduction, on_progress=on_progress
    )
    num_bad = num_invalid - video.num_steps_before_start  # a late start is no damage
    require_few_bad(num_bad, len(rows_rc), max_bad_share=max_bad_share, what=str(path))
    about = {
        "invalid_rows": num_invalid,
        "video": {"name": path.name, "sha256": file_sha256(path)},
        "engine": extractor.engine(video.picture_size).describe(),
    }
    require_unchanged(path, stamp)
    levels = reduction.levels if reduction else None
    return MatchRows(bank_of_rows(rows_rc, match_id=part.id, device=device, levels=levels), video.grid.fps, about)


def collect_rows(
    video: Video,
    extractor: Extractor,
    *,
    view: str,
    match_id: str,
    reduction: Reduction | None = None,
    on_progress: RowsCallback = lambda *_: None,
) -> tuple[np.typing.NDArray[Any], int]:
    """Rows of a video that `extractor.open` gave, as a store would hold them.

    Args:
        match_id: for errors and progress.
        reduction: of the rows that are wanted; None: full rows.
        on_progress: called after every block of rows.

    Returns:
        (R, C) float16, or uint8 where they are reduced to it; and the number of rows whose own frame could not be
        decoded.

    Raises:
        InputError: the rows do not fit into memory, or hold no numbers.
    """
    rows_rc = _room(video.num_steps, reduction.settings if reduction else extractor.settings, match_id)
    encoder = RowEncoder(reduction, rows_rc) if reduction else None
    num_rows, num_valid, waits = len(rows_rc), 0, Waits()
    with closing(extractor.rows(video, views=(known_view(view),), waits=waits)) as blocks:  # its threads end here
        for block in blocks:
            stop, shape = block.start + len(block.valid), (len(block.valid), extractor.settings.dim)
            full = cast_rows(
                block.rows[view], shape, DTYPES["float16"], where=f"match {match_id!r}", first_row=block.start
            )
            if encoder is None:
                rows_rc[block.start : stop] = full
            else:
                encoder.add(full)
            num_valid += int(block.valid.sum())
            on_progress(match_id, stop, num_rows, f"{waits.bottleneck} is the limit")
    return rows_rc, num_rows - num_valid


def _room(num_rows: int, settings: FeatureSettings, match_id: str) -> np.typing.NDArray[Any]:
    """(R, C), not filled."""
    room = ShardLayout(num_rows, settings.dim, DTYPES[settings.dtype])
    if not fits_in_memory(room.data_bytes):
        raise InputError(
            f"{match_id}: its rows do not fit into memory",
            got=f"{num_rows:,} rows of {settings.dim}: {room.data_bytes / 1e9:.1f} GB",
            cure="--store KEEP.zarr puts them on the disk",
        )
    return np.empty((num_rows, settings.dim), room.dtype)
