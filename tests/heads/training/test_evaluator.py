"""Validation: a model that knows gets 1, one that is late gets nothing, and each match is scored on its own rows."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bas.cache.bank import Place, open_bank
from bas.cache.store import FeatureStore
from bas.eval.peaks import CANDIDATES
from bas.events import SOCCERNET_BALL_CLASSES
from bas.heads.model import build_model
from bas.heads.scoring import FloatArray
from bas.heads.targets import Targets
from bas.heads.training.data import choose_matches, valid_targets
from bas.heads.training.evaluator import Evaluator, PostProcessing, ValidationResult, bank_scores
from bas.heads.training.settings import TrainSettings

Tiny = Callable[..., TrainSettings]


class Knowing(nn.Module):
    """Takes the pulses of the first two channels for scores, `late` steps late."""

    def __init__(self, *, late: int = 0, swapped: bool = False) -> None:
        super().__init__()
        self.late, self.classes, self.unused = late, [1, 0] if swapped else [0, 1], nn.Parameter(torch.zeros(1))

    def forward(self, x_btc: Tensor) -> Tensor:
        return (x_btc[..., self.classes] / 2.5).clamp(0, 1).roll(self.late, dims=1)

    def scores(self, outputs: Tensor) -> Tensor:
        return outputs

    def loss(self, outputs: Tensor, targets: Targets) -> Tensor:
        return (outputs - targets.presence_btk[..., : outputs.shape[-1]]).abs().mean()


def knowing(**changes: Any) -> Any:
    """For the evaluator it is a model of ours."""
    return Knowing(**changes)


class Validation:
    """The validation matches of a store, with their rows."""

    def __init__(self, store: FeatureStore, settings: TrainSettings, place: Place = "ram", **changes: Any) -> None:
        self.chosen = choose_matches(store, **changes)
        self.bank, self.settings = open_bank(store, self.chosen.ids, place=place), settings

    def scores(self, model: Any) -> list[FloatArray]:
        places = self.bank.matches[len(self.chosen.train) :]
        targets = valid_targets(self.chosen, self.settings, self.bank.device)
        return bank_scores(model, self.bank, places, self.settings.scoring_plan, targets)[0]

    def result(self, model: Any) -> ValidationResult:
        return Evaluator(self.chosen, self.settings.tolerance).validate(self.scores(model))

    def choose(self, model: Any) -> PostProcessing:
        return Evaluator(self.chosen, self.settings.tolerance).choose(self.scores(model))


def test_who_knows_is_right_and_who_is_late_or_confused_is_not(store: FeatureStore, tiny: Tiny) -> None:
    validation = Validation(store, tiny(clip_len=300, stride=1))  # at 25 fps, one second tolerates 12 rows
    right = validation.result(knowing())
    assert right.headline == right.mean > 0.98
    assert list(right.per_class) == ["PASS", "DRIVE"]
    assert right.mean == pytest.approx(np.mean(list(right.per_class.values())))
    assert validation.result(knowing(late=5)).mean > 0.9
    narrow = Validation(store, tiny(clip_len=300, stride=1, tolerance=0.36))  # 4 rows
    assert narrow.result(knowing(late=3)).mean > 0.9
    assert narrow.result(knowing(late=5)).mean < 0.5
    assert validation.result(knowing(late=100)).mean < 0.8 * right.mean
    assert validation.result(knowing(swapped=True)).mean < 0.8 * right.mean


@pytest.mark.parametrize("place", ["ram", "mapped"])
def test_each_match_is_scored_on_its_own_rows(store: FeatureStore, tiny: Tiny, place: Place) -> None:
    validation = Validation(store, tiny(), place, valid=["liga/x", "liga/b"])
    scores = validation.scores(knowing())
    for match_id, found in zip(("liga/x", "liga/b"), scores, strict=True):
        wanted = np.clip(store.rows(match_id)[:][:, :2].astype(np.float32) / 2.5, 0, 1)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_the_model_judges_at_rest_and_trains_on(store: FeatureStore, tiny: Tiny) -> None:
    settings = tiny(head="unet_gru", options={"unet_gru.widths": "8", "unet_gru.gru.hidden": 4})
    model = build_model(settings, dim=4, num_classes=2).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    validation = Validation(store, settings)
    first, second = validation.result(model), validation.result(model)
    assert first == second
    assert model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name  # the statistics of BatchNorm too


def test_the_choice_is_the_best_of_the_table(store: FeatureStore, tiny: Tiny) -> None:
    choice = Validation(store, tiny()).choose(knowing())
    assert [row.settings for row in choice.table] == list(CANDIDATES)
    best = next(row for row in choice.table if row.settings == choice.peaks)
    assert best.headline == max(row.headline for row in choice.table)
    assert choice.result.headline == pytest.approx(best.headline)
    assert choice.result.mean == pytest.approx(best.overall)


def test_soccernets_headline_is_over_the_first_ten_classes(
    make_store: Any, plan: Any, tmp_path: Any, tiny: Tiny
) -> None:
    plans = [plan("a", num_rows=200), plan("v", "valid", num_rows=200)]
    store = make_store(tmp_path / "s", plans, classes=SOCCERNET_BALL_CLASSES)

    class Padded(Knowing):
        def forward(self, x_btc: Tensor) -> Tensor:
            return nn.functional.pad(super().forward(x_btc), (0, 10))

    result = Validation(store, tiny(), classes=SOCCERNET_BALL_CLASSES).result(cast(Any, Padded()))
    values = list(result.per_class.values())
    assert len(values) == 12
    assert result.headline == pytest.approx(sum(values[:10]) / 10)
    assert result.mean == pytest.approx(sum(values) / 12)
    assert result.headline > result.mean > 0
