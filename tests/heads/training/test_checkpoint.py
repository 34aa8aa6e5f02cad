"""Files of a run: whole, exact, and refused where they are of another run or damaged."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from bas.errors import InputError
from bas.heads.targets import clip_targets, stack_targets
from bas.heads.training.checkpoint import (
    FORMAT,
    RUN,
    EpochLine,
    LoopState,
    read_run,
    read_state,
    read_weights,
    write_run,
    write_state,
    write_weights,
)
from bas.heads.training.data import Batch
from bas.heads.training.evaluator import Verdict
from bas.heads.training.loop import Updater
from bas.heads.training.settings import TrainSettings

Tiny = Callable[..., TrainSettings]
UNET = {"head": "unet_gru", "options": {"unet_gru.widths": "8", "unet_gru.gru.hidden": 4}}


def line(epoch: int, headline: float) -> EpochLine:
    return EpochLine(epoch, 0.1 + 0.2, 1e-3, headline, headline, 2.0, 1.0)


def verdict(headline: float) -> Verdict:
    return Verdict(headline, headline, {"PASS": headline, "DRIVE": headline})


def updater_of(settings: TrainSettings) -> Updater:
    torch.manual_seed(settings.seed)
    return Updater.of(settings, settings.build(dim=4, num_classes=2), torch.device("cpu"))


def advance(updater: Updater, num_updates: int, *, seed: int = 0) -> list[float]:
    losses = []
    for number in range(num_updates):
        features = torch.randn(4, 16, 4, generator=torch.Generator().manual_seed(seed + number))
        clip = clip_targets([(3, 1), (9, 2)], num_steps=16, num_classes=2).targets
        batch = Batch(features, None, stack_targets([clip] * 4))
        losses.append(float(updater.update(batch, lr=1e-2, seed=seed + number)))
    return losses


def finish(state: LoopState, settings: TrainSettings, *headlines: float) -> list[bool]:
    return [state.finish_epoch(line(len(state.history) + 1, each), verdict(each), settings) for each in headlines]


def test_the_best_epoch_is_the_first_highest(tiny: Tiny) -> None:
    state = LoopState(step=6, loss_sum=3.0, seconds=9.0)
    assert finish(state, tiny(), 0.2, 0.5, 0.5, 0.4) == [True, True, False, False]
    assert (state.best_epoch, state.best) == (2, verdict(0.5))
    assert (state.epoch, state.step, state.loss_sum, state.seconds) == (4, 0, 0.0, 0.0)
    assert [each.headline for each in state.history] == [0.2, 0.5, 0.5, 0.4]
    assert finish(LoopState(), tiny(), 0.0) == [True]  # even a useless first epoch is kept


def test_early_stopping_counts_epochs_without_enough_improvement(tiny: Tiny) -> None:
    settings, state = tiny(epochs=50, patience=2, min_improvement=0.05), LoopState()
    stale = []
    for headline in (0.30, 0.34, 0.36, 0.40, 0.41):
        assert not state.is_over(settings)
        finish(state, settings, headline)
        stale.append(state.stale_epochs)
    assert stale == [0, 1, 0, 1, 2]  # 0.36 is 0.06 above 0.30; 0.40 and 0.41 are not enough above 0.36
    assert state.is_over(settings)
    assert state.best_epoch == 5  # yet each is kept where it is the best
    assert not state.is_over(tiny(epochs=50, patience=0, min_improvement=0.05))
    assert state.is_over(tiny(epochs=5, patience=0))


def test_updates_are_counted_over_all_epochs(tiny: Tiny) -> None:
    assert LoopState(epoch=3, step=2).update(tiny()) == 20


def test_a_state_survives_json_exactly(tiny: Tiny) -> None:
    state = LoopState(epoch=1, step=5, loss_sum=0.1 + 0.2, seconds=1 / 3)
    assert LoopState.from_json(json.loads(json.dumps(asdict(state)))) == state
    finish(state, tiny(), 1 / 3, 2 / 3)
    assert LoopState.from_json(json.loads(json.dumps(asdict(state)))) == state


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9}, UNET, UNET | {"ema": 0.9, "inputs": "standard"}])
def test_going_on_from_a_saved_state_is_exact(tmp_path: Path, tiny: Tiny, changes: dict[str, Any]) -> None:
    settings, path = tiny(**changes), tmp_path / "last.safetensors"
    whole = updater_of(settings)
    advance(whole, 4)
    saved = LoopState(epoch=1, step=2, loss_sum=0.3)
    write_state(path, whole, saved)
    rest = advance(whole, 4, seed=4)

    other = updater_of(tiny(**changes, seed=9))
    assert read_state(path, other) == saved
    assert advance(other, 4, seed=4) == rest
    for model in ("model", "judged"):
        for name, tensor in getattr(whole, model).state_dict().items():
            assert torch.equal(getattr(other, model).state_dict()[name], tensor), name
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_equal_weights_are_equal_bytes(tmp_path: Path, tiny: Tiny) -> None:
    for name in "ab":
        write_weights(tmp_path / name, updater_of(tiny(**UNET)).model)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    other = updater_of(tiny(**UNET, seed=4)).model
    read_weights(tmp_path / "a", other)
    write_weights(tmp_path / "b", other)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_missing_and_foreign_weights_are_refused(tmp_path: Path, tiny: Tiny) -> None:
    path, updater = tmp_path / "best.safetensors", updater_of(tiny())
    assert read_state(path, updater) is None
    with pytest.raises(InputError, match="no such file"):
        read_weights(path, updater.model)
    write_weights(path, updater_of(tiny(head="sgp")).model)
    with pytest.raises(InputError, match="weights of another network"):
        read_weights(path, updater.model)
    write_weights(path, tiny().build(dim=5, num_classes=2))
    with pytest.raises(InputError, match=r"classifier.weight \[3, 5\]"):
        read_weights(path, updater.model)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "weights only"])
def test_damaged_states_are_refused(tmp_path: Path, tiny: Tiny, damage: str) -> None:
    path, updater = tmp_path / "last.safetensors", updater_of(tiny())
    advance(updater, 1)
    write_state(path, updater, LoopState())
    data = path.read_bytes()
    if damage == "weights only":
        write_weights(path, updater.model)
    else:
        path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "text": b"not a tensor" * 9}[damage])
    wanted = "weights of another network" if damage == "weights only" else "damaged"
    with pytest.raises(InputError, match=rf"last\.safetensors: {wanted}"):
        read_state(path, updater_of(tiny()))


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        read_run(tmp_path / "missing")
    with pytest.raises(InputError, match=r"a folder without run\.json"):
        read_run(tmp_path)
    write_run(tmp_path, {"a": 1})
    assert read_run(tmp_path) == {"format": FORMAT, "a": 1}
    for text, message in (('{"format": "bas-run-0"}', "another format"), ("[]", "another format"), ("{", "not valid")):
        (tmp_path / RUN).write_text(text)
        with pytest.raises(InputError, match=message):
            read_run(tmp_path)


def test_a_disk_that_refuses_is_said(tmp_path: Path, tiny: Tiny) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_weights(tmp_path / "file" / "best.safetensors", updater_of(tiny()).model)
