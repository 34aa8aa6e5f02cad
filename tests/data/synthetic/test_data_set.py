"""A data set of synthetic matches: its layout passes the data check, it resumes, and settings are never mixed."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from bas.data.check import check_data_set
from bas.data.synthetic import Settings, write_data_set
from bas.data.synthetic.data_set import plan
from bas.errors import InputError
from bas.events import SOCCERNET_BALL_CLASSES

SMALL = Settings(minutes=0.1, matches=3, seed=5)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three matches of 2 s, drawn by two processes."""
    root = tmp_path_factory.mktemp("whole") / "data"
    told: list[tuple[int, int]] = []
    write_data_set(root, SMALL, jobs=2, on_progress=lambda done, total: told.append((done, total)))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    return root


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_data_check_is_content(whole: Path) -> None:
    report = check_data_set(whole)
    assert report.findings == ()
    assert [match.match.split for match in report.matches] == ["train", "valid", "test"]
    assert all(match.match.id.startswith("synthetic/2026/2026-") for match in report.matches)
    assert [match.video and match.video.num_frames for match in report.matches] == [50, 50, 50]
    assert report.classes == SOCCERNET_BALL_CLASSES


def test_a_match_that_is_missing_is_drawn_again_and_the_others_are_left_alone(whole: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(whole, root)
    lost = root / plan(SMALL)[1].folder
    (lost / "Labels-ball.json").unlink()
    (lost / ".224p.mp4.999999999").write_bytes(b"left by a process that was killed")
    kept = {path: path.stat().st_mtime_ns for path in root.rglob("224p.mp4") if path.parent != lost}
    write_data_set(root, SMALL)
    assert tree(root) == tree(whole)
    assert kept == {path: path.stat().st_mtime_ns for path in kept}


def test_other_settings_and_foreign_folders_are_refused(whole: Path, tmp_path: Path) -> None:
    before = tree(whole)
    for other in (Settings(0.2, 3, 5), Settings(0.1, 3, 6), Settings(0.1, 3, 5, variety=0.5)):
        with pytest.raises(InputError, match="other settings"):
            write_data_set(whole, other)
    assert tree(whole) == before
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        write_data_set(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_match_that_cannot_be_written_is_an_input_error(jobs: int, whole: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    shutil.copy(whole / "synthetic.json", root)
    (root / "train").write_text("a file where a folder is wanted")
    with pytest.raises(InputError, match="could not be drawn"):
        write_data_set(root, SMALL, jobs=jobs)


def test_splits_are_shared_out_as_in_soccernet() -> None:
    for num_matches, wanted in ((3, (1, 1, 1)), (7, (4, 1, 2)), (14, (8, 2, 4)), (400, (229, 57, 114))):
        matches = plan(Settings(60.0 * num_matches, num_matches))
        counts = Counter(match.split for match in matches)
        assert (counts["train"], counts["valid"], counts["test"]) == wanted
        assert len({match.url_local for match in matches}) == len({match.seed for match in matches}) == num_matches
        assert sum(match.seconds for match in matches) == pytest.approx(3600 * num_matches)
        homes = [match.folder.rsplit(" - ", 2)[1:] for match in matches]
        assert all(home != away for home, away in homes)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"minutes": 0}, {"minutes": float("nan")}, {"minutes": 0.01}),
        *({"matches": 2}, {"matches": 10**6}, {"seed": -1}, {"variety": -0.1}),
    ],
)
def test_nonsense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Settings(**{"minutes": 20, "matches": 7, "seed": 0, **wrong})  # type: ignore[arg-type]


def test_the_command(bas: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "data"
    assert bas("data", "synthetic", root, "--minutes", "0.1", "--matches", "3", "--seed", "5", "--jobs", "1") == 0
    assert "3 synthetic matches" in capsys.readouterr().out
    assert bas("data", "check", root) == 0
    capsys.readouterr()
    assert bas("data", "synthetic", root, "--minutes", "0") == 2
    assert "wanted: a number > 0" in capsys.readouterr().err
    assert bas("data", "synthetic", root, "--minutes", "1", "--jobs", "-1") == 2
