"""Training: exact resume wherever it was killed, the best epoch's weights, and folders that are refused."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bas.cache.store import FeatureStore
from bas.errors import InputError
from bas.files import FileLock
from bas.heads.training import loop
from bas.heads.training.checkpoint import BEST, FORMAT, LAST, LOG, RUN, EpochLine, LoopState, RunRecord
from bas.heads.training.data import choose_matches
from bas.heads.training.evaluator import Evaluator, ValidationResult
from bas.heads.training.loop import (
    EpochProgress,
    HeadTrainer,
    TrainingProgress,
    choose_device,
    learning_rate,
    train,
)
from bas.heads.training.settings import TrainSettings

Tiny = Callable[..., TrainSettings]
ROOT = Path(__file__).resolve().parents[3]
DROPOUT = {
    "head": "transformer",
    "options": {"transformer.width": 16, "transformer.num_heads": 2, "transformer.feed_forward": 16},
    "mixup": 0.3,
    "ema": 0.9,
    "views": ("identity", "hflip"),
}
BATCH_NORM = {
    "head": "unet_gru+disp",
    "options": {"unet_gru.widths": "8", "unet_gru.gru.hidden": 4},
    "inputs": "standard",
    "max_grad_norm": 1.0,
}
each_kind = pytest.mark.parametrize("changes", [DROPOUT, BATCH_NORM], ids=["dropout", "batch norm"])


class Stopped(Exception):  # noqa: N818 (no error of ours)
    """Ends a run from outside."""


def files(out: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of change by name."""
    paths = [path for path in sorted(out.rglob("*")) if path.is_file()]
    return {str(path.relative_to(out)): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def losses(out: Path) -> list[str]:
    """The columns of the log but for the times."""
    return [",".join(line.split(",")[:5]) for line in (out / LOG).read_text().splitlines()]


@pytest.mark.parametrize(("asked", "used"), [(0, 1), (3, 3)])
def test_a_small_head_takes_one_thread_whatever_pytorch_would_take(
    store: FeatureStore, tiny: Tiny, tmp_path: Path, asked: int, used: int
) -> None:
    seen: list[int] = []
    progress = TrainingProgress(epoch_done=lambda *_: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        train(store, tmp_path / "run", tiny(epochs=1), device="cpu", threads=asked, progress=progress)
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    assert seen == [used]


@pytest.mark.slow
@each_kind
@pytest.mark.parametrize("step", [0, 7], ids=["named points", "operations on files"])
def test_killed_runs_end_as_uninterrupted_ones(
    store: FeatureStore, tiny: Tiny, tmp_path: Path, changes: dict[str, Any], step: int
) -> None:
    command = [sys.executable, Path(__file__).with_name("train_child.py"), store.path, tmp_path]
    environment = {
        "PYTHONPATH": str(ROOT / ".typing"),
        "PATH": os.environ["PATH"],
        "PYTHONWARNINGS": "error",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    settings = json.dumps(tiny(**changes, epochs=2, frames_per_epoch=16 * 4 * 3).to_json())
    done = subprocess.run(
        [*map(str, command), settings, str(step)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": died, with a state") >= 10
    assert done.stdout.count(": died, without a state") >= 1


@each_kind
@pytest.mark.parametrize("stop_after", [1, 5, 6, 11])
def test_a_stopped_run_goes_on_exactly(
    store: FeatureStore,
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    stop_after: int,
) -> None:
    settings, left, real_update = tiny(**changes, epochs=2), [stop_after], HeadTrainer.training_step
    train(store, tmp_path / "whole", settings, device="cpu")

    def update(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise Stopped
        return real_update(*arguments, **options)

    monkeypatch.setattr(HeadTrainer, "training_step", update)
    with pytest.raises(Stopped):
        train(store, tmp_path / "cut", settings, device="cpu", save_seconds=-1.0)
    monkeypatch.setattr(HeadTrainer, "training_step", real_update)
    seen: list[tuple[int, int]] = []
    progress = TrainingProgress(started=lambda _record, _bank, state: seen.append((state.epoch, state.step)))
    train(store, tmp_path / "cut", settings, device="cpu", progress=progress)
    assert seen == [divmod(stop_after, 6)]
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert (tmp_path / "cut" / BEST).read_bytes() == (tmp_path / "whole" / BEST).read_bytes()


def test_a_finished_run_is_left_as_it_is(store: FeatureStore, tiny: Tiny, tmp_path: Path) -> None:
    record = train(store, tmp_path / "run", tiny(epochs=1), device="cpu")
    before = files(tmp_path / "run")
    assert {"run.json", "best.safetensors", "last.pt", "log.csv"} < set(before)
    assert sum(name.startswith("tensorboard/") for name in before) == len(before) - 4 == 1
    again = train(store, tmp_path / "run", tiny(epochs=1), device="cpu")
    assert files(tmp_path / "run") == before
    assert again == record == RunRecord.read(tmp_path / "run")
    assert record.finished


def test_the_history_says_what_was_done(store: FeatureStore, tiny: Tiny, tmp_path: Path, monkeypatch: Any) -> None:
    settings, done, seen = tiny(epochs=2), list[tuple[float, float]](), list[Any]()
    real_update = HeadTrainer.training_step

    def update(*arguments: Any, **options: Any) -> Any:
        loss = real_update(*arguments, **options)
        done.append((float(loss), options["lr"]))
        return loss

    monkeypatch.setattr(HeadTrainer, "training_step", update)
    monkeypatch.setattr(loop, "_READ_SECONDS", 0.0)
    looks: list[EpochProgress] = []
    progress = TrainingProgress(
        started=lambda record, data, state: seen.append(("started", record.num_parameters, data, state.epoch)),
        advanced=looks.append,
        validating=seen.append,
        epoch_done=lambda line, state: seen.append(("epoch", line.epoch, state.best_epoch > 0)),
    )
    record = train(store, tmp_path / "run", settings, device="cpu", progress=progress)
    assert seen == [
        ("started", record.num_parameters, "1,510 rows of 4 (0 MB, ram) on cpu, 1 thread, fp32", 0),
        *("", ("epoch", 1, True)),
        *("", ("epoch", 2, True)),
        "choosing peaks",
    ]
    assert [lr for _, lr in done] == [learning_rate(update, settings) for update in range(12)]
    for number, line in enumerate(record.history):
        of_epoch = done[6 * number : 6 * number + 6]
        assert line.loss == pytest.approx(sum(loss for loss, _ in of_epoch) / 6, rel=1e-6)
        assert line.lr == of_epoch[-1][1]
        assert 0 < line.valid_seconds < line.seconds
    assert [(look.epoch, look.step, look.num_steps) for look in looks] == [
        (1 + update // 6, 1 + update % 6, 6) for update in range(12)
    ]
    assert looks[2].loss == pytest.approx(sum(loss for loss, _ in done[:3]) / 3, rel=1e-6)
    assert looks[0].seconds_left > looks[-1].seconds_left == 0


class Judged:
    """Lets validation find headlines of a list, and keeps the weights that they were about."""

    def __init__(self, *headlines: float) -> None:
        self.headlines, self.weights = list(headlines), list[dict[str, torch.Tensor]]()

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = HeadTrainer.validate

        def validated(trainer: HeadTrainer) -> Any:
            model = trainer.kept_model
            self.weights.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
            return real(trainer)

        monkeypatch.setattr(HeadTrainer, "validate", validated)
        monkeypatch.setattr(Evaluator, "validate", lambda *_: self.result(len(self.weights) - 1))

    def result(self, number: int) -> ValidationResult:
        headline = self.headlines[number]
        return ValidationResult(headline, headline / 2, {"PASS": headline, "DRIVE": 0.0})


@pytest.mark.parametrize(("changes", "best"), [({}, 2), ({"ema": 0.9}, 2), ({"keep": "last"}, 4)])
def test_the_weights_of_the_best_epoch_are_kept(
    store: FeatureStore,
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    best: int,
) -> None:
    judged = Judged(0.2, 0.6, 0.6, 0.4)
    judged.watch(monkeypatch)
    record = train(store, tmp_path / "run", tiny(epochs=4, **changes), device="cpu")
    assert (record.best_epoch, record.best) == (best, judged.result(best - 1))
    kept = load_file(tmp_path / "run" / BEST)
    assert set(kept) == set(judged.weights[best - 1])
    for name, tensor in judged.weights[best - 1].items():
        assert torch.equal(kept[name], tensor), name
    assert any(not torch.equal(kept[name], tensor) for name, tensor in judged.weights[2].items())


def test_the_kept_inputs_are_fitted_exactly(store: FeatureStore, tiny: Tiny, tmp_path: Path) -> None:
    for ema in (0.0, 0.99):
        train(store, tmp_path / str(ema), tiny(epochs=1, ema=ema, inputs="standard"), device="cpu")
    plain, averaged = (load_file(tmp_path / str(ema) / BEST) for ema in (0.0, 0.99))
    rows = torch.cat([torch.from_numpy(store.rows(each)[:].astype("f4")) for each in ("liga/a", "liga/b")])
    torch.testing.assert_close(plain["inputs.mean_d"], rows.mean(0))
    for name in ("inputs.mean_d", "inputs.std_d"):
        assert torch.equal(averaged[name], plain[name])


def test_training_stops_where_validation_does_not_improve_enough(
    store: FeatureStore, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = Judged(0.30, 0.34, 0.33, 0.34, 0.38, 0.9, 0.9)
    judged.watch(monkeypatch)
    settings = tiny(epochs=7, patience=2, min_improvement=100.0)  # the loss falls below nothing by that much
    record = train(store, tmp_path / "run", settings, device="cpu")
    assert [line.headline for line in record.history] == [0.30, 0.34, 0.33, 0.34]
    assert all(line.valid_loss is not None and line.valid_loss > 0 for line in record.history)
    assert record.best_epoch == 2
    assert record.finished


def test_states_are_saved_a_while_apart(
    store: FeatureStore, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, saved = [0.0], []

    def monotonic() -> float:
        clock[0] += 1.0  # one look at it per step, one at the start of an epoch and one at its end
        return clock[0]

    def write_checkpoint(_path: Path, _trainer: HeadTrainer, state: LoopState) -> None:
        saved.append((state.epoch, state.step))

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=monotonic))
    monkeypatch.setattr(loop, "write_checkpoint", write_checkpoint)
    settings = tiny(epochs=2, frames_per_epoch=16 * 4 * 10)
    train(store, tmp_path / "run", settings, device="cpu", save_seconds=3.5)
    assert saved == [(0, 4), (0, 8), (1, 0), (1, 4), (1, 8), (2, 0)]


def test_a_loss_that_is_no_number_ends_the_run(store: FeatureStore, tiny: Tiny, tmp_path: Path) -> None:
    settings = tiny(lr=9.0, weight_decay=1e30, warmup_epochs=0)
    with pytest.raises(InputError, match=r"the loss is no number in epoch 1, step [2-6]\n") as error:
        train(store, tmp_path / "run", settings, device="cpu")
    assert "lower --lr" in error.value.cure
    assert not (tmp_path / "run" / LAST).exists()
    assert not (tmp_path / "run" / ".lock").exists()


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_run_of_other_settings_is_refused_and_left_alone(
    store: FeatureStore,
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_finished: bool,
) -> None:
    with monkeypatch.context() as patch:
        if not is_finished:
            patch.setattr(Evaluator, "choose", lambda *_: (_ for _ in ()).throw(Stopped))
        try:
            train(store, tmp_path / "run", tiny(epochs=1), device="cpu")
        except Stopped:
            assert not is_finished
    before = files(tmp_path / "run")
    with pytest.raises(InputError, match="holds a run with other settings; these differ: epochs, seed\n"):
        train(store, tmp_path / "run", tiny(epochs=9, seed=3), device="cpu")
    assert files(tmp_path / "run") == before


def test_folders_of_other_things_are_refused_and_left_alone(store: FeatureStore, tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="a folder with other things in it"):
        train(store, tmp_path, tiny(), device="cpu")
    with pytest.raises(InputError, match=r"notes\.txt: not a run\n  got:    a file"):
        train(store, tmp_path / "notes.txt", tiny(), device="cpu")
    with pytest.raises(InputError, match="cannot be written"):
        train(store, tmp_path / "notes.txt" / "run", tiny(), device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    (tmp_path / "empty").mkdir()
    assert train(store, tmp_path / "empty", tiny(epochs=1), device="cpu").finished


def test_a_folder_in_use_is_refused(store: FeatureStore, tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    lock = FileLock.acquire(tmp_path / "run" / ".lock", wait_seconds=0.0)
    assert lock is not None
    with lock, pytest.raises(InputError, match="run: in use") as error:
        train(store, tmp_path / "run", tiny(), device="cpu")
    assert str(error.value.got).startswith(f"pid {os.getpid()} on ")


def test_devices_are_chosen_by_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    absent: tuple[loop.Device, ...] = ("cuda", "mps")
    for name in absent:
        with pytest.raises(InputError, match="--device is not usable") as error:
            choose_device(name)
        assert error.value.wanted == "auto, cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda")


def test_records_name_the_run(store: FeatureStore, tiny: Tiny, tmp_path: Path) -> None:
    settings = tiny(epochs=1)
    record = train(store, tmp_path / "run", settings, device="cpu")
    chosen = choose_matches(store, stride=2)
    assert record.settings == settings
    assert record.train_matches + record.valid_matches == tuple(chosen.ids)
    assert record.best is not None
    assert record.chosen is not None
    assert record.chosen.headline >= record.best.headline - 1e-9  # the default peaks are among the candidates
    assert isinstance(record.history[0], EpochLine)
    written = json.loads((tmp_path / "run" / RUN).read_text())
    assert written == {"format": FORMAT, **json.loads(json.dumps(record.to_json()))}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="NO CUDA DEVICE: training there is not tested")
def test_runs_train_and_go_on_on_cuda(store: FeatureStore, tiny: Tiny, tmp_path: Path) -> None:
    record = train(store, tmp_path / "run", tiny(epochs=3, ema=0.5), device="cuda", save_seconds=-1.0)
    assert record.finished
    first = sum(line.loss for line in record.history[:1])
    assert record.history[-1].loss < first
