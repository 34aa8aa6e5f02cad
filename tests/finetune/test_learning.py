"""It learns: from scratch, in half a minute, what only motion tells."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bas.data.sources import find_sources
from bas.heads.training.checkpoint import RunRecord

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
def test_left_and_right_are_told_apart(
    train: Callable[..., RunRecord], tiny: Any, start: Any, write_match: Any, tmp_path: Path
) -> None:
    """Twice chance: half of all spots would be right by guessing the class alone, fewer by guessing when as well."""
    for seed, (name, num_frames) in enumerate({"train/a": 800, "train/b": 800, "valid/x": 400}.items()):
        write_match(tmp_path / "data" / name, num_frames=num_frames, seed=seed)
    settings = tiny(
        clip_len=16,
        stride=1,
        hop_rows=3,
        dilate=1,
        batch=8,
        frames_per_epoch=16 * 8 * 24,
        epochs=2,
        lr=2e-3,
        warmup_epochs=0.5,
        augment="none",
    )
    begun = start(settings, "x3d_xs", depth=4)
    record = train(tmp_path / "run", settings, begun, data_set=find_sources([tmp_path / "data"]))
    assert record.best is not None
    assert record.history[-1].loss < record.history[0].loss
    assert record.best.headline > 0.8
