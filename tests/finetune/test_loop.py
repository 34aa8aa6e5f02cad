"""Finetuning: exact resume, what is kept, folders that are refused, losses that are no number, and the run at work."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bas.cache.store import FeatureStore
from bas.data.sources import find_sources
from bas.errors import InputError
from bas.extract.backbones.weights import BACKBONE, load_weights
from bas.extract.extractor import Extractor, follow_run
from bas.extract.options import ExtractOptions
from bas.extract.options import ExtractRunOptions as ExtractRun
from bas.extract.run import extract
from bas.finetune.network import FinetuneNet
from bas.finetune.start import Start
from bas.finetune.trainer import ClipTrainer
from bas.heads.ensemble import LoadedRun
from bas.heads.model import build_model
from bas.heads.training.checkpoint import BEST, FORMAT, LAST, LOG, RUN, RunRecord
from bas.heads.training.evaluator import Evaluator, ValidationResult
from bas.heads.training.loop import train as train_head
from bas.heads.training.settings import FinetuneSettings, TrainSettings

pytestmark = pytest.mark.usefixtures("one_thread")
Tiny = Callable[..., FinetuneSettings]
Train = Callable[..., RunRecord]
Begin = Callable[..., Start]
Cli = Callable[..., int]
ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT / ".typing"),
    "PATH": os.environ["PATH"],
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "error,ignore:.*torch.jit.*",
}
CPU = torch.device("cpu")


class Stopped(Exception):  # noqa: N818 (no error of ours)
    """Ends a run from outside."""


def files(out: Path) -> dict[str, tuple[bytes, int]]:
    paths = [path for path in sorted(out.rglob("*")) if path.is_file()]
    return {str(path.relative_to(out)): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def judged(monkeypatch: pytest.MonkeyPatch, *headlines: float) -> list[dict[str, torch.Tensor]]:
    """Let validation find these headlines; the backbones that they are about."""
    weights: list[dict[str, torch.Tensor]] = []
    real = ClipTrainer.validate

    def validated(trainer: ClipTrainer) -> Any:
        backbone = trainer.kept_model.backbone
        weights.append({name: tensor.clone() for name, tensor in backbone.state_dict().items()})
        return real(trainer)

    def validate(*_: object) -> ValidationResult:
        headline = headlines[len(weights) - 1]
        return ValidationResult(headline, headline, {"LEFT": headline, "RIGHT": headline})

    monkeypatch.setattr(ClipTrainer, "validate", validated)
    monkeypatch.setattr(Evaluator, "validate", validate)
    return weights


def same_tensors(module: torch.nn.Module, wanted: dict[str, torch.Tensor]) -> bool:
    """But for the count of batches, which no forward pass needs."""
    names = {name for name in wanted if not name.endswith("num_batches_tracked")}
    found = module.state_dict()
    return all(torch.equal(found[name], wanted[name]) for name in names)


def poisoned(monkeypatch: pytest.MonkeyPatch, update: int, where: str) -> None:
    """Let an update (from 1) spoil its loss, or a weight beside a good loss."""
    left, real = [update], ClipTrainer.training_step

    def spoil(self: ClipTrainer, *arguments: Any, **options: Any) -> torch.Tensor:
        left[0] -= 1
        loss = real(self, *arguments, **options)
        if left[0] == 0:
            next(self.model.backbone.parameters()).data.fill_(float("nan"))
            return loss * float("nan") if where == "loss" else loss
        return loss

    monkeypatch.setattr(ClipTrainer, "training_step", spoil)


@pytest.mark.slow
def test_killed_runs_end_as_uninterrupted_ones(videos: Path, tiny: Tiny, tmp_path: Path) -> None:
    settings = tiny(
        head="transformer",
        options={"transformer.width": 16, "transformer.num_heads": 2, "transformer.feed_forward": 16},
        proj=16,
        mixup=0.3,
        ema=0.9,
        inputs="standard",
        accumulate=2,
    )
    command = [sys.executable, ROOT / "tests" / "heads" / "training" / "train_child.py", videos, tmp_path]
    done = subprocess.run(
        [*map(str, command), json.dumps(settings.to_json())],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count(": died, with a state") == 5


def test_a_stopped_run_goes_on_exactly(
    train: Train, tiny: Tiny, start: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped within the first epoch, gone on with, and stopped again right after it."""
    settings, left, real = tiny(inputs="standard", norm="batch"), [0], ClipTrainer.training_step
    begun = start(settings, "x3d_xs", depth=4)
    train(tmp_path / "whole", settings, begun)

    def training_step(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise Stopped
        return real(*arguments, **options)

    monkeypatch.setattr(ClipTrainer, "training_step", training_step)
    for num_steps in (2, 1):
        left[0] = num_steps
        with pytest.raises(Stopped):
            train(tmp_path / "cut", settings, begun, save_seconds=-1.0)
    monkeypatch.setattr(ClipTrainer, "training_step", real)
    with pytest.raises(InputError, match="the run is not finished") as error:
        LoadedRun.load(tmp_path / "cut", CPU)
    assert "`bas finetune ... --out" in error.value.cure
    train(tmp_path / "cut", settings, begun)
    logs = [
        [line.split(",")[:5] for line in (tmp_path / out / LOG).read_text().splitlines()] for out in ("whole", "cut")
    ]
    assert logs[0] == logs[1]
    for file in (BEST, BACKBONE):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_a_finished_run_is_left_as_it_is(train: Train, tiny: Tiny, tmp_path: Path) -> None:
    record = train(tmp_path / "run", tiny(epochs=1))
    before = files(tmp_path / "run")
    assert {RUN, BEST, BACKBONE, LAST, LOG} < set(before)
    assert train(tmp_path / "run", tiny(epochs=1)) == record == RunRecord.read(tmp_path / "run")
    assert files(tmp_path / "run") == before
    assert record.finished
    assert record.is_finetuned
    assert record.features.weights == BACKBONE
    assert record.began_with.weights == "none"
    written = json.loads((tmp_path / "run" / RUN).read_text())
    assert written == {"format": FORMAT, **json.loads(json.dumps(record.to_json()))}


def test_another_run_is_refused_by_name_and_left_alone(
    train: Train, tiny: Tiny, start: Begin, tmp_path: Path, pulse_store: Callable[..., Path]
) -> None:
    run, settings = tmp_path / "run", tiny(epochs=1)
    train(run, settings)
    before = files(run)
    others: list[tuple[FinetuneSettings, dict[str, Any], dict[str, Any], str]] = [
        (tiny(epochs=1, unfreeze=2, lr=1e-4), {}, {}, "lr, unfreeze"),
        (tiny(epochs=1, augment="none"), {}, {}, "augment"),
        (settings, {"size": (64, 48)}, {}, "features.width, features.height"),
        (settings, {"weights": str(run / BACKBONE)}, {}, "features.weights, features.weights_sha256"),
        (settings, {}, {"classes": ["RIGHT", "LEFT"]}, "classes"),
        (settings, {}, {"valid": ["x"]}, "valid_matches"),
    ]
    for changed, asked, matches, names in others:
        with pytest.raises(InputError, match=f"holds a run with other settings; these differ: {names}\n"):
            train(run, changed, start(changed, **asked), **matches)
    store = FeatureStore.open(pulse_store(tmp_path / "s.zarr", classes=("LEFT", "RIGHT")))
    of_head = TrainSettings(head="fc", epochs=1, clip_len=8, frames_per_epoch=64)
    with pytest.raises(InputError, match="holds a run of another kind\n  got:    bas finetune"):
        train_head(store, run, of_head, device="cpu")
    assert files(run) == before
    train_head(store, tmp_path / "head", of_head, device="cpu")
    with pytest.raises(InputError, match="holds a run of another kind\n  got:    bas train-head"):
        train(tmp_path / "head", settings)


@pytest.mark.parametrize("changes", [{}, {"ema": 0.6}, {"keep": "last"}])
def test_the_weights_of_the_best_epoch_are_kept(
    train: Train, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    weights = judged(monkeypatch, 0.2, 0.6, 0.6, 0.4, 0.4)
    record = train(tmp_path / "run", tiny(epochs=5, frames_per_epoch=32, patience=2, min_improvement=100.0, **changes))
    assert [line.headline for line in record.history] == [0.2, 0.6, 0.6, 0.4]
    assert record.best_epoch == (4 if "keep" in changes else 2)
    kept, _ = load_weights("timm:test_resnet.r160_in1k", None, str(tmp_path / "run" / BACKBONE))
    assert same_tensors(kept, weights[record.best_epoch - 1])
    assert not same_tensors(kept, weights[0])


@pytest.mark.parametrize(
    ("update", "where", "message"),
    [
        (2, "loss", "the loss is no number in epoch 1, step 2"),
        (5, "weight", "weights are no numbers after epoch 2, step 2"),
        (6, "weight", "weights are no numbers after epoch 2, step 3"),
    ],
)
def test_no_number_ends_the_run_and_what_was_kept_is_good(
    train: Train, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update: int, where: str, message: str
) -> None:
    settings, run = tiny(epochs=3), tmp_path / "run"
    with monkeypatch.context() as patch:
        poisoned(patch, update, where)
        with pytest.raises(InputError, match=message) as error:
            train(run, settings, save_seconds=-1.0)
    assert error.value.cure == "another --out with a lower --lr or --backbone-lr, or --max-grad-norm 1"
    assert (run / BEST).exists() == (run / BACKBONE).exists() == (update > 3)
    for file in [run / name for name in (BEST, BACKBONE) if (run / name).exists()]:
        assert all(bool(torch.isfinite(tensor).all()) for tensor in load_file(file).values()), file
    if (run / LAST).exists():
        kept = torch.load(run / LAST, weights_only=True)["model"]
        assert all(bool(torch.isfinite(tensor).all()) for tensor in kept.values())
    if update > 3:
        load_weights("timm:test_resnet.r160_in1k", None, str(run / BACKBONE))
    assert len(RunRecord.read(run).history) == (update > 3)
    assert train(run, settings).finished  # what is saved is good to go on with


def test_bf16_names_its_own_cure(train: Train, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned(monkeypatch, 1, "loss")
    with pytest.raises(InputError) as error:
        train(tmp_path / "run", tiny(precision="bf16"))
    assert error.value.cure.endswith("or --precision fp32")


def test_pictures_that_the_device_resizes_are_refused(train: Train, tiny: Tiny, start: Begin, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pictures that the device resizes are not for finetuning"):
        train(tmp_path / "run", tiny(), start(tiny(), scaler="torch-bilinear"))
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").iterdir())


@pytest.fixture(scope="module")
def tuned(train: Train, tiny: Tiny, start: Begin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a 3-D network."""
    settings = tiny(epochs=1, lr=5e-3)
    folder = tmp_path_factory.mktemp("tuned") / "run"
    train(folder, settings, start(settings, "x3d_xs", depth=4))
    return folder


def test_extraction_gives_the_rows_that_the_network_computes_inside(
    tuned: Path, write_match: Any, tmp_path: Path
) -> None:
    """Of a video as long as one window: no row is a mean of two."""
    record = RunRecord.read(tuned)
    settings, features = record.settings, record.features
    write_match(tmp_path / "m", num_frames=settings.clip_len * settings.stride, seed=9, gap_frames=8)
    extractor = Extractor.like(features, weights=str(tuned), kind="torch", device="cpu")
    video = extractor.open(tmp_path / "m" / "224p.mp4")
    rows = np.concatenate([block.rows["identity"] for block in extractor.rows(video)]).astype(np.float32)
    pictures = torch.from_numpy(np.stack([frame.image for frame in video.frames()]))

    assert isinstance(settings, FinetuneSettings)
    begun = load_weights("x3d_xs", 4, "none")[0]
    model = build_model(settings, dim=features.dim, num_classes=2)
    net = FinetuneNet(begun, model, features=features, settings=settings)
    net.backbone.load_state_dict(load_weights("x3d_xs", 4, str(tuned / BACKBONE))[0].state_dict())
    net.eval()
    with torch.inference_mode():
        for phase in range(settings.stride):
            inside = net.rows(pictures[None, phase :: settings.stride])[0].numpy()
            assert np.abs(rows[phase :: settings.stride] - inside).max() <= 1e-4 * max(1.0, np.abs(inside).max())
    assert np.abs(rows).max() > 1e-2
    assert not same_tensors(net.backbone, load_weights("x3d_xs", 4, "none")[0].state_dict())


def test_validation_and_prediction_see_what_extraction_stores(
    tuned: Path, videos: Path, bas: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`bas predict` on the video, on a store made by `--weights RUN`, and the run's own validation agree."""
    options = follow_run(ExtractOptions(weights=str(tuned)))
    assert extract(find_sources([videos]), tmp_path / "s.zarr", options, ExtractRun(engine="torch")).complete
    run = ("--run", tuned, "--engine", "torch", "--device", "cpu")
    assert bas("predict", tmp_path / "s.zarr", *run, "--split", "valid", "--out", tmp_path / "store") == 0
    assert bas("predict", videos, *run, "--split", "valid", "--out", tmp_path / "videos") == 0
    results = [sorted((tmp_path / out).rglob("results_spotting.json")) for out in ("store", "videos")]
    assert [path.parent.name for path in results[0]] == ["x", "y"]
    assert [path.read_bytes() for path in results[0]] == [path.read_bytes() for path in results[1]]
    assert all(json.loads(path.read_text())["predictions"] for path in results[0])
    capsys.readouterr()
    assert bas("eval", videos, tmp_path / "store", "--split", "valid", "--metric", "at1", "--json") == 0
    chosen, scored = RunRecord.read(tuned).chosen, json.loads(capsys.readouterr().out)
    assert chosen is not None
    found = {each["label"]: each["score"]["value"] for each in scored["classes"]}
    assert found == pytest.approx(chosen.per_class, abs=1e-9)


def test_a_run_begins_with_the_head_and_backbone_of_a_finetuned_one(
    tuned: Path, train: Train, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = LoadedRun.load(tuned, CPU)
    settings = tiny(epochs=1, begun_from=member.weights_sha256)
    begun = Start.of(settings, ExtractOptions(), member)
    assert begun.features == member.record.features
    wanted = load_weights("x3d_xs", 4, str(tuned / BACKBONE))[0].state_dict()
    assert same_tensors(begun.backbone, wanted)
    seen: list[dict[str, torch.Tensor]] = []
    real = ClipTrainer.training_step

    def training_step(self: ClipTrainer, *arguments: Any, **options: Any) -> Any:
        if not seen:
            seen.append({name: tensor.clone() for name, tensor in self.model.spotting.state_dict().items()})
        return real(self, *arguments, **options)

    monkeypatch.setattr(ClipTrainer, "training_step", training_step)
    record = train(tmp_path / "run", settings, begun)
    head = load_file(tuned / BEST)
    assert set(head) == set(seen[0])
    assert all(torch.equal(tensor, head[name]) for name, tensor in seen[0].items())
    assert record.began_with == member.record.features
    with pytest.raises(InputError, match="its head knows other classes\n  got:    LEFT, RIGHT\n  wanted: LEFT"):
        train(tmp_path / "other", settings, begun, classes=["LEFT"])
    with pytest.raises(InputError, match="its head has other settings; these differ: head"):
        Start.of(tiny(head="tcn"), ExtractOptions(), member)
    with pytest.raises(InputError, match="these differ: backbone"):
        Start.of(settings, ExtractOptions(backbone="timm:test_resnet.r160_in1k", weights="none"), member)
    with pytest.raises(InputError, match="weights_sha256"):
        Start.of(settings, ExtractOptions(weights="none"), member)


def test_a_run_begins_with_a_head_of_stage_two(
    train: Train, tiny: Tiny, videos: Path, tmp_path: Path, start: Begin
) -> None:
    settings = tiny(epochs=1)
    features = start(settings).features
    asked = ExtractOptions(backbone=features.backbone, weights="none", size=(48, 32))
    assert extract(find_sources([videos]), tmp_path / "s.zarr", asked, ExtractRun(engine="torch")).complete
    of_head = TrainSettings(head="fc", proj=0, clip_len=8, epochs=1, frames_per_epoch=320, inputs="standard")
    train_head(FeatureStore.open(tmp_path / "s.zarr"), tmp_path / "head", of_head, device="cpu")
    member = LoadedRun.load(tmp_path / "head", CPU)
    with pytest.raises(InputError, match="these differ: inputs"):
        Start.of(settings, ExtractOptions(), member)
    settings = tiny(epochs=1, inputs="standard", norm="frozen", lr=1e-9, begun_from=member.weights_sha256)
    begun = Start.of(settings, ExtractOptions(), member)
    assert begun.features == features
    record = train(tmp_path / "run", settings, begun)
    assert record.best is not None
    assert member.record.best is not None  # nothing has learned: validation is that of stage two
    assert record.best.headline == pytest.approx(member.record.best.headline, abs=0.02)
