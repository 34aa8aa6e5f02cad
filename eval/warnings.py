"""Warnings about input that is evaluated correctly, and means something else than its owner may think."""

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from .files import OFFICIAL_HALF_SECONDS, LoadedGames, PairedFiles
from .metric import NUM_THRESHOLDS, threshold_bins
from .spots import Game

MIN_THRESHOLDS_REACHED = 50
"""Fewer distinct thresholds than this cost a real model more than 0.3 points (154: 0, 32: 0.7, 9: 3, 2: 19)."""
_LOW_FPS = 5
_NUM_SHOWN = 3


def file_warnings(paired: PairedFiles, loaded: LoadedGames, classes: Sequence[str]) -> list[str]:
    """Files that are missing, and labels that are not in the class list."""
    warnings = []
    if paired.unpredicted:
        warnings.append(
            f"NO PREDICTIONS for {len(paired.unpredicted)} of {len(paired.files)} game(s), counted as empty: "
            + _some(paired.unpredicted)
        )
    if paired.unlabelled:
        warnings.append(f"predictions without labels, left out: {_some(paired.unlabelled)}")
    if loaded.one_sided_halves:
        warnings.append(
            f"SECOND HALF only in the labels or only in the predictions of {_some(loaded.one_sided_halves)}: one of "
            "them restarts its clock at half-time; write both as one half, or both as two"
        )
    if loaded.foreign_events:
        warnings.append(f"events of classes that are not evaluated, left out: {_counted(loaded.foreign_events)}")
    if loaded.foreign_predictions:
        warnings.append(
            f"predictions of classes that are not in the list, left out: {_counted(loaded.foreign_predictions)}; "
            f"the list: {', '.join(classes)}"
        )
    if loaded.num_unscored:
        warnings.append(f"{loaded.num_unscored} prediction(s) without a confidence count with score 1")
    if loaded.num_beyond:
        warnings.append(
            f"{loaded.num_beyond} event(s) and prediction(s) later than {OFFICIAL_HALF_SECONDS // 60} minutes: the "
            "official reader puts them all on its last cell, here they stay in place"
        )
    return warnings


def game_warnings(games: Sequence[Game], classes: Sequence[str], fps: Fraction, *, is_official: bool) -> list[str]:
    """Empty classes, cells used twice, a coarse grid, and scores that the thresholds cannot tell apart.

    Args:
        games: as they are scored (after calibration).
        classes: (C,) names.
        fps: cells per second.
        is_official: whether the metric has thresholds, and counts a class without events as 0.
    """
    warnings = []
    events = np.sum([game.events.counts for game in games], axis=0)
    predictions = np.sum([game.predictions.counts for game in games], axis=0)
    without = [label for label, number in zip(classes, events, strict=True) if not number]
    if without:
        means = "counted as 0 in the mean" if is_official else "left out of the mean"
        warnings.append(f"no event of {', '.join(without)}: {means}")
    silent = [label for label, number, made in zip(classes, events, predictions, strict=True) if number and not made]
    if silent:
        warnings.append(f"no prediction of {', '.join(silent)}")
    if fps <= _LOW_FPS:
        warnings.append(
            f"{fps} frames a second (2 is the official package's default): instants are rounded down to "
            f"{float(1000 / fps):g} ms and tolerances with them; SoccerNet ball action spotting is scored at --fps 25"
        )
    for what, number in (
        ("event(s)", sum(game.events.num_overwritten for game in games)),
        ("prediction(s)", sum(game.predictions.num_overwritten for game in games)),
    ):
        if number:
            warnings.append(
                f"{number} {what} overwritten by a later one of the same class on the same cell of the grid"
            )
    return warnings + (_score_warnings(games, classes) if is_official else [])


def _score_warnings(games: Sequence[Game], classes: Sequence[str]) -> list[str]:
    warnings, crowded, num_above = [], [], 0
    for c, label in enumerate(classes):
        scores = np.concatenate([game.predictions.of_class(c)[1] for game in games])
        reached = len(np.unique(threshold_bins(scores)))
        num_above += int(np.count_nonzero(scores > 1))
        if reached < MIN_THRESHOLDS_REACHED and len(np.unique(scores)) >= 2 * reached > 0:
            crowded.append(f"{label} {reached}")
    if crowded:
        warnings.append(
            f"scores reach few of the {NUM_THRESHOLDS} thresholds between 0 and 1 ({', '.join(crowded)}), which costs "
            "points: --calibrate rank spreads them, order kept"
        )
    if num_above:
        warnings.append(
            f"{num_above} score(s) above 1 all count at the last threshold: --calibrate rank tells them apart"
        )
    return warnings


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NUM_SHOWN} more" if len(names) > _NUM_SHOWN else ""
    return ", ".join(names[:_NUM_SHOWN]) + more


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{label} ({number})" for label, number in sorted(counts.items()))
