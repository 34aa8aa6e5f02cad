"""Extract a sample of a store's rows once more from the videos, and compare."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from ..cache.layout import CHUNK_ROWS
from ..cache.store import FeatureStore
from ..cache.verify import Finding, compare_rows
from ..data.sources import DataSet, Match
from ..files import file_sha256
from .extractor import Extractor
from .stream import RowBlock
from .views import VIEWS, View

TOLERANCE = 0.02
"""Largest difference that another engine may make, as a share of a row's length: a cosine of 0.9998."""


def extract_again(
    store_path: Path,
    data_set: DataSet,
    *,
    weights: str | None,
    num_places: int,
    matches: Sequence[str] | None = None,
) -> list[Finding]:
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
    findings: list[Finding] = []
    for match_id in store.matches() if matches is None else matches:
        if match_id not in videos:
            findings.append(Finding("warning", match_id, "", "no video at hand: its rows were not extracted again"))
        else:
            findings += _compare_match(store, videos[match_id], extractor, num_places)
    return findings


def _compare_match(store: FeatureStore, match: Match, extractor: Extractor, num_places: int) -> Iterator[Finding]:
    path, stored = match.require_video(), store.match(match.id)
    wanted_sha256 = stored.meta.video.get("sha256")
    if wanted_sha256 not in (None, file_sha256(path)):
        yield Finding("error", match.id, "", f"{path.name} is not the video that the features were made from (SHA-256)")
        return
    video = extractor.open(path)
    if video.num_steps != stored.num_rows:
        message = f"the video has {video.num_steps} frames, the store {stored.num_rows} rows"
        yield Finding("error", match.id, "", message)
        return
    for view in (view for view in VIEWS if view in store.views(match.id)):
        for place in np.unique(np.linspace(0, max(0, video.num_steps - CHUNK_ROWS), num_places).astype(int)):
            with closing(extractor.rows(video, views=(view,), first_row=int(place))) as blocks:
                for block in blocks:
                    yield from _compare_block(store, match.id, view, block)
                    if block.start + len(block.valid) >= place + CHUNK_ROWS:
                        break


def _compare_block(store: FeatureStore, match_id: str, view: View, block: RowBlock) -> list[Finding]:
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
