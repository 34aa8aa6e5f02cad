"""The synthetic matches: deterministic, in the SoccerNet layout, with the ball where the labels say."""

import itertools
from pathlib import Path

import av
import numpy as np

from bas.events import read_labels
from bas.synthetic import write_match


def test_equal_seeds_give_equal_bytes_and_other_seeds_other_pixels(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_match(tmp_path / name, seconds=2, seed=seed)
    a, b, c = ((tmp_path / name / "224p.mp4").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_layout_length_and_labels(tmp_path: Path) -> None:
    events = write_match(tmp_path / "m", seconds=6, seed=3)
    assert read_labels(tmp_path / "m" / "Labels-ball.json") == events
    assert {event.label for event in events} == {"PASS", "DRIVE"}
    with av.open(tmp_path / "m" / "224p.mp4") as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 150
    assert frames[0].shape == (224, 398, 3)
    moved = [np.abs(a.astype(int) - b).mean() for a, b in itertools.pairwise(frames)]
    assert min(moved) > 0, "a still frame: nothing to spot"
