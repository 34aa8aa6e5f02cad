"""From the per-frame confidences of a match to spots: smoothing, local maxima, suppression of neighbours.

Frames are those of the 25 fps grid; coarse grids have windows of their own, see `default_peaks` and `candidates_for`.

Legend: T frames, K classes, N peaks of one class (ascending frames), M matches.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from math import isfinite
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from ..events import TimeGrid
from ..files import settings_from
from .metric import MetricSettings, average_map
from .spots import FloatArray, Game, IntArray, Spots

Suppression = Literal["hard", "seed", "soft"]
"""How neighbours are suppressed, the simplest first."""
Rows = NDArray[np.float32]
"""(K, T) smoothed confidences, one row for each class."""

_REACH_SIGMAS = 4
_MOST_FRAMES, _MOST_SIGMA_FRAMES = 1_000_000, 1000
_SEED_BEFORE_STEPS, _SEED_AFTER_STEPS = 3, 1


@dataclass(frozen=True)
class PeakSettings:
    """How spots are found; lengths in frames of the confidences.

    `hard` and `soft` look at local maxima only: a flank of a broad peak is no spot of its own, which forgives a short
    window (real scores, sigma 2, window 4: mAP 76 at 1 s, and 57 where flanks count). A plateau of equal confidences
    counts once, at its middle (the earlier of two), whatever its length; the ends of the match may be maxima. They are
    taken from the highest to the lowest, of equals the earliest first:
    - `hard`: each taken one removes the others within `window_frames`.
    - `soft`: each taken one multiplies the others at a distance d <= `window_frames` by
      (d / (window_frames + 1)) ** decay_power. Soft-NMS (Bodla et al., ICCV 2017) in time: power 1 is the linear decay
      of Soares and Shah (arXiv 2206.07846), 2 is that of T-DEED (Xarles et al., CVPRW 2024); both divide by the window
      itself and decay every frame.
    - `seed`: what the authors of the seed recipes do. Only every `stride_frames`-th frame from frame 0 on exists, and
      every one of them may be a spot, local maximum or not; each taken one removes those up to 3 steps before and 1
      step after it (their window of 5 steps, cut as [i - 2.5, i + 2) and rounded down). So spots may be 2 steps apart.
      `window_frames` is not used. Theirs is `SEED_PEAKS`.
    """

    kind: Suppression = "hard"
    window_frames: int = 12
    """Half width, >= 0; the distance itself is inside. 12 is half a second at 25 fps, as the metric's tolerance."""
    sigma_frames: float = 2.0
    """Gaussian smoothing before, >= 0; 0: none. A weighted mean (cut at 4 sigma, mirrored at the ends): a plateau keeps
    its confidence, a peak that is narrower than sigma loses height, and nothing leaves the range of the input."""
    threshold: float = 0.001
    """Spots below are dropped, > 0. The metric does not mind low ones (no change from 0.001 to 0.2 on real scores)."""
    decay_power: float = 2.0
    """`soft` only, > 0; the higher, the nearer to `hard`."""
    stride_frames: int = 2
    """`seed` only, >= 1."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Suppression):
            raise InputError("kind of suppression is not known", got=self.kind, wanted=", ".join(get_args(Suppression)))
        for name, least in (("window_frames", 0), ("stride_frames", 1)):
            value = vars(self)[name]
            if type(value) is not int or not least <= value <= _MOST_FRAMES:
                raise InputError(f"{name} is not usable", got=value, wanted=f"a whole number >= {least}")
        for name, may_be_zero in (("sigma_frames", True), ("threshold", False), ("decay_power", False)):
            value = vars(self)[name]
            is_number = type(value) in (int, float) and isfinite(value)
            is_number = is_number and (name != "sigma_frames" or value <= _MOST_SIGMA_FRAMES)
            if not is_number or value < 0 or not (value or may_be_zero):
                wanted = "a number >= 0" if may_be_zero else "a number above 0"
                raise InputError(f"{name} is not usable", got=value, wanted=wanted)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, in field order."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: object) -> "PeakSettings":
        """Inverse of `to_json`; missing fields get their defaults.

        Raises:
            InputError: a field is unknown or not usable.
        """
        return settings_from(cls, record, where="settings of peaks")


SEED_PEAKS = PeakSettings(kind="seed", sigma_frames=0.0, threshold=0.05)
_TRIED_WINDOWS_FRAMES: dict[Suppression, tuple[int, ...]] = {"hard": (8, 12, 16, 20), "soft": (12, 18, 24)}
CANDIDATES: tuple[PeakSettings, ...] = (
    *(
        PeakSettings(kind=kind, window_frames=window_frames, sigma_frames=sigma_frames)
        for sigma_frames in (0.0, 1.0, 2.0, 3.0, 4.0)
        for kind, windows_frames in _TRIED_WINDOWS_FRAMES.items()
        for window_frames in windows_frames
        if sigma_frames or kind == "hard"
    ),
    SEED_PEAKS,
)
"""What `choose_peaks` tries at 25 fps. Without smoothing `soft` has the most peaks to decay and takes longest."""


_COARSE_CANDIDATES: tuple[PeakSettings, ...] = (
    *(PeakSettings("hard", window, sigma) for sigma in (0.0, 0.5, 1.0) for window in (0, 1, 2)),
    *(PeakSettings("soft", window, sigma) for sigma in (0.5, 1.0) for window in (1, 2)),
)


def default_peaks(fps: Fraction, tolerance_seconds: float = 1.0) -> PeakSettings:
    """What is used before any are chosen, for confidences of so many frames a second.

    A narrower tolerance (its full width) has windows and smoothing as much narrower. On a coarse grid a smoothing of 2
    frames would be seconds wide: there is none, and the window is the whole frames within half a second, at 1 fps none.
    """
    if not TimeGrid(fps).is_coarse:
        return _narrowed(PeakSettings(), tolerance_seconds)
    return PeakSettings(window_frames=int(fps / 2), sigma_frames=0.0)


def candidates_for(fps: Fraction, tolerance_seconds: float = 1.0) -> tuple[PeakSettings, ...]:
    """What `choose_peaks` is to try: `CANDIDATES`; for a narrower tolerance as much narrower, without the seed's, which
    see every second frame only; on a coarse grid windows of up to 2 frames."""
    if TimeGrid(fps).is_coarse:
        return _COARSE_CANDIDATES
    if tolerance_seconds >= 1:
        return CANDIDATES
    return tuple(dict.fromkeys(_narrowed(each, tolerance_seconds) for each in CANDIDATES if each != SEED_PEAKS))


def _narrowed(peaks: PeakSettings, tolerance_seconds: float) -> PeakSettings:
    share = min(1.0, tolerance_seconds)  # wider ones keep the windows of 1 s
    window_frames = max(1, round(share * peaks.window_frames))
    return replace(peaks, window_frames=window_frames, sigma_frames=share * peaks.sigma_frames)


@dataclass(frozen=True)
class PeakTrial:
    """One row of the table of a choice: official mAP, 0 to 1."""

    settings: PeakSettings
    headline: float
    """Mean over the first classes (10 of SoccerNet's 12, else all)."""
    overall: float
    """Mean over all classes."""


@dataclass(frozen=True)
class PeakChoice:
    """Settings with the highest headline; of equals the simplest."""

    best: PeakSettings
    table: tuple[PeakTrial, ...]
    """In the order of the candidates."""


def find_spots(scores_tk: ArrayLike, settings: PeakSettings) -> Spots:
    """Spots of one match.

    Args:
        scores_tk: (T, K) confidences, finite, 0 to 1; T may be 0.
        settings: how.

    Returns:
        Of K classes; a value is the smoothed confidence (`soft`: after its decay).

    Raises:
        InputError: another shape, or NaN or infinity.
    """
    return _spots_of_rows(smooth(scores_tk, settings.sigma_frames), settings)


def choose_peaks(
    scores: Sequence[ArrayLike],
    events: Sequence[Spots],
    *,
    metric: MetricSettings,
    num_headline: int,
    candidates: Sequence[PeakSettings] = CANDIDATES,
    to_grid: Callable[[Spots], Spots] = lambda spots: spots,
) -> PeakChoice:
    """Try settings on validation matches, pooled, by the official mAP.

    Args:
        scores: (M,) of (T, K) confidences, as in `find_spots`.
        events: (M,) of K classes each.
        metric: tolerance, and frames per second of the events.
        num_headline: how many of the first classes the headline is over, 1 to K.
        candidates: settings to try, at least one.
        to_grid: brings spots to the events' frames, where those of the confidences are others.

    Raises:
        InputError: no match or no candidate, lists that do not fit, or confidences that are not usable.
    """
    if len(scores) != len(events) or not scores or not candidates:
        got = f"{len(scores)} of scores, {len(events)} of events, {len(candidates)} candidates"
        raise InputError("peaks cannot be chosen", got=got, wanted="as many scores as events, and something to try")
    if not 1 <= num_headline <= events[0].num_classes:
        raise InputError("num_headline is not usable", got=num_headline, wanted=f"1 to {events[0].num_classes}")
    tried: dict[PeakSettings, PeakTrial] = {}
    for sigma_frames in {settings.sigma_frames for settings in candidates}:
        rows = [smooth(scores_tk, sigma_frames) for scores_tk in scores]
        for settings in (each for each in candidates if each.sigma_frames == sigma_frames):
            found = [to_grid(_spots_of_rows(row, settings)) for row in rows]
            games = [Game(true, spots) for true, spots in zip(events, found, strict=True)]
            result = average_map(games, metric)
            tried[settings] = PeakTrial(settings, float(result.per_class[:num_headline].mean()), result.mean)
    table = tuple(tried[settings] for settings in candidates)

    def worse_or_less_simple(row: PeakTrial) -> tuple[float, int, float, int]:
        kind = get_args(Suppression).index(row.settings.kind)
        # rounded: sums in another order, as another numpy makes them, choose the same
        return -round(row.headline, 12), kind, row.settings.sigma_frames, row.settings.window_frames

    return PeakChoice(min(table, key=worse_or_less_simple).settings, table)


def smooth(scores_tk: ArrayLike, sigma_frames: float) -> Rows:
    """(T, K) -> (K, T): a Gaussian over time, see `PeakSettings.sigma_frames`.

    Rounded to float32, so that a plateau stays one.

    Raises:
        InputError: another shape, or NaN or infinity.
    """
    scores = np.asarray(scores_tk)
    if scores.ndim != 2:
        raise InputError("confidences have another shape", got=scores.shape, wanted="(frames, classes)")
    with np.errstate(over="ignore"):  # infinite then
        rows = np.ascontiguousarray(scores.T, dtype=np.float32)
    if not np.isfinite(rows).all():
        bad = int(np.count_nonzero(~np.isfinite(rows)))
        raise InputError("confidences are not usable", got=f"{bad} NaN or infinite", wanted="finite, 0 to 1")
    if not sigma_frames or not rows.size:
        return rows
    from scipy.ndimage import gaussian_filter1d  # type: ignore[import-untyped]  # 0.1 s, and commands that find no peaks import this module

    smoothed = gaussian_filter1d(rows.astype(np.float64), sigma_frames, axis=1, truncate=_REACH_SIGMAS, mode="reflect")
    return np.asarray(smoothed, dtype=np.float32)


def _spots_of_rows(rows_kt: Rows, settings: PeakSettings) -> Spots:
    parts = [_pick(row.astype(np.float64), settings) for row in rows_kt]
    starts = np.cumsum([0, *(len(frames) for frames, _ in parts)])
    return Spots(
        np.concatenate([np.zeros(0, dtype=np.int64), *(frames for frames, _ in parts)]),
        np.concatenate([np.zeros(0), *(values for _, values in parts)]),
        starts.astype(np.int64),
    )


def _pick(row_t: FloatArray, settings: PeakSettings) -> tuple[IntArray, FloatArray]:
    """Frames (N,) and values (N,) of the spots of one class."""
    if settings.kind == "seed":
        stride = settings.stride_frames
        frames = np.arange(0, len(row_t), stride)
        frames = frames[row_t[frames] >= settings.threshold]
        return _keep_highest(frames, row_t[frames], _SEED_BEFORE_STEPS * stride, _SEED_AFTER_STEPS * stride)
    from scipy.signal import find_peaks  # type: ignore[import-untyped]  # 0.3 s

    padded = np.pad(row_t, 1, constant_values=-np.inf)  # so that the ends of the match may be maxima
    frames = find_peaks(padded, height=settings.threshold)[0] - 1
    if settings.kind == "hard":
        return _keep_highest(frames, row_t[frames], settings.window_frames, settings.window_frames)
    values = _decay(frames, row_t[frames], settings)
    return frames[values > 0], values[values > 0]


def _keep_highest(
    frames: IntArray, values: FloatArray, before_frames: int, after_frames: int
) -> tuple[IntArray, FloatArray]:
    """Each, from the highest down, removes the others from `before_frames` before to `after_frames` after it.

    Ours, as `find_peaks(distance=...)` knows no window that is longer on one side, and takes the last of equals first.
    """
    order = np.argsort(-values, kind="stable")
    first = np.searchsorted(frames, frames - before_frames, side="left")[order]
    stop = np.searchsorted(frames, frames + after_frames, side="right")[order]
    is_free, kept = bytearray(b"\1") * len(frames), []
    for peak, low, high in zip(order.tolist(), first.tolist(), stop.tolist(), strict=True):
        if is_free[peak]:
            kept.append(peak)
            is_free[low:high] = bytes(high - low)
    chosen = np.sort(np.array(kept, dtype=np.int64))
    return frames[chosen], values[chosen]


def _decay(frames: IntArray, values: FloatArray, settings: PeakSettings) -> FloatArray:
    """Values (N,) after each, from the highest down, has decayed its neighbours; 0 where below the threshold.

    One that is the highest within its window may be taken at once: what is higher elsewhere cannot reach it.
    """
    window = settings.window_frames
    weights = ((np.arange(window + 1) / (window + 1)) ** settings.decay_power).tolist()
    first = np.searchsorted(frames, frames - window, side="left").tolist()
    stop = np.searchsorted(frames, frames + window, side="right").tolist()
    at, left = frames.tolist(), values.tolist()
    taken = [0.0] * len(left)
    for start in np.argsort(-values, kind="stable").tolist():
        while left[start] >= settings.threshold:  # climb to the highest around, until the start itself is taken
            peak, highest = -1, start
            while highest != peak:
                peak = highest
                highest = max(range(first[peak], stop[peak]), key=left.__getitem__)  # of equals the earliest
            taken[peak], here = left[peak], at[peak]
            for other in range(first[peak], stop[peak]):
                left[other] *= weights[abs(at[other] - here)]
    return np.array(taken)
