"""The key property: a single frame does not tell what a player at the ball does; motion over time does."""

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.metrics import balanced_accuracy_score

from bas.data.synthetic.data_set import make_painter, script_of
from bas.data.synthetic.draw import Painter
from bas.data.synthetic.look import HEIGHT

CLASSES = ("PASS", "DRIVE", "HIGH PASS")
OFFSETS_FRAMES = (-10, -5, 0, 3, 6, 10, 15)
NUM_TRAIN, NUM_TEST = 22, 10
PER_CLASS = 12
"""At most, of one match."""
Floats = npt.NDArray[np.float32]


def windows(painter: Painter, frame: int) -> tuple[Floats, Floats]:
    """Around the ball's place in `frame`: (7, 48, 48) luma at the offsets, and (28, 49) of the whole frame."""
    columns, rows, _ = painter.place(frame, painter.ball(frame)[None])
    left, top = round(float(columns[0])) + 16, round(float(rows[0])) + 8
    images = [painter.draw(frame + offset)[:HEIGHT].astype(np.float32) for offset in OFFSETS_FRAMES]
    padded = [np.pad(image, 40, mode="edge")[top : top + 48, left : left + 48] for image in images]
    return np.stack(padded), images[2][:, :392].reshape(28, 8, 49, 8).mean(axis=(1, 3))


def examples(seeds: range) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Descriptions of the frame of each event alone, and of the frames around it; and the classes."""
    single, motion, classes = [], [], []
    for seed in seeds:
        script = script_of(seed, num_frames=15_000)
        painter, rng = make_painter(script, seed)[0], np.random.default_rng(seed)
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
