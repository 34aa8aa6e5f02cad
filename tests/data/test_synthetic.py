"""Synthetic football: play as in real matches, pictures that fit the labels, and data sets that resume."""

import itertools
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.metrics import balanced_accuracy_score

from bas.data.check import check_data_set
from bas.data.synthetic import SyntheticSettings, write_data_set, write_match
from bas.data.synthetic.data_set import plan, script_of
from bas.data.synthetic.draw import Painter, _smear
from bas.data.synthetic.look import HEIGHT, WIDTH, draw_look, follow, make_camera
from bas.data.synthetic.script import GOAL_HALF_WIDTH, GOAL_HEIGHT, HALF_LENGTH, HALF_WIDTH, NUM_PLAYERS, Script
from bas.data.synthetic.tracks import POSES, Tracks, ball_path, late, make_tracks, smooth
from bas.errors import InputError
from bas.events import SOCCERNET_BALL_CLASSES, read_labels

HALF_HOUR = 45_000
REAL = {
    **{"PASS": 4985, "DRIVE": 4300, "HEADER": 713, "HIGH PASS": 761, "OUT": 551, "CROSS": 261, "THROW IN": 362},
    **{"SHOT": 169, "BALL PLAYER BLOCK": 223, "PLAYER SUCCESSFUL TACKLE": 74, "FREE KICK": 21, "GOAL": 13},
}
"""Events of the seven SoccerNet matches."""


@pytest.fixture(scope="module")
def ten_hours() -> list[Script]:
    return [script_of(seed, num_frames=HALF_HOUR) for seed in range(20)]


def test_classes_are_as_frequent_as_in_real_matches(ten_hours: list[Script]) -> None:
    counts = Counter(event.label for script in ten_hours for event in script.events)
    assert set(counts) == set(SOCCERNET_BALL_CLASSES)
    share = {label: counts[label] / counts.total() * sum(REAL.values()) / REAL[label] for label in REAL}
    assert all(0.95 < share[label] < 1.05 for label in ("PASS", "DRIVE")), share
    assert all(0.8 < share[label] < 1.25 for label in REAL if REAL[label] > 150), share
    assert all(0.4 < share[label] < 2 for label in REAL), share  # about 10 FREE KICKs and GOALs: chance
    assert 17.2 < counts.total() / 600 < 19.2  # a minute; 18.2 in real matches


def test_gaps_between_events_are_those_of_real_matches(ten_hours: list[Script]) -> None:
    gaps, same = [], 0
    for script in ten_hours:
        for first, second in itertools.pairwise(script.events):
            gaps.append((second.position_ms - first.position_ms) / 1000)
            same += first.label == second.label and gaps[-1] <= 0.48
    assert abs(np.median(gaps) - 1.56) < 0.12
    assert abs(np.mean(np.array(gaps) <= 1) - 0.23) < 0.03
    assert same / len(gaps) < 0.008  # 0.4 % in real matches
    assert min(gaps) > 0


def test_labels_are_ordered_frames_inside_the_match(ten_hours: list[Script]) -> None:
    for script in ten_hours[:4]:
        positions = [event.position_ms for event in script.events]
        assert positions == sorted(set(positions))
        assert all(position % 40 == 0 and 0 <= position < HALF_HOUR * 40 for position in positions)
        assert {event.team for event in script.events} == {"left", "right"}


def test_play_follows_the_laws_of_the_game(ten_hours: list[Script]) -> None:
    after = Counter(
        (first.label, second.label) for script in ten_hours for first, second in itertools.pairwise(script.events)
    )
    assert {second for first, second in after if first == "OUT"} <= {"THROW IN", "HIGH PASS", "PASS", "CROSS"}
    assert {first for first, second in after if second == "THROW IN"} == {"OUT"}
    assert {second for first, second in after if first == "GOAL"} == {"PASS"}  # from the centre spot
    assert {first for first, second in after if second == "GOAL"} <= {"SHOT", "FREE KICK"}
    assert {first for first, second in after if second == "PLAYER SUCCESSFUL TACKLE"} == {"DRIVE"}


def test_the_ball_is_where_the_label_says(ten_hours: list[Script]) -> None:
    seen: Counter[str] = Counter()
    for script in ten_hours:
        ball = ball_path(script)
        for event in script.events:
            x, y, z = (float(each) for each in np.abs(ball[event.position_ms // 40]))
            seen[event.label] += 1
            on_a_line = abs(x - HALF_LENGTH) < 1e-3 or abs(y - HALF_WIDTH) < 1e-3
            if event.label == "OUT":
                assert on_a_line
                assert x < HALF_LENGTH - 1e-3 or y > GOAL_HALF_WIDTH or z > GOAL_HEIGHT, "that is a goal"
            elif event.label == "GOAL":
                assert (abs(x - HALF_LENGTH) < 1e-3, y < GOAL_HALF_WIDTH, z < GOAL_HEIGHT) == (True, True, True)
            elif event.label == "THROW IN":
                assert y > HALF_WIDTH
            elif event.label == "HEADER":
                assert 1.7 < z < 2.5
            else:
                assert (x <= HALF_LENGTH, y <= HALF_WIDTH, z < 1.3) == (True, True, True)
    assert set(seen) == set(SOCCERNET_BALL_CLASSES)


def test_the_ball_never_jumps_and_a_free_kick_starts_from_rest(ten_hours: list[Script]) -> None:
    for script in ten_hours:
        for first, second in itertools.pairwise(script.flights):
            assert (first.stop, first.to) == (second.start, second.origin)
        ball = ball_path(script)
        assert np.linalg.norm(np.diff(ball, axis=0), axis=1).max() * 25 < 40  # m/s
        assert ball[:, 2].min() > -1e-3
        for event in script.events:
            frame = event.position_ms // 40
            if event.label == "FREE KICK":
                assert np.ptp(ball[frame - 20 : frame + 1], axis=0).max() < 1e-3
                assert np.linalg.norm(ball[frame + 5] - ball[frame]) > 1


def test_equal_seeds_play_alike_and_most_short_matches_have_a_pass_and_a_drive() -> None:
    assert script_of(3, num_frames=500) == script_of(3, num_frames=500)
    assert script_of(3, num_frames=500) != script_of(4, num_frames=500)
    short = [{event.label for event in script_of(seed, num_frames=200).events} for seed in range(40)]
    assert np.mean([{"PASS", "DRIVE"} <= labels for labels in short]) > 0.8
    assert all("PASS" in labels for labels in short), "a match begins with the kick-off"


TRACK_FRAMES = 30_000


@pytest.fixture(scope="module")
def script() -> Script:
    return script_of(7, num_frames=TRACK_FRAMES)


@pytest.fixture(scope="module")
def tracks(script: Script) -> Tracks:
    return make_tracks(script, np.random.default_rng(0))


def test_people_move_like_people(tracks: Tracks) -> None:
    speed = np.hypot(tracks.velocity[..., 0], tracks.velocity[..., 1])
    assert 1 < np.median(speed) < 3
    assert np.quantile(speed, 0.99) < 9.5
    assert np.quantile(speed, 0.999) < 14
    assert speed.max() < 30
    x, y = np.abs(tracks.players[..., 0]), np.abs(tracks.players[..., 1])
    assert (x.max() < 62, y.max() < 42) == (True, True)


def test_whoever_acts_is_at_the_ball_in_the_right_pose(script: Script, tracks: Tracks) -> None:
    poses = {"PASS": "kick", "HIGH PASS": "kick", "CROSS": "kick", "SHOT": "kick", "FREE KICK": "kick"}
    poses |= {"DRIVE": "push", "HEADER": "head", "THROW IN": "throw"}
    right = []
    for event in script.events:
        frame = event.position_ms // 40
        if event.label not in poses or not 10 < frame < TRACK_FRAMES - 10:
            continue
        side = 0 if event.team == "left" else 1
        team = slice(side * NUM_PLAYERS, (side + 1) * NUM_PLAYERS)
        distance = np.hypot(*(tracks.players[frame, team] - tracks.ball[frame, :2]).T)
        actor = side * NUM_PLAYERS + int(distance.argmin())
        is_posed = POSES[tracks.pose[frame, actor]] == poses[event.label] and tracks.moment[frame, actor] == 0
        right.append(bool(distance.min() < 1.5 and is_posed))
    assert len(right) > 200
    assert np.mean(right) > 0.97


def test_legs_move_as_far_as_the_player(tracks: Tracks) -> None:
    ways = np.linalg.norm(np.diff(tracks.players, axis=0), axis=2).sum(axis=0)
    assert np.allclose(tracks.stride[-1], ways, rtol=0.02)


def test_smoothing_keeps_a_constant_and_a_line_and_late_shifts() -> None:
    line = np.arange(50.0)
    assert np.allclose(smooth(np.full(30, 4.0), 9), 4)
    assert np.allclose(smooth(line, 9)[4:-4], line[4:-4])
    assert np.array_equal(late(line, 3), np.concatenate([[0, 0, 0], line[:-3]]))


SEEDS = (1, 2)
NUM_FRAMES = 1500


@pytest.fixture(scope="module")
def painters() -> dict[int, Painter]:
    return {seed: Painter(script_of(seed, num_frames=NUM_FRAMES), seed) for seed in SEEDS}


def luma(painter: Painter, frame: int) -> npt.NDArray[np.uint8]:
    return painter.draw(frame)[:HEIGHT].copy()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_ball_is_to_be_seen_where_the_labels_say(seed: int, painters: dict[int, Painter]) -> None:
    painter, script = painters[seed], script_of(seed, num_frames=NUM_FRAMES)
    seen = []
    for event in script.events:
        frame = event.position_ms // 40
        (column,), (row,), _ = painter.place(frame, painter.tracks.ball[[frame]].astype(float))
        image, u, v = luma(painter, frame).astype(int), round(float(column)), round(float(row))
        assert (4 < u < WIDTH - 4, 4 < v < HEIGHT - 4) == (True, True), "out of the picture"
        around = image[v - 9 : v + 10, u - 9 : u + 10]
        seen.append(image[v - 4 : v + 2, u - 2 : u + 3].max() > np.median(around) + 40)
    assert len(seen) > 8
    assert np.mean(seen) > 0.9


def test_a_frame_is_the_same_whatever_was_drawn_before(painters: dict[int, Painter]) -> None:
    direct = luma(painters[1], 300)
    for frame in range(250, 300):
        painters[1].draw(frame)
    assert np.array_equal(luma(painters[1], 300), direct)
    assert not np.array_equal(luma(painters[1], 301), direct)


def test_the_camera_follows_the_ball_and_keeps_inside_the_stadium() -> None:
    for seed in range(4):
        script = script_of(seed, num_frames=20_000)
        look, rng = draw_look(np.random.default_rng(seed)), np.random.default_rng(seed)
        tracks, camera = make_tracks(script, rng), make_camera(look)
        views = follow(camera, look, ball=tracks.ball, rng=rng)
        assert views.left.min() >= 0
        assert views.top.min() >= 0
        assert (views.left + views.zoom * WIDTH + 1).max() < camera.columns
        assert (views.top + views.zoom * HEIGHT + 1).max() < camera.rows
        column, row, _ = camera.pixels(tracks.ball.astype(float))
        assert np.corrcoef(column, views.left)[0, 1] > 0.95
        x, y = (column - views.left) / views.zoom, (row - views.top) / views.zoom
        frames = [event.position_ms // 40 for event in script.events]
        inside = (x > 0) & (x < WIDTH) & (y > 0) & (y < HEIGHT)
        assert inside.mean() > 0.95  # high balls leave it for a moment
        assert inside[frames].mean() > 0.99
        assert np.abs(np.diff(views.left)).max() < 40
        assert np.abs(np.diff(views.zoom)).max() < 0.01


def test_a_higher_ball_is_higher_in_the_picture_than_its_shadow(painters: dict[int, Painter]) -> None:
    points = np.array([[3.0, 5.0, 0.0], [3.0, 5.0, 4.0]])
    (u0, u1), (v0, v1), _ = painters[2].place(700, points)
    assert abs(u0 - u1) < 1e-6
    assert 20 < v0 - v1 < 80


def test_far_players_are_smaller(painters: dict[int, Painter]) -> None:
    _, (far, near), (far_scale, near_scale) = painters[2].place(0, np.array([[0.0, 30.0, 0.0], [0.0, -30.0, 0.0]]))
    assert far < near
    assert 1.3 < near_scale / far_scale < 2.5


def test_every_match_looks_different_unless_variety_is_none() -> None:
    means = []
    for seed in range(3):
        painter = Painter(script_of(seed, num_frames=10), seed)
        image = painter.draw(0)
        means.append([image[HEIGHT // 2 : HEIGHT].mean(), image[HEIGHT:].reshape(2, -1).mean(), image[:30].std()])
    assert min(np.abs(np.subtract(a, b)).max() for a, b in itertools.combinations(means, 2)) > 2
    same = [draw_look(np.random.default_rng(seed), variety=0) for seed in range(3)]
    assert same[0].grass == same[1].grass == same[2].grass


@pytest.mark.parametrize("pixels", [0.3, 1.0, 4.6])
def test_a_turning_camera_smears_along_the_rows_and_changes_no_brightness(pixels: float) -> None:
    image = np.full((1, 4, 60), 100, np.uint8)
    image[0, 1, 30] = 220
    _smear(image, pixels)
    assert np.array_equal(image[0, 2], np.full(60, 100))
    spread = image[0, 1].astype(int) - 100
    assert abs(spread.sum() - 120) <= 6
    assert abs(spread @ np.arange(60) / spread.sum() - 30) <= 0.5
    assert np.count_nonzero(spread) == int(np.ceil(pixels)) + 1


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
def test_a_match_that_makes_no_sense_is_refused(wrong: dict[str, float], tmp_path: Path) -> None:
    with pytest.raises(InputError):
        write_match(tmp_path / "m", **{"seconds": 1, "seed": 0, **wrong})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


SMALL = SyntheticSettings(minutes=0.1, matches=3, seed=5)


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
    assert tree(root) == tree(whole)  # equal seeds give equal bytes, in any process, and other seeds other ones
    assert len({path.read_bytes() for path in root.rglob("224p.mp4")}) == 3
    assert kept == {path: path.stat().st_mtime_ns for path in kept}


def test_other_settings_and_foreign_folders_are_refused(whole: Path, tmp_path: Path) -> None:
    before = tree(whole)
    for changes in ({"minutes": 0.2}, {"seed": 6}, {"variety": 0.5}):
        with pytest.raises(InputError, match="other settings"):
            write_data_set(whole, replace(SMALL, **changes))
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
        matches = plan(SyntheticSettings(60.0 * num_matches, num_matches))
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
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        SyntheticSettings(**{"minutes": 20, "matches": 7, "seed": 0, **wrong})  # type: ignore[arg-type]


def test_the_command(bas: Callable[..., int], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its options are the settings that the folder was made with: all is there."""
    root = tmp_path / "data"
    shutil.copytree(whole, root)
    assert bas("data", "synthetic", root, "--minutes", "0.1", "--matches", "3", "--seed", "5", "--jobs", "1") == 0
    assert "3 synthetic matches" in capsys.readouterr().out
    assert bas("data", "synthetic", root, "--minutes", "0.1", "--matches", "3", "--seed", "6", "--jobs", "1") == 2
    assert "other settings" in capsys.readouterr().err
    assert bas("data", "check", root) == 0
    capsys.readouterr()
    assert bas("data", "synthetic", root, "--minutes", "0") == 2
    assert "wanted: a number > 0" in capsys.readouterr().err
    assert bas("data", "synthetic", root, "--minutes", "1", "--jobs", "-1") == 2


CLASSES = ("PASS", "DRIVE", "HIGH PASS")
OFFSETS_FRAMES = (-10, -5, 0, 3, 6, 10, 15)
NUM_TRAIN, NUM_TEST = 22, 10
PER_CLASS = 12
"""At most, of one match."""
Floats = npt.NDArray[np.float32]


def windows(painter: Painter, frame: int) -> tuple[Floats, Floats]:
    """Around the ball's place in `frame`: (7, 48, 48) luma at the offsets, and (28, 49) of the whole frame."""
    columns, rows, _ = painter.place(frame, painter.tracks.ball[[frame]].astype(float))
    left, top = round(float(columns[0])) + 16, round(float(rows[0])) + 8
    images = [painter.draw(frame + offset)[:HEIGHT].astype(np.float32) for offset in OFFSETS_FRAMES]
    padded = [np.pad(image, 40, mode="edge")[top : top + 48, left : left + 48] for image in images]
    return np.stack(padded), images[2][:, :392].reshape(28, 8, 49, 8).mean(axis=(1, 3))


def examples(seeds: range) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Descriptions of the frame of each event alone, and of the frames around it; and the classes."""
    single, motion, classes = [], [], []
    for seed in seeds:
        script = script_of(seed, num_frames=15_000)
        painter, rng = Painter(script, seed), np.random.default_rng(seed)
        for index, label in enumerate(CLASSES):
            frames = [event.position_ms // 40 for event in script.events if event.label == label]
            frames = [frame for frame in frames if 10 <= frame < script.num_frames - 15]
            for frame in rng.permutation(frames)[:PER_CLASS]:
                around, whole = windows(painter, int(frame))
                bright = np.maximum(around - 190, 0)
                small = np.stack([around, bright]).reshape(2, len(OFFSETS_FRAMES), 8, 6, 8, 6).mean(axis=(3, 5))
                single.append(np.concatenate([small[:, 2].ravel(), whole.ravel()]))
                motion.append(small[1].ravel())
                classes.append(index)
    return np.stack(single), np.stack(motion), np.array(classes)


@pytest.mark.slow
def test_motion_tells_apart_what_a_single_frame_does_not() -> None:
    train, test = examples(range(100, 100 + NUM_TRAIN)), examples(range(200, 200 + NUM_TEST))
    scores = []
    for kind in (0, 1):
        trees = ExtraTreesClassifier(300, random_state=0, class_weight="balanced", min_samples_leaf=3, n_jobs=1)
        trees.fit(train[kind], train[2])
        scores.append(float(balanced_accuracy_score(test[2], trees.predict(test[kind]))))
    single, motion = scores
    assert single < 0.5, f"a single frame tells them apart: {single:.3f}, chance is 0.333"
    assert motion > 0.72, f"motion does not: {motion:.3f}"
