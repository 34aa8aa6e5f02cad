"""Published systems as runs: checkpoints with their names and shapes, made here, through the command line."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bas import published
from bas.cache.store import FeatureStore
from bas.errors import InputError
from bas.eval.peaks import PeakSettings
from bas.extract.backbones.nets import build_timm
from bas.extract.backbones.tensor_files import read_tensors
from bas.extract.backbones.weights import FinetunedRun
from bas.finetune.published_names import bare_names, fill_head, tdeed_head
from bas.heads.ensemble import LoadedRun
from bas.heads.model import build_model
from bas.heads.training.settings import TrainSettings
from bas.predict import predict
from bas.published import ORIGIN, PUBLISHED, convert, run_folder

pytestmark = pytest.mark.usefixtures("one_thread")
Cli = Callable[..., int]
Tensors = dict[str, Tensor]
OSL = "osl-snbas-2023"
CLASSES = ("PASS", "DRIVE")


def regnety_gsm(prefix: str) -> Tensors:
    """RegNetY-002 of timm with a gate in every block, by E2E-Spot's names."""
    tensors: Tensors = {}
    for name, tensor in build_timm("regnety_002").state_dict().items():
        stage, block, part = (*name.split(".", 2), "", "")[:3]
        if not part.startswith("conv1."):
            tensors[prefix + name] = tensor
            continue
        at = f"{prefix}{stage}.{block}.conv1"
        tensors[f"{at}.net.{part.removeprefix('conv1.')}"] = tensor
        if part == "conv1.conv.weight":
            fold = -(-(tensor.shape[1] // 4) // 4) * 4
            tensors[f"{at}.gsm.conv3D.weight"] = 0.1 * torch.randn(2, fold // 2, 3, 3, 3)
            tensors[f"{at}.gsm.conv3D.bias"] = torch.zeros(2)
            for part_name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
                tensors[f"{at}.gsm.bn.{part_name}"] = torch.full((fold,), value)
            tensors[f"{at}.gsm.bn.num_batches_tracked"] = torch.tensor(7)
    return tensors


def gru_head(prefix: str, num_classes: int) -> Tensors:
    gru, fc = nn.GRU(368, 368, bidirectional=True), nn.Linear(736, num_classes + 1)
    fc.weight.data.mul_(20)
    tensors = {f"{prefix}_gru.{name}": tensor for name, tensor in gru.state_dict().items()}
    return tensors | {f"{prefix}_fc_out._fc_out.{name}": tensor for name, tensor in fc.state_dict().items()}


@pytest.fixture(scope="module")
def osl_tensors() -> Tensors:
    """As opensportslib names them on several GPUs."""
    torch.manual_seed(0)
    return regnety_gsm("module.backbone._features.") | gru_head("module.head._pred_fine.", 2)


@pytest.fixture(scope="module")
def checkpoint(osl_tensors: Tensors, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As opensportslib's trainer saves it: the best score is a number of numpy."""
    file = tmp_path_factory.mktemp("osl") / "model.pt"
    state = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.01}]}
    best = np.mean(np.array([0.4, 0.5]))
    torch.save(
        {"epoch": 5, "model_state_dict": osl_tensors, "optimizer_state_dict": state, "best_criterion_valid": best}, file
    )
    return file


@pytest.fixture(scope="module")
def run(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "osl"
    convert(checkpoint, OSL, folder)
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def hub_of(folder: Path, asked: list[tuple[str, Any]]) -> Callable[..., str]:
    def snapshot_download(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(folder)

    return snapshot_download


def told(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


def test_the_run_is_as_the_system_was(run: Path, osl_tensors: Tensors) -> None:
    loaded = LoadedRun.load(run, torch.device("cpu"))
    record, features = loaded.record, loaded.record.features
    assert record.classes == CLASSES
    assert record.peaks == PeakSettings("hard", window_frames=2, sigma_frames=0.0, threshold=0.01)
    assert (str(record.fps), features.backbone, features.window, features.hop) == ("25/12", "regnety_002+gsm", 100, 50)
    assert (features.width, features.height, features.fit) == (398, 224, "stretch")
    assert FinetunedRun.read(run).features == features
    assert not record.caveats
    rows_btc = torch.randn(1, 30, 368)
    gru = nn.GRU(368, 368, bidirectional=True, batch_first=True)
    own = bare_names(osl_tensors)
    gru.load_state_dict({name: own[f"_pred_fine._gru.{name}"] for name in gru.state_dict()})
    with torch.no_grad():
        hidden = gru(rows_btc)[0]
        fc = [own[f"_pred_fine._fc_out._fc_out.{name}"] for name in ("weight", "bias")]
        wanted = functional.linear(hidden, *fc).softmax(-1)[..., 1:]
        found = loaded.model.scores(loaded.model(rows_btc))
    assert wanted.std(1).max() > 0.05
    torch.testing.assert_close(found, wanted)


def test_predict_extract_and_finetune_begin_from_it(
    bas: Cli, checkpoint: Path, games: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One download, one conversion."""
    asked: list[tuple[str, Any]] = []
    monkeypatch.setitem(PUBLISHED, OSL, replace(PUBLISHED[OSL], size=(96, 54)))  # quicker
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub_of(checkpoint.parent, asked))
    video = games / "test" / "game-test" / "224p.mp4"
    out = tmp_path / "out"
    assert bas("predict", video, "--run", f"hub:{OSL}", "--out", out, "--engine", "torch") == 0
    record = json.loads((out / "prediction.json").read_text())
    assert record["made_with"]["classes"] == list(CLASSES)
    assert record["peaks_from"].endswith("as published")
    [folder] = (cache / "weights" / "runs").iterdir()
    assert json.loads((folder / ORIGIN).read_text())["place"] == PUBLISHED[OSL].place
    before = (folder / "run.json").stat().st_mtime_ns
    store = tmp_path / "s.zarr"
    assert bas("extract", video, "--weights", f"hub:{OSL}", "--out", store, "--engine", "torch") == 0
    origin = FeatureStore.open(store).origin
    assert FeatureStore.open(store).settings == LoadedRun.load(folder, torch.device("cpu")).record.features
    assert origin is not None
    predict(store, f"hub:{OSL}", tmp_path / "again")
    spots = [next(each.rglob("results_spotting.json")) for each in (out, tmp_path / "again")]
    assert len({json.dumps(json.loads(path.read_text())["predictions"]) for path in spots}) == 1
    tuned, short = tmp_path / "tuned", ("--clip-len", 4, "--batch", 1, "--epochs", 1, "--frames-per-epoch", 4)
    options = ("--from", f"hub:{OSL}", "--classes", "PASS,DRIVE", "--unfreeze", 0, "--engine", "torch", "--out", tuned)
    assert bas("finetune", games, *options, *short) == 0
    assert json.loads((tuned / "run.json").read_text())["settings"]["begun_from"]
    assert (folder / "run.json").stat().st_mtime_ns == before
    assert [name for name, _ in asked] == ["OpenSportsLab/OSL-loc-snbas-2023-e2e"]


def test_without_a_network(
    bas: Cli, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unreachable(_name: str, *, allow_patterns: list[str]) -> str:
        raise ConnectionError(f"no route for {allow_patterns[0]}")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    monkeypatch.setitem(PUBLISHED, "e2e-spot-v2", replace(PUBLISHED["e2e-spot-v2"], place="http://127.0.0.1:9/x.pt"))
    for name in (OSL, "e2e-spot-v2", "t-deed-ball"):
        assert bas("predict", "x.mp4", "--run", f"hub:{name}", "--out", tmp_path / "out") == 2
        error = told(capsys)
        assert f"bas weights --convert FILE --as {name} --out RUN" in error
    assert "drive.google.com" in error
    assert bas("predict", "x.mp4", "--run", "hub:nothing", "--out", tmp_path / "out") == 2
    assert "osl-snbas-2025" in told(capsys)
    assert not list(cache.rglob("run.json"))


def test_several_files_on_the_hub_are_not_guessed_at(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one.pt", "two.pt"):
        (tmp_path / "hub" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "hub" / name).write_bytes(b"")
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub_of(tmp_path / "hub", []))
    with pytest.raises(InputError, match="not clear") as error:
        run_folder(f"hub:{OSL}")
    assert error.value.got == "one.pt, two.pt"
    assert not cache.exists()


def test_a_file_converts_by_the_command_line_and_follows_the_config_beside_it(
    bas: Cli, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model.pt"
    os.link(checkpoint, file)
    (tmp_path / "config.yaml").write_text("DATA:\n  clip_len: 64\n  input_fps: 25\n  extract_fps: 12  # a second\n")
    assert bas("weights", "--convert", file, "--as", f"hub:{OSL}", "--out", tmp_path / "run") == 0
    features = FinetunedRun.read(tmp_path / "run").features
    assert (features.fps, features.window) == ("25/2", 64)
    assert bas("weights", "--convert", file, "--as", OSL, "--out", tmp_path / "run") == 2
    assert bas("weights", "--convert", file, "--as", OSL) == 2
    assert "go together" in told(capsys)
    (tmp_path / "config.yaml").write_text("extract_fps: 60\n")
    assert bas("weights", "--convert", file, "--as", OSL, "--out", tmp_path / "other") == 2
    assert not (tmp_path / "other").exists()


class Evil:
    """Runs when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/bas-was-run",)


@pytest.mark.parametrize("fault", ["missing", "classes", "code", "damaged", "unlike", "no file", "trunk"])
def test_files_that_are_none_of_it(
    bas: Cli, fault: str, osl_tensors: Tensors, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, held = tmp_path / "bad.pt", dict[str, Any](osl_tensors)
    wanted = {
        "missing": "its head does not fit",
        "classes": "it knows other classes",
        "code": "would execute code",
        "damaged": "damaged",
        "unlike": "no checkpoint of these systems",
        "no file": "no such file",
        "trunk": "do not fit the backbone",
    }[fault]
    if fault == "missing":
        del held["module.head._pred_fine._gru.weight_ih_l0_reverse"]
    elif fault == "classes":
        held |= {name: each for name, each in gru_head("module.head._pred_fine.", 17).items() if "_fc_out" in name}
    elif fault == "code":
        held["x"] = Evil()
    elif fault == "trunk":
        del held["module.backbone._features.s2.b1.conv2.conv.weight"]
    elif fault == "unlike":
        held = {"fc.weight": torch.zeros(3)}
    torch.save(held, file)
    if fault == "damaged":
        file.write_bytes(file.read_bytes()[:5000])
    elif fault == "no file":
        file.unlink()
    assert bas("weights", "--convert", file, "--as", OSL, "--out", tmp_path / "run") == 2
    assert wanted in told(capsys)
    assert not (tmp_path / "run").exists()
    assert not Path("/tmp/bas-was-run").exists()
    assert [path.name for path in tmp_path.iterdir()] == ([] if fault == "no file" else ["bad.pt"])


def test_a_numpy_number_is_read_over_and_nothing_else_of_numpy(tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    for scalar in (np.float64(0.5), np.float32(0.5), np.int64(3)):
        torch.save({"state_dict": {"w": torch.ones(2)}, "best": scalar}, file)
        assert list(read_tensors(file)[0]) == ["w"]
    torch.save({"state_dict": {"w": torch.ones(2)}, "best": np.ones(3)}, file)
    with pytest.raises(InputError, match="would execute code"):
        read_tensors(file)


def test_weights_lists_them(bas: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    assert bas("weights", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [each["model"] for each in listed if "model" in each] == [f"hub:{name}" for name in PUBLISHED]
    assert any(each.get("backbone") == "x3d_s" for each in listed)
    assert bas("weights", "hub:osl-snbas-2025") == 0
    text = capsys.readouterr().out
    for part in ("AGPL-3.0", "47.98", "OpenSportsLab/OSL-loc-snbas-2025-e2e", "PLAYER SUCCESSFUL"):
        assert part in text
    assert all(model.licence and model.figure and model.source and model.peaks for model in PUBLISHED.values())
    assert all(len(set(model.classes)) == len(model.classes) for model in published.PUBLISHED.values())


def tdeed_tensors(*, width: int, num_steps: int, depth: int) -> Tensors:
    """The head of T-DEED by its names, with a second classifier and a team output as two of its programs save it."""
    tensors: Tensors = {"temp_enc": torch.randn(num_steps, width)}

    def conv(at: str, dim_out: int, dim_in: int, taps: int = 1) -> None:
        tensors[f"{at}.weight"] = 0.3 * torch.randn(dim_out, dim_in, taps)
        tensors[f"{at}.bias"] = 0.3 * torch.randn(dim_out)

    def block(at: str, levels: tuple[str, ...]) -> None:
        for level in levels:
            tensors[f"{at}.ln{level}.weight"], tensors[f"{at}.ln{level}.bias"] = torch.randn(2, 1, width, 1).unbind()
            for part, taps in (("psi", 3), ("convw", 3), ("convkw", 17), ("fc", 1), ("global_fc", 1)):
                conv(f"{at}.{part}{level}", width, 1, taps)
        tensors[f"{at}.gn.weight"], tensors[f"{at}.gn.bias"] = torch.randn(2, width).unbind()
        conv(f"{at}.mlp.0", 4 * width, width)
        conv(f"{at}.mlp.2", width, 4 * width)

    for number in range(2 * depth + 1):
        block(f"_temp_fine._sgp.{number}", ("",))
    for number in range(depth):
        block(f"_temp_fine._sgpMixer.{number}", ("1", "2"))
        conv(f"_temp_fine._sgpMixer.{number}.concat_fc", width, 6 * width)
    for at, dim in (("_pred_fine._fc1", 13), ("_pred_fine._fc2", 18), ("_pred_displ", 1), ("_pred_team", 1)):
        tensors[f"{at}._fc_out.weight"], tensors[f"{at}._fc_out.bias"] = torch.randn(dim, width), torch.randn(dim)
    return tensors


def tdeed_outputs(tensors: Tensors, x_bct: Tensor, *, depth: int) -> tuple[Tensor, Tensor]:
    """Logits and displacement as T-DEED's paper and names say; (B, C, T) all along."""

    def get(at: str) -> tuple[Tensor, Tensor]:
        return tensors[f"{at}.weight"], tensors[f"{at}.bias"]

    def conv(x: Tensor, at: str) -> Tensor:
        weight, bias = get(at)
        return functional.conv1d(x, weight, bias, padding=weight.shape[-1] // 2, groups=x.shape[1] // weight.shape[1])

    def norm(x: Tensor, at: str) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        weight, bias = get(at)
        return centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt() * weight + bias

    def branches(y: Tensor, at: str, level: str) -> tuple[Tensor, Tensor]:
        window = (conv(y, f"{at}.convw{level}") + conv(y, f"{at}.convkw{level}")) * conv(y, f"{at}.psi{level}")
        mean = conv(y.mean(-1, keepdim=True), f"{at}.global_fc{level}")
        return window, conv(y, f"{at}.fc{level}") * mean.relu()

    def mlp(x: Tensor, at: str) -> Tensor:
        hidden = conv(functional.group_norm(x, 16, *get(f"{at}.gn")), f"{at}.mlp.0")
        return x + conv(functional.gelu(hidden), f"{at}.mlp.2")

    def sgp(x: Tensor, number: int) -> Tensor:
        at = f"_temp_fine._sgp.{number}"
        y = norm(x, f"{at}.ln")
        return mlp(x + sum(branches(y, at, "")) + y, at)

    x_bct, skips = x_bct + tensors["temp_enc"].T, []
    for number in range(depth):
        x_bct = sgp(x_bct, number)
        skips.append(x_bct)
        x_bct = functional.adaptive_max_pool1d(x_bct, -(-x_bct.shape[-1] // 2))
    x_bct = sgp(x_bct, depth)
    for step, skip in enumerate(reversed(skips)):
        at = f"_temp_fine._sgpMixer.{depth - 1 - step}"
        skip = norm(skip, f"{at}.ln1")
        deep = functional.interpolate(norm(x_bct, f"{at}.ln2"), skip.shape[-1], mode="linear", align_corners=True)
        (window1, instant1), (window2, instant2) = branches(skip, at, "1"), branches(deep, at, "2")
        joined = torch.cat([window1, window2, instant1, instant2, skip, deep], dim=1)
        x_bct = sgp(mlp(functional.gelu(conv(joined, f"{at}.concat_fc")), at), depth + 1 + step)
    x_btc = x_bct.transpose(1, 2)
    outputs = [functional.linear(x_btc, *get(f"{at}._fc_out")) for at in ("_pred_fine._fc1", "_pred_displ")]
    return outputs[0], outputs[1].squeeze(-1)


def test_the_head_of_t_deed() -> None:
    torch.manual_seed(3)
    tensors = tdeed_tensors(width=32, num_steps=20, depth=2)
    renamed, options = tdeed_head(tensors, Path("x.pt"))
    assert options == {
        "positions.num_steps": 20,
        "ed.num_layers": 2,
        "ed.kernel_steps": 3,
        "ed.kernel_ratio": 17 / 4,
    }
    settings = TrainSettings(head="positions+ed+disp", proj=0, options=options)
    model = build_model(settings, dim=32, num_classes=12).eval()
    fill_head(model.head, renamed, Path("x.pt"))
    rows_btc = torch.randn(2, 20, 32)
    with torch.no_grad():
        logits, displacement = tdeed_outputs(tensors, rows_btc.transpose(1, 2), depth=2)
        outputs = model(rows_btc)
    torch.testing.assert_close(outputs.logits, logits, rtol=1e-3, atol=1e-3 * float(logits.abs().max()))
    assert outputs.offsets is not None
    torch.testing.assert_close(-outputs.offsets, displacement, rtol=1e-3, atol=1e-3 * float(displacement.abs().max()))
