"""One match on the disk: equal seeds give equal bytes, in SoccerNet's layout."""

import itertools
import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from bas.data.synthetic import write_match
from bas.errors import InputError
from bas.events import read_labels


def test_equal_seeds_give_equal_bytes_and_other_seeds_other_ones(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_match(tmp_path / name, seconds=2, seed=seed)
    a, b, c = ((tmp_path / name / "224p.mp4").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_layout_length_and_labels(tmp_path: Path) -> None:
    events = write_match(tmp_path / "m", seconds=6, seed=3)
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["224p.mp4", "Labels-ball.json"]
    assert read_labels(tmp_path / "m" / "Labels-ball.json") == events
    assert json.loads((tmp_path / "m" / "Labels-ball.json").read_text())["UrlLocal"] == "m"
    assert {"PASS", "DRIVE"} <= {event.label for event in events}
    with av.open(tmp_path / "m" / "224p.mp4") as container:
        assert container.streams.video[0].average_rate == Fraction(25)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 150
    assert frames[0].shape == (224, 398, 3)
    moved = [np.abs(a.astype(int) - b).mean() for a, b in itertools.pairwise(frames)]
    assert min(moved) > 0, "a still frame: nothing to spot"


def test_a_match_that_stops_half_way_leaves_no_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> av.VideoFrame:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(av.VideoFrame, "from_ndarray", broken)
    with pytest.raises(OSError, match="No space"):
        write_match(tmp_path / "m", seconds=1, seed=0)
    assert list((tmp_path / "m").iterdir()) == []


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"seconds": float("nan")}, {"seed": -1}, {"variety": 1.5}])
def test_nonsense_is_refused(wrong: dict[str, float], tmp_path: Path) -> None:
    with pytest.raises(InputError):
        write_match(tmp_path / "m", **{"seconds": 1, "seed": 0, **wrong})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
