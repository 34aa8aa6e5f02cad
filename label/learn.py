"""From marked spots to proposals in seconds: small heads on the cached features, in a process of its own.

Legend: R rows of a match, K classes, N proposals of a match.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..cache.store import FeatureStore
from ..errors import InputError
from ..eval.peaks import default_peaks, find_spots
from ..eval.spots import Game, Spots
from ..events import Event, TimeGrid

if TYPE_CHECKING:
    from ..heads.model import SpottingModel
    from ..heads.training.data import Chosen
    from ..heads.training.settings import TrainSettings

Tell = Callable[[tuple[str, Any]], None]
"""Hears of a job: ("done", (share, words)), ("note", words) and ("match", its `Proposals`)."""
NUM_HEADS = 2
"""Heads whose disagreement says what is worth asking about."""
NUM_STEPS = 120
"""Optimizer steps of a head."""
NEAR_SECONDS = Fraction(1, 2)
"""Rows this near to a spot that was marked, accepted or rejected count as labelled, also outside of stretches."""
LEAST_SPOTS = 2
_LEAST_CONFIDENCE, _LEAST_CONFIDENCE_OF_RUNS = 0.03, 0.2
_MORE_THAN_EXPECTED, _LEAST_PROPOSALS = 3.0, 20
"""Proposals of a class: this many times what its rate in the marked time lets expect, at least so many."""
_FOLDS, _SHARES = 4, (0.25, 0.5, 1.0)
_LEAST_KNOWN_ROWS = 20
_MOST_CONFIDENCE_CHANNELS = 128


@dataclass(frozen=True)
class Marked:
    """What a person has said about a match."""

    match_id: str
    spots: tuple[tuple[int, int], ...]
    """(milliseconds, class 0..K-1)."""
    stretches_ms: tuple[tuple[int, int], ...]
    """[from, to): everything in it is marked."""
    rejects: tuple[tuple[int, int], ...]
    """(milliseconds, class): there is no such spot."""

    def stretch_rows(self, num_rows: int, grid: TimeGrid) -> NDArray[np.bool_]:
        """(R,) rows of the stretches."""
        rows = np.zeros(num_rows, np.bool_)
        for from_ms, to_ms in self.stretches_ms:
            rows[grid.frame(from_ms) : grid.frame(to_ms)] = True
        return rows

    def known_rows(self, num_rows: int, grid: TimeGrid) -> NDArray[np.bool_]:
        """(R,) rows about which the labels say everything: those of the stretches, and those near a single answer."""
        known = self.stretch_rows(num_rows, grid)
        near = max(1, int(NEAR_SECONDS * grid.fps))
        for ms, _ in (*self.spots, *self.rejects):
            row = grid.frame(ms)
            known[max(0, row - near) : row + near + 1] = True
        return known


@dataclass(frozen=True)
class LearnTask:
    """What the process is to learn from, and what to propose for."""

    store: Path
    classes: tuple[str, ...]
    marked: tuple[Marked, ...]
    """Of every match whose features are there, those to propose for first in front."""
    num_steps: int = NUM_STEPS
    num_heads: int = NUM_HEADS
    seed: int = 0
    runs: tuple[Path, ...] = ()
    """Finished runs that propose instead; their classes are among `classes`."""


@dataclass(frozen=True)
class Proposals:
    """What the heads propose for a match, in time order, and their confidences."""

    match_id: str
    ms: NDArray[np.int64]
    """(N,)"""
    classes: NDArray[np.int64]
    """(N,) 0..K-1."""
    confidence: NDArray[np.float32]
    """(N,) 0 to 1."""
    teach: NDArray[np.float32]
    """(N,) the higher, the sooner to look at; see `looking_orders`."""
    unsure: NDArray[np.float32]
    """(N,) likewise."""
    curves_kr: NDArray[np.uint8]
    """(K, R) confidence of each row, times 255."""
    fps: Fraction
    """Rows per second."""


def learn(task: LearnTask, tell: Tell) -> dict[str, Any]:
    """Train the heads on what is marked, then propose for every match.

    Returns:
        What it was made from: `seconds`, `marked_seconds`, `spots`, `heads`.

    Raises:
        InputError: too little is marked.
    """
    started = time.perf_counter()
    data = LearnData.open(task)
    models = []
    for number in range(task.num_heads):

        def advanced(share: float, number: int = number) -> None:
            tell(("done", (0.8 * (number + share) / task.num_heads, f"training head {number + 1} of {task.num_heads}")))

        models.append(data.train(data.known, seed=task.seed + number, advanced=advanced))
    trained_seconds = time.perf_counter() - started
    for number, marked in enumerate(task.marked):
        tell(("done", (0.8 + 0.2 * number / len(task.marked), f"proposing for {marked.match_id}")))
        tell(("match", data.propose(models, number)))
    return {
        "seconds": round(time.perf_counter() - started, 2),
        "training_seconds": round(trained_seconds, 2),
        "marked_seconds": round(float(data.marked_seconds), 1),
        "spots": data.num_spots,
        "heads": task.num_heads,
    }


def learning_curve(task: LearnTask, tell: Tell) -> list[dict[str, float]]:
    """Measure what the next labels are worth: mAP on parts of what is labelled, by the share of the rest trained on.

    Returns:
        For each share: `spots` trained on, mean mAP (`map`) at 1 s on the parts left out, and the 90 % interval of it
        over the parts (`low`, `high`).

    Raises:
        InputError: too little is marked.
    """
    data = LearnData.open(task)
    folds = data.folds(_FOLDS)
    points = []
    for number, share in enumerate(_SHARES):
        values, counts = [], []
        for fold, left_out in enumerate(folds):
            done = (number * _FOLDS + fold) / (_FOLDS * len(_SHARES))
            tell(("done", (done, f"{share:.0%} of the labels, part {fold + 1}")))
            known = data.thinned(left_out, share)
            if (num_spots := int(np.count_nonzero(known[data.event_rows()]))) < LEAST_SPOTS:
                continue
            model = data.train(known, seed=task.seed)
            values.append(data.map_at(model, left_out))
            counts.append(num_spots)
        if len(values) >= 2:
            points.append(_point(values, counts))
    if not points:
        raise InputError("too little is marked for a learning curve", cure="mark some minutes more, then ask again")
    return points


def _point(values: Sequence[float], counts: Sequence[int]) -> dict[str, float]:
    from scipy.stats import t  # type: ignore[import-untyped]  # 0.5 s

    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
    reach = float(t.ppf(0.95, len(values) - 1)) * spread
    low, high = max(0.0, mean - reach), min(1.0, mean + reach)
    return {"spots": round(float(np.mean(counts))), "map": mean, "low": low, "high": high}


def looking_orders(
    confidence: NDArray[np.float32], disagreement: NDArray[np.float32], num_marked: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two orders in which to look at N proposals, each (N,): what teaches, and what the heads are unsure about.

    While little is marked, a sure proposal of a rare class teaches most: it is another example, or a wrong one that the
    heads believe in. What they are unsure about is mostly nothing then (both were measured: RESULTS). Once nearly all
    proposals are right, the unsure ones are what is left to ask.

    Args:
        confidence: (N,) mean of the heads.
        disagreement: (N,) how far the heads are apart, 0 to 1.
        num_marked: (N,) spots of the proposal's class that are marked already.
    """
    rarity = 1 / np.sqrt(1.0 + num_marked)
    unsure = 1 - np.abs(2 * confidence - 1) + disagreement
    return np.asarray(confidence * rarity, np.float32), np.asarray(unsure * rarity, np.float32)


@dataclass
class LearnData:
    """Rows and labels of all matches, one after the other: what heads are trained on and propose for."""

    task: LearnTask
    chosen: "Chosen"
    bank: Any
    settings: "TrainSettings"
    known: NDArray[np.bool_]
    """(rows of all matches,)"""

    @classmethod
    def open(cls, task: LearnTask) -> "LearnData":
        """Raises InputError where too little is marked, or the store does not serve."""
        import torch

        from ..cache.bank import open_bank
        from ..heads.training.data import Chosen, Matches, MatchLabels, labelled_matches
        from ..heads.training.loop import choose_device

        store = FeatureStore.open(task.store)
        infos = {each.match_id: store.match(each.match_id) for each in task.marked}
        rates = {info.meta.fps for info in infos.values()}
        if len(rates) != 1:
            got = ", ".join(map(str, sorted(rates))) or "no features"
            raise InputError(f"{task.store}: matches of different frame rates", got=got, cure="label them one by one")
        fps = rates.pop()
        grid = TimeGrid(fps)
        spots = {each.match_id: [Event(ms, task.classes[c]) for ms, c in each.spots] for each in task.marked}
        source = Matches(
            where=str(store.path),
            classes=task.classes,
            split_of={},
            labels=lambda match_id: MatchLabels(infos[match_id].num_rows, grid, spots[match_id]),
            again="train again",
        )
        matches = labelled_matches(source, list(spots), task.classes)
        known = [each.known_rows(infos[each.match_id].num_rows, grid) for each in task.marked]
        device = choose_device("auto")
        bank = open_bank(store, [each.match_id for each in task.marked], device=device)
        chosen = Chosen(tuple(matches), (), task.classes, fps)
        settings = _settings(task, fps)
        sample = bank.gather(torch.linspace(0, bank.num_rows - 1, min(bank.num_rows, 4096)).long()[None])[0]
        is_confidence = (
            sample.shape[1] <= _MOST_CONFIDENCE_CHANNELS and 0 <= float(sample.min()) <= float(sample.max()) <= 1
        )
        settings = replace(settings, inputs="scores" if is_confidence else "standard")
        data = cls(task, chosen, bank, settings, np.concatenate(known))
        if data.num_spots < LEAST_SPOTS:
            raise InputError("too little is marked", got=f"{data.num_spots} spots", wanted=f"at least {LEAST_SPOTS}")
        return data

    @property
    def num_spots(self) -> int:
        """Marked, of all matches."""
        return sum(len(each.spots) for each in self.task.marked)

    @property
    def marked_seconds(self) -> float:
        """Time about which the labels say everything."""
        return np.count_nonzero(self.known) / float(self.chosen.fps)

    def train(
        self, known: NDArray[np.bool_], *, seed: int, advanced: Callable[[float], None] = lambda _: None
    ) -> "SpottingModel":
        """A head trained on these rows."""
        import torch

        from ..heads.model import build_model
        from ..heads.training.data import Examples, Windows
        from ..heads.training.loop import (
            HeadTrainer,
            choose_threads,
            ema_decay,
            learning_rate,
            step_seed,
            torch_threads,
        )

        settings = replace(self.settings, seed=seed)
        torch.manual_seed(seed)
        model = build_model(settings, dim=self.bank.dim, num_classes=len(self.chosen.classes))
        windows = Windows.of(self.chosen, settings, device=self.bank.device)
        mask = windows.targets.mask_bt & torch.from_numpy(known).to(self.bank.device)
        windows = replace(windows, targets=replace(windows.targets, mask_bt=mask))
        windows = _useful(windows, known, self.event_rows())
        trainer = HeadTrainer(settings, model, Examples(self.bank, windows, ()), device=self.bank.device)
        trainer.fit_inputs(alike=False)
        threads = choose_threads(
            0, num_parameters=model.num_parameters, rows_per_step=settings.batch * settings.clip_len
        )
        with torch_threads(threads):
            for step, batch in enumerate(trainer.batches(0, first_step=0)):
                lr, decay = learning_rate(step, settings), ema_decay(step, settings)
                trainer.training_step(batch, lr=lr, seed=step_seed(settings, 0, step), ema_decay=decay)
                advanced((step + 1) / settings.steps_per_epoch)
        return trainer.kept_model.eval()

    def scores(self, model: "SpottingModel", number: int) -> NDArray[np.float32]:
        """(R, K) confidences of a match."""
        from ..heads.scoring import match_scores

        place = self.bank.matches[number]

        def gather(index_bt: Any) -> Any:
            return self.bank.gather(index_bt + place.first_row)

        num_classes = len(self.chosen.classes)
        return match_scores(model, gather, place.num_rows, self.settings.scoring_plan, num_classes=num_classes)

    def propose(self, models: Sequence["SpottingModel"], number: int) -> Proposals:
        """Proposals for the rows of a match that are not in a labelled stretch."""
        of_heads = np.stack([self.scores(model, number) for model in models])
        marked, num_classes = self.task.marked, len(self.chosen.classes)
        num_marked = np.bincount([c for each in marked for _, c in each.spots], minlength=num_classes)
        rate = num_marked / max(1.0, self.marked_seconds)
        return _proposals(marked[number], of_heads, self.chosen.fps, num_marked=num_marked, rate=rate)

    def folds(self, number: int) -> list[NDArray[np.bool_]]:
        """Known rows cut into parts of about as many spots each, in order of time: neighbours stay together."""
        rows = np.flatnonzero(self.known)
        is_event = np.isin(rows, self.event_rows())
        before: NDArray[np.int64] = np.cumsum(is_event) - is_event
        part = np.minimum(before * number // max(1, int(is_event.sum())), number - 1)
        return [np.isin(np.arange(len(self.known)), rows[part == fold]) for fold in range(number)]

    def thinned(self, left_out: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
        """The first rows of what is known and not left out, until they hold this share of its spots."""
        rows = np.flatnonzero(self.known & ~left_out)
        is_event = np.isin(rows, self.event_rows())
        return np.isin(np.arange(len(self.known)), rows[np.cumsum(is_event) <= share * is_event.sum()])

    def map_at(self, model: "SpottingModel", rows: NDArray[np.bool_]) -> float:
        """mAP at 1 s over the classes that these rows hold, 0 to 1."""
        from ..eval.metric import MetricSettings, average_map

        games = []
        for number, (place, match) in enumerate(zip(self.bank.matches, self.chosen.train, strict=True)):
            inside = rows[place.first_row : place.first_row + place.num_rows]
            if not inside.any():
                continue
            found = find_spots(self.scores(model, number), default_peaks(self.chosen.fps))
            true = match.spots(len(self.chosen.classes))
            games.append(
                Game(true.keep(inside[np.minimum(true.frames, len(inside) - 1)]), found.keep(inside[found.frames]))
            )
        result = average_map(games, MetricSettings.named("at1", fps=TimeGrid(self.chosen.fps).judged.fps))
        held = np.sum([game.events.counts for game in games], axis=0) > 0
        return float(result.per_class[held].mean()) if held.any() else 0.0

    def event_rows(self) -> NDArray[np.int64]:
        """Rows of all spots, counted over all matches."""
        firsts = [place.first_row for place in self.bank.matches]
        rows = [first + row for first, match in zip(firsts, self.chosen.train, strict=True) for row, _ in match.events]
        return np.array(rows, np.int64)


def _proposals(
    marked: Marked,
    of_heads_hrk: NDArray[np.float32],
    fps: Fraction,
    *,
    num_marked: NDArray[np.int64],
    rate: NDArray[np.float64] | None,
) -> Proposals:
    """Peaks of the heads' mean outside of the labelled stretches of a match.

    `num_marked` (K,) counts spots of each class in all matches; `rate` (K,) is theirs a second, which bounds how many
    are proposed (None: all that are sure enough).
    """
    grid = TimeGrid(fps)
    mean_rk, spread_rk = of_heads_hrk.mean(0), np.ptp(of_heads_hrk, axis=0)
    least = _LEAST_CONFIDENCE if rate is not None else _LEAST_CONFIDENCE_OF_RUNS
    spots = find_spots(mean_rk, replace(default_peaks(fps), threshold=least))
    open_rows = ~marked.stretch_rows(len(mean_rk), grid)
    spots = spots.keep(open_rows[spots.frames])
    if rate is not None:
        spots = _surest(spots, _MORE_THAN_EXPECTED * rate * (np.count_nonzero(open_rows) / float(fps)))
    index = np.repeat(np.arange(spots.num_classes), spots.counts)
    order = np.lexsort((index, spots.frames))
    rows, index = spots.frames[order], index[order].astype(np.int64)
    confidence = spots.values[order].astype(np.float32)
    teach, unsure = looking_orders(confidence, spread_rk[rows, index], num_marked[index])
    ms = np.array([grid.instant_ms(row) for row in rows.tolist()], np.int64)
    curves_kr = np.ascontiguousarray(np.round(255 * mean_rk.T).astype(np.uint8))
    return Proposals(marked.match_id, ms, index, confidence, teach, unsure, curves_kr, fps)


def propose_by_runs(task: LearnTask, tell: Tell) -> dict[str, Any]:
    """Propose by what finished runs say about the stored rows. Returns as `learn`.

    Raises:
        InputError: a run cannot be used, or was trained on other features.
    """
    from ..data.games import StoredPart
    from ..extract.rows import stored_rows
    from ..heads.ensemble import Ensemble
    from ..heads.training.loop import choose_device

    started, store = time.perf_counter(), FeatureStore.open(task.store)
    ensemble = Ensemble.load(task.runs, choose_device("auto"))
    ensemble.require_store(store, cure="name the store that the run was trained on, or leave --run out")
    places = [task.classes.index(label) for label, _ in ensemble.first.labels]
    for number, marked in enumerate(task.marked):
        tell(("done", (number / len(task.marked), f"proposing for {marked.match_id}")))
        part = StoredPart(marked.match_id, None, None, store)
        rows = stored_rows(part, view=ensemble.view, device=ensemble.device, reduction=ensemble.reduction)
        scores_rk = np.zeros((rows.bank.num_rows, len(task.classes)), np.float32)
        for place, scores_r in zip(places, ensemble.scores(rows.bank).T, strict=True):  # of two teams the surer one
            scores_rk[:, place] = np.maximum(scores_rk[:, place], scores_r)
        num_marked = np.bincount([c for _, c in marked.spots], minlength=len(task.classes))
        tell(("match", _proposals(marked, scores_rk[None], rows.fps, num_marked=num_marked, rate=None)))
    return {"seconds": round(time.perf_counter() - started, 2), "runs": [str(run) for run in task.runs]}


def _settings(task: LearnTask, fps: Fraction) -> "TrainSettings":
    """A small U-Net over windows of some five seconds, at about 12.5 steps a second."""
    from ..heads.training.settings import TrainSettings

    stride, batch, clip_len = max(1, round(fps / Fraction(25, 2))), 8, 64
    return TrainSettings(
        head="unet",
        options={"unet.widths": "48,64,96"},
        proj=48,
        clip_len=clip_len,
        stride=stride,
        hop_rows=9,
        frames_per_epoch=task.num_steps * batch * clip_len,
        epochs=1,
        batch=batch,
        lr=4e-3,
        dilate=1,
        dropout=0.0,
        max_grad_norm=1.0,
        ema=0.95,
        precision="fp32",
        score_len=512,
        score_overlap=0.1,
    )


def _useful(windows: Any, known: NDArray[np.bool_], event_rows: NDArray[np.int64]) -> Any:
    """Windows that hold known rows; those with a spot come as often as all others together."""
    reach = windows.settings.clip_len * windows.settings.stride
    first, stop = windows.first_row_w, np.minimum(windows.first_row_w + reach, windows.last_row_w + 1)
    counted = np.concatenate([[0], np.cumsum(known)])
    num_known = counted[stop] - counted[first]
    keep = num_known >= np.minimum(_LEAST_KNOWN_ROWS, stop - first)
    if not keep.any():
        keep = num_known > 0
    is_event = np.zeros(len(known) + 1, np.int64)
    is_event[event_rows[known[event_rows]]] = 1
    events = np.concatenate([[0], np.cumsum(is_event)])
    has_event = events[stop] > events[first]
    with_spot, without = np.flatnonzero(keep & has_event), np.flatnonzero(keep & ~has_event)
    times = max(1, round(len(without) / max(1, len(with_spot))))
    index = np.sort(np.concatenate([np.repeat(with_spot, times), without]))
    return replace(windows, first_row_w=windows.first_row_w[index], last_row_w=windows.last_row_w[index])


def _surest(spots: Spots, most: NDArray[np.float64]) -> Spots:
    """At most so many of each class (K,), the surest."""
    keep = np.zeros(len(spots.frames), np.bool_)
    for c in range(spots.num_classes):
        place = np.arange(spots.starts[c], spots.starts[c + 1])
        order = np.argsort(-spots.values[place], kind="stable")
        keep[place[order[: max(_LEAST_PROPOSALS, int(most[c]))]]] = True
    return spots.keep(keep)
