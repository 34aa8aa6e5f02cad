"""Files of a run: whole, exact, and refused where they are of another run or damaged."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import save_file

from bas.errors import InputError
from bas.heads.model import build_model
from bas.heads.targets import clip_targets, stack_targets
from bas.heads.training.checkpoint import (
    BEST,
    LAST,
    RUN,
    EpochLine,
    LoopState,
    RunRecord,
    read_checkpoint,
    read_weights,
    write_checkpoint,
    write_weights,
)
from bas.heads.training.data import Batch
from bas.heads.training.evaluator import ValidationResult
from bas.heads.training.loop import HeadTrainer
from bas.heads.training.settings import TrainSettings

Tiny = Callable[..., TrainSettings]
UNET = {"head": "unet_gru", "options": {"unet_gru.widths": "8", "unet_gru.gru.hidden": 4}}


def line(epoch: int, headline: float) -> EpochLine:
    return EpochLine(epoch, 0.1 + 0.2, 1e-3, headline, headline, 2.0, 1.0)


def verdict(headline: float) -> ValidationResult:
    return ValidationResult(headline, headline, {"PASS": headline, "DRIVE": headline})


def trainer_of(settings: TrainSettings) -> HeadTrainer:
    torch.manual_seed(settings.seed)
    return HeadTrainer(
        settings, build_model(settings, dim=4, num_classes=2), cast(Any, None), device=torch.device("cpu")
    )


def advance(trainer: HeadTrainer, num_updates: int, *, seed: int = 0) -> list[float]:
    losses = []
    for number in range(num_updates):
        features = torch.randn(4, 16, 4, generator=torch.Generator().manual_seed(seed + number))
        clip = clip_targets([(3, 1), (9, 2)], num_steps=16, num_classes=2)[0]
        batch = Batch(features, stack_targets([clip] * 4))
        losses.append(float(trainer.training_step(batch, lr=1e-2, seed=seed + number)))
    return losses


def finish(state: LoopState, settings: TrainSettings, *headlines: float, loss: float | None = None) -> list[bool]:
    lines = (replace(line(len(state.history) + 1, each), valid_loss=loss) for each in headlines)
    return [state.finish_epoch(each, verdict(each.headline), settings) for each in lines]


def test_the_best_epoch_is_the_first_highest(tiny: Tiny) -> None:
    state = LoopState(step=6, loss_sum=3.0, seconds=9.0)
    assert finish(state, tiny(), 0.2, 0.5, 0.5, 0.4) == [True, True, False, False]
    assert (state.best_epoch, state.best) == (2, verdict(0.5))
    assert (state.epoch, state.step, state.loss_sum, state.seconds) == (4, 0, 0.0, 0.0)
    assert [each.headline for each in state.history] == [0.2, 0.5, 0.5, 0.4]
    assert finish(LoopState(), tiny(), 0.0) == [True]  # even a useless first epoch is kept


def test_early_stopping_counts_epochs_in_which_neither_map_nor_loss_improves(tiny: Tiny) -> None:
    settings, state = tiny(epochs=50, patience=2, min_improvement=0.05), LoopState()
    stale = []
    for headline, loss in ((0.30, 2.0), (0.29, 1.96), (0.31, 2.1), (0.31, 1.90), (0.30, 1.86), (0.31, 1.86)):
        assert not state.is_over(settings)
        finish(state, settings, headline, loss=loss)
        stale.append(state.stale_epochs)
    # 1.96 is not 0.05 below 2.0; any gain in mAP counts (0.31); 1.90 is enough below 2.0; 1.86 is not below 1.90
    assert stale == [0, 1, 0, 0, 1, 2]
    assert state.is_over(settings)
    assert state.best_epoch == 3
    assert not state.is_over(tiny(epochs=50, patience=0, min_improvement=0.05))
    assert state.is_over(tiny(epochs=5, patience=0))


def test_a_state_survives_json_exactly(tiny: Tiny) -> None:
    state = LoopState(epoch=1, step=5, loss_sum=0.1 + 0.2, seconds=1 / 3)
    assert LoopState.from_json(json.loads(json.dumps(asdict(state)))) == state
    finish(state, tiny(), 1 / 3, 2 / 3)
    assert LoopState.from_json(json.loads(json.dumps(asdict(state)))) == state


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9}, UNET, UNET | {"ema": 0.9, "inputs": "standard"}])
def test_going_on_from_a_saved_state_is_exact(tmp_path: Path, tiny: Tiny, changes: dict[str, Any]) -> None:
    settings, path = tiny(**changes), tmp_path / "last.pt"
    whole = trainer_of(settings)
    advance(whole, 4)
    saved = LoopState(epoch=1, step=2, loss_sum=0.3)
    write_checkpoint(path, whole, saved)
    rest = advance(whole, 4, seed=4)

    other = trainer_of(tiny(**changes, seed=9))
    assert read_checkpoint(path, other) == saved
    assert advance(other, 4, seed=4) == rest
    for model in ("model", "kept_model"):
        for name, tensor in getattr(whole, model).state_dict().items():
            assert torch.equal(getattr(other, model).state_dict()[name], tensor), name
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_equal_weights_are_equal_bytes(tmp_path: Path, tiny: Tiny) -> None:
    for name in "ab":
        write_weights(tmp_path / name, trainer_of(tiny(**UNET)).model)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    other = trainer_of(tiny(**UNET, seed=4)).model
    read_weights(tmp_path / "a", other)
    write_weights(tmp_path / "b", other)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_missing_and_foreign_weights_are_refused(tmp_path: Path, tiny: Tiny) -> None:
    path, trainer = tmp_path / "best.safetensors", trainer_of(tiny())
    assert read_checkpoint(path, trainer) is None
    with pytest.raises(InputError, match="no such file"):
        read_weights(path, trainer.model)
    write_weights(path, trainer_of(tiny(head="sgp")).model)
    with pytest.raises(InputError, match="weights of another network"):
        read_weights(path, trainer.model)
    write_weights(path, build_model(tiny(), dim=5, num_classes=2))
    with pytest.raises(InputError, match=r"classifier.weight \[3, 5\]"):
        read_weights(path, trainer.model)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "of another network", "without a loop"])
def test_damaged_states_are_refused(tmp_path: Path, tiny: Tiny, damage: str) -> None:
    path, trainer = tmp_path / "last.pt", trainer_of(tiny())
    advance(trainer, 1)
    write_checkpoint(path, trainer, LoopState())
    data = path.read_bytes()
    if damage == "of another network":
        other = trainer_of(tiny(head="sgp"))
        write_checkpoint(path, other, LoopState())
    elif damage == "without a loop":
        torch.save({"model": trainer.model.state_dict()}, path)
    else:
        path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "text": b"not a tensor" * 9}[damage])
    wanted = "weights of another network" if damage == "of another network" else "damaged"
    with pytest.raises(InputError, match=rf"last\.pt: {wanted}"):
        read_checkpoint(path, trainer_of(tiny()))


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        RunRecord.read(tmp_path / "missing")
    with pytest.raises(InputError, match=r"a folder without run\.json"):
        RunRecord.read(tmp_path)
    for text, message in (('{"format": "bas-run-0"}', "another format"), ("[]", "another format"), ("{", "not valid")):
        (tmp_path / RUN).write_text(text)
        with pytest.raises(InputError, match=message):
            RunRecord.read(tmp_path)


def test_an_unfinished_run_of_an_older_version_is_refused(tmp_path: Path, tiny: Tiny) -> None:
    (tmp_path / "last.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="an unfinished run of an older version of bas") as error:
        read_checkpoint(tmp_path / LAST, trainer_of(tiny()))
    assert "train again into another --out" in error.value.cure


def test_a_checkpoint_never_runs_code(tmp_path: Path, tiny: Tiny) -> None:
    mark = tmp_path / "mark"

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.write_text, (mark, "ran")

    torch.save({"loop": Bomb()}, tmp_path / LAST)
    with pytest.raises(InputError, match="damaged"):
        read_checkpoint(tmp_path / LAST, trainer_of(tiny()))
    assert not mark.exists()


def test_batch_norm_of_older_runs_has_no_counter_and_opens(tmp_path: Path, tiny: Tiny) -> None:
    model = trainer_of(tiny(**UNET)).model
    old = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(model.state_dict())
    save_file(old, tmp_path / BEST)
    other = trainer_of(tiny(**UNET, seed=4)).model
    read_weights(tmp_path / BEST, other)
    for name, tensor in old.items():
        assert torch.equal(other.state_dict()[name], tensor), name
