"""Windows of a feature store with their targets, as a map-style PyTorch data set for loops of one's own.

`bas train-head` does without: it gathers windows by index from one table, which is several times faster.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..cache.store import FeatureStore
from ..errors import InputError
from ..events import Split
from .targets import Targets
from .training.data import LabelledMatch, Matches, labelled_matches, row_targets, window_index, window_starts
from .training.settings import TargetSettings


class WindowDataset(Dataset[dict[str, Tensor]]):
    """Windows of T steps, `stride` rows apart, of all labelled matches of a split.

    An item holds `features` (T, C) float32, `classes` (T,) int64 with 0 for background, `presence` (T, K) float32 with
    events of different classes on one step side by side, `is_real` (T,) bool, False where a match is shorter than a
    window and its last row is repeated, and `match` and `first_row` (both int64) that say where it lies.

    It pickles, so that workers of a DataLoader may be spawned: each opens the store for itself.
    """

    def __init__(
        self,
        store: FeatureStore | Path | str,
        *,
        split: Split | None = "train",
        clip_len: int = 50,
        stride: int = 2,
        hop_rows: int = 9,
        view: str = "identity",
        classes: Sequence[str] = (),
        targets: TargetSettings | None = None,
    ) -> None:
        """Find the windows; no row is read yet.

        Args:
            store: features with labels and splits, or its path.
            split: only matches of this; None: all.
            clip_len: T, >= 1.
            stride: rows per step, >= 1.
            hop_rows: rows between the starts of neighbouring windows, >= 1; an even one at stride 2 leaves half of the
                rows out.
            view: of the store.
            classes: class names, ids 1.. in this order; empty: the store's own.
            targets: width of the labels; by default neither dilated nor soft.

        Raises:
            InputError: no match of that split, or one without labels.
        """
        self.store = store if isinstance(store, FeatureStore) else FeatureStore.open(Path(store))
        self.classes = tuple(classes) or self.store.classes
        ids = [each for each in self.store.matches() if split in (None, self.store.match(each).meta.split)]
        if not ids or min(clip_len, stride, hop_rows) < 1:
            got = f"{len(ids)} matches of split {split}, clip_len {clip_len}, stride {stride}, hop_rows {hop_rows}"
            raise InputError(f"{self.store.path}: no windows", got=got, wanted="at least 1 of each")
        self.matches: list[LabelledMatch] = labelled_matches(Matches.of_store(self.store), ids, self.classes)
        self.clip_len, self.stride, self.view = clip_len, stride, view
        self._targets = targets or TargetSettings()
        starts = [
            window_starts(match.num_rows, clip_len=clip_len, stride=stride, hop_rows=hop_rows) for match in self.matches
        ]
        self._match_w = np.repeat(np.arange(len(starts)), [len(each) for each in starts])
        self._start_w = np.concatenate(starts)
        self._kept: dict[int, Targets] = {}

    def __len__(self) -> int:
        return len(self._start_w)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One window; see the class."""
        number, start = int(self._match_w[index]), int(self._start_w[index])
        match = self.matches[number]
        rows_1t, is_real_1t = window_index(
            np.array([start]), np.array([match.num_rows - 1]), clip_len=self.clip_len, stride=self.stride
        )
        rows_t = rows_1t[0]
        stored = self.store.rows(match.id, self.view)[start : int(rows_t[-1]) + 1]
        reduction = self.store.reduction
        features = np.asarray(stored, np.float32) if reduction is None else reduction.decode(np.asarray(stored))
        targets = self._targets_of(number).select(rows_t)
        return {
            "features": torch.from_numpy(features)[rows_t - start],
            "classes": targets.class_bt,
            "presence": targets.presence_btk,
            "is_real": is_real_1t[0],
            "match": torch.tensor(number),
            "first_row": torch.tensor(start),
        }

    def _targets_of(self, number: int) -> Targets:
        """Targets of all rows of a match; kept, as each of its windows needs them."""
        if number not in self._kept:
            match, num_classes = self.matches[number], len(self.classes)
            self._kept[number], _ = row_targets(
                match, stride=self.stride, num_classes=num_classes, settings=self._targets, class_counts=()
            )
        return self._kept[number]

    def __getstate__(self) -> dict[str, object]:
        """Without the store's mapped files and the kept targets."""
        return {**self.__dict__, "store": self.store.path, "_kept": {}}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self.store = FeatureStore.open(str(state["store"]))
