"""From a feature store to scores in Python: python docs/example.py STORE OUT."""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import bas
from bas.heads.contract import Neck


# A neck of one's own: a frozen dataclass whose `build` returns a module (B, T, C) -> (B, T, D).
class MovingAverage(Neck):
    """Mean over a few steps around each, then a linear layer."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.dim = dim
        self.pool = nn.AvgPool1d(width, stride=1, padding=width // 2, count_include_pad=False)
        self.linear = nn.Linear(dim, dim)

    def forward(self, features_btc: Tensor) -> Tensor:
        averaged_btc = self.pool(features_btc.transpose(1, 2)).transpose(1, 2)
        return self.linear(averaged_btc).relu()  # type: ignore[no-any-return]


@dataclass(frozen=True)
class MovingAverageSettings:
    """Settings of `MovingAverage`."""

    width: int = 5
    """Steps that are averaged; odd."""

    def build(self, dim: int) -> Neck:
        """The module for `dim` channels."""
        return MovingAverage(dim, self.width)


bas.HEADS["moving_average"] = MovingAverageSettings


def main(path: str, out: Path) -> None:
    # A store: rows are views of the mapped file; labels and splits come with them.
    store = bas.open_store(path)
    for match_id in store.matches():
        match = store.match(match_id)
        print(match_id, match.meta.split, store.rows(match_id).shape, len(match.meta.events() or ()), "events")

    # Windows with targets, for a loop of one's own. Workers may be spawned.
    windows = bas.WindowDataset(store, split="train", clip_len=50, stride=2, hop_rows=9)
    loader = DataLoader(windows, batch_size=4, shuffle=True, num_workers=1, multiprocessing_context="spawn")
    batch = next(iter(loader))
    print("a batch:", tuple(batch["features"].shape), "events in it:", int((batch["classes"] > 0).sum()))

    # A run, with the head above; the same command goes on where it was killed.
    settings = bas.TrainSettings(head="moving_average", epochs=2, clip_len=50, frames_per_epoch=4000)
    record = bas.train(store, out / "run", settings)
    print("kept epoch", record.best_epoch, "of", len(record.history))

    # Spots on matches that it has not seen, and their scores.
    bas.predict(store.path, out / "run", out / "predictions", bas.PredictOptions(splits=("test",)))
    report = bas.evaluate(store.path, out / "predictions", splits=["test"])
    for name, score in report.means.items():
        print(f"{name} {100 * score.value:.1f} % ({100 * score.low:.1f} to {100 * score.high:.1f})")


if __name__ == "__main__":
    torch.manual_seed(0)
    main(sys.argv[1], Path(sys.argv[2]))
