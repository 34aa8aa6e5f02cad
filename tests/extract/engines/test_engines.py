"""Engines agree with plain PyTorch, and no row depends on how clips are grouped."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from bas.errors import InputError
from bas.extract.backbones.registry import backbone_spec, build_backbone
from bas.extract.engines import choose
from bas.extract.engines.choose import MIN_COSINE, Engine, check_fidelity, clip_rows, make_engine
from bas.extract.engines.pytorch import Feed, Normalised, PendingRows

Kind = Literal["auto", "torch", "openvino"]
Pair = Callable[[str, int | None, Kind], tuple[Engine, nn.Module]]
KINDS: list[Kind] = ["torch", "openvino"]
NAMES = [
    ("x3d_xs", 4),
    ("i3d", None),
    ("tf_efficientnet_lite0", None),
    ("timm:test_resnet+gsf", None),
    ("timm:vit_tiny_patch16_224", None),
]
SHAPE = (5, 48, 64)


def clips(num_clips: int, shape: tuple[int, int, int] = SHAPE) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (num_clips, *shape, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Engine and module of a backbone; each is built, and for OpenVINO converted, once."""
    made = cache(make_pair)
    yield made
    made.cache_clear()


def make_pair(name: str, depth: int | None, kind: Kind) -> tuple[Engine, nn.Module]:
    spec = backbone_spec(name)
    torch.manual_seed(0)
    module = build_backbone(name, depth).eval()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.ones_(norm.weight)  # timm begins with residual branches, and so all shifts in them, at zero
    if kind == "openvino":
        pytest.importorskip("openvino")
    return make_engine(module, mean=spec.mean, std=spec.std, clip_shape=SHAPE, kind=kind, device="cpu"), module


@pytest.mark.parametrize(("name", "depth"), NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_engine_is_plain_pytorch(pair: Pair, name: str, depth: int | None, kind: Kind) -> None:
    engine, module = pair(name, depth, kind)
    x = clips(2)
    rows = clip_rows(engine, x)
    spec = backbone_spec(name)
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (spec.mean, spec.std))
    with torch.no_grad():
        wanted = module((torch.from_numpy(x).permute(0, 4, 1, 2, 3) / 255 - mean) / std).numpy()
    assert rows.dtype == np.float32
    assert rows.shape == wanted.shape == (2, 5, spec.output(depth).dim)
    tolerance = 1e-3 if "vit" in name else 2e-5  # OpenVINO stretches the position embedding a little differently
    assert np.abs(rows - wanted).max() <= tolerance * np.abs(wanted).max()
    fidelity = check_fidelity(engine, module, x)
    assert fidelity.cosine > 0.999999
    assert engine.name.startswith(kind)
    assert engine.describe()["engine"] == engine.name


@pytest.mark.parametrize(("name", "depth"), NAMES[:4])
@pytest.mark.parametrize("kind", KINDS)
def test_no_bit_depends_on_the_grouping(pair: Pair, name: str, depth: int | None, kind: Kind) -> None:
    engine, _ = pair(name, depth, kind)
    x = clips(5)
    whole = clip_rows(engine, x)
    assert np.array_equal(whole, np.concatenate([clip_rows(engine, x[i : i + 1]) for i in range(5)]))
    assert np.array_equal(whole, np.concatenate([clip_rows(engine, x[:2]), clip_rows(engine, x[2:])]))
    assert np.array_equal(whole[::-1], clip_rows(engine, x[::-1]))  # other neighbours, and not contiguous


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_no_engine_changes_the_module(kind: Kind, is_training: bool) -> None:
    if kind == "openvino":
        pytest.importorskip("openvino")
    module = build_backbone("timm:test_resnet+gsf").train(is_training)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    engine = make_engine(module, mean=(0, 0, 0), std=(1, 1, 1), clip_shape=SHAPE, kind=kind, device="cpu")
    rows = clip_rows(engine, clips(2))
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    assert [part.training for part in module.modules()] == modes
    assert not any(tensor.is_inference() for tensor in (*module.parameters(), *module.buffers()))
    with torch.no_grad():
        wanted = module.eval()(torch.from_numpy(clips(2)).permute(0, 4, 1, 2, 3) / 255).numpy()
    assert np.abs(rows - wanted).max() <= 2e-5 * np.abs(wanted).max()  # of a module in training, too


def test_clips_of_another_shape_or_type(pair: Pair) -> None:
    engine, _ = pair("tf_efficientnet_lite0", None, "torch")
    for wrong in (clips(1, (5, 64, 64)), clips(1).astype(np.int8), clips(1)[0], clips(1)[:0]):
        with pytest.raises(ValueError, match="clips must be uint8"):
            clip_rows(engine, wrong)  # type: ignore[arg-type]


def test_auto_takes_openvino_on_a_cpu_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    settings: dict[str, Any] = {"mean": (0, 0, 0), "std": (1, 1, 1), "clip_shape": SHAPE, "device": "cpu"}
    assert make_engine(nn.Identity(), **settings).name == "openvino-f32-cpu"
    monkeypatch.setattr(choose, "openvino_installed", lambda: False)
    assert make_engine(nn.Identity(), **settings).name == "torch-f32-cpu"


class Untraceable(nn.Module):
    def forward(self, clips: Tensor) -> Tensor:
        if torch._C._get_tracing_state():
            raise TypeError("not to be traced")
        return clips.mean((3, 4)).transpose(1, 2)


def test_what_openvino_cannot_convert_runs_in_pytorch_with_a_note() -> None:
    pytest.importorskip("openvino")
    settings: dict[str, Any] = {"mean": (0, 0, 0), "std": (1, 1, 1), "clip_shape": SHAPE, "device": "cpu"}
    engine = make_engine(Untraceable(), **settings)
    assert engine.name == "torch-f32-cpu"
    assert engine.note == "OpenVINO cannot convert this backbone: TypeError: not to be traced"
    assert clip_rows(engine, clips(1)).shape == (1, SHAPE[0], 3)
    with pytest.raises(InputError, match="cannot convert"):
        make_engine(Untraceable(), kind="openvino", **settings)


def test_choices_that_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no CUDA device"):
        make_engine(nn.Identity(), mean=(0, 0, 0), std=(1, 1, 1), clip_shape=SHAPE, device="cuda")
    with pytest.raises(InputError, match="--engine torch"):
        make_engine(nn.Identity(), mean=(0, 0, 0), std=(1, 1, 1), clip_shape=SHAPE, kind="openvino", resize_to=(8, 8))


def test_fidelity_refuses_an_engine_that_drifts(pair: Pair) -> None:
    engine, module = pair("tf_efficientnet_lite0", None, "torch")

    class Drifting:
        name, mean, std, clip_shape, preferred_clips, note = "drifting", engine.mean, engine.std, SHAPE, 1, ""

        def feed(self) -> Feed:
            def begin(*arguments: Any) -> PendingRows:
                rows = engine.feed()(*arguments)()["identity"]
                rows[0, 3] += 0.05 * np.random.default_rng(0).normal(size=rows.shape[-1]) * rows.std()
                return lambda: {"identity": rows}

            return begin

        def describe(self) -> dict[str, str]:
            return {}

    with pytest.raises(InputError, match="--engine torch"):
        check_fidelity(Drifting(), module, clips(1))


def test_resize_on_the_device() -> None:
    torch.manual_seed(0)
    module = build_backbone("tf_efficientnet_lite0").eval()
    engine = make_engine(
        module, mean=(0.5,) * 3, std=(0.5,) * 3, clip_shape=(2, 128, 192), device="cpu", resize_to=(96, 64)
    )
    grey = np.full((1, 2, 128, 192, 3), 100, dtype=np.uint8)  # a flat picture stays flat
    small = make_engine(module, mean=(0.5,) * 3, std=(0.5,) * 3, clip_shape=(2, 64, 96), kind="torch", device="cpu")
    assert np.allclose(clip_rows(engine, grey), clip_rows(small, grey[:, :, :64, :96]), atol=1e-5)
    assert check_fidelity(engine, module, grey).cosine > 0.999999


def test_normalisation_is_of_rgb_in_unit_range() -> None:
    net = Normalised(nn.Identity(), mean=(0.5, 0.25, 0), std=(0.5, 0.25, 2))
    pixels = net(torch.full((1, 1, 1, 1, 3), 255, dtype=torch.uint8)).flatten()
    assert torch.allclose(pixels, torch.tensor([1.0, 3.0, 0.5]))


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "depth"), NAMES)
def test_cuda_engine(name: str, depth: int | None) -> None:
    if not torch.cuda.is_available():
        pytest.skip("NO CUDA DEVICE")
    spec = backbone_spec(name)
    torch.manual_seed(0)
    module = build_backbone(name, depth).eval()
    engine = make_engine(module, mean=spec.mean, std=spec.std, clip_shape=SHAPE, kind="torch", device="cuda")
    x = clips(2 * engine.preferred_clips + 1)
    assert check_fidelity(engine, module, x[:4]).cosine >= MIN_COSINE
    whole = clip_rows(engine, x)
    assert np.array_equal(whole, np.concatenate([clip_rows(engine, x[:3]), clip_rows(engine, x[3:])]))
    assert all(parameter.device.type == "cpu" for parameter in module.parameters())
