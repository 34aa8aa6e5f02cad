"""Every backbone of the registry: T steps in, T rows out, and the rows are the library's own."""

import importlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bas.errors import InputError
from bas.extract.backbones.registry import BACKBONES, backbone_spec, build_backbone
from bas.extract.backbones.torchvision_compat import import_with_torchvision

ALL = [
    pytest.param(name, depth, marks=pytest.mark.slow if name in ("x3d_xs", "x3d_m", "x3d_l") else ())
    for name, spec in BACKBONES.items()
    for depth in spec.outputs
]  # x3d_xs and x3d_m are the network of x3d_s
TWO_D = [name for name, spec in BACKBONES.items() if spec.kind == "2d"]


def lively(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights under which no layer is trivial: batch norms have statistics, signals neither die nor burst."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Conv3d):
                fan_in = layer.weight[0].numel()
                layer.weight.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
            if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d):
                assert layer.running_mean is not None
                assert layer.running_var is not None
                layer.running_mean.normal_(0, 0.1, generator=generator)
                layer.running_var.uniform_(0.8, 1.6, generator=generator)
                layer.weight.uniform_(0.5, 0.9, generator=generator)
                layer.bias.normal_(0, 0.1, generator=generator)
    return module.eval()


def without_squeeze_excitation(module: nn.Module) -> nn.Module:
    """X3D's squeeze-excitation averages over the whole clip; without it the rows are local in time."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ == "SqueezeExcitation":
                setattr(parent, name, nn.Identity())
    return module


def clips(num_steps: int, size: tuple[int, int] = (64, 96), num_clips: int = 1, seed: int = 1) -> Tensor:
    return torch.randn(num_clips, 3, num_steps, *size, generator=torch.Generator().manual_seed(seed))


def assert_close(got: Tensor, wanted: Tensor) -> None:
    scale = wanted.abs().max()
    assert torch.isfinite(wanted).all()
    assert scale > 1e-6
    assert (got - wanted).abs().max() <= 1e-5 * scale


def plain_pytorchvideo(name: str, depth: int | None) -> nn.Module:
    """The hub's own model; its blocks up to `depth`, or all but the head."""
    family = "x3d" if name.startswith("x3d") else "resnet"
    model = getattr(import_with_torchvision(f"pytorchvideo.models.hub.{family}"), name)()
    return nn.Sequential(*list(model.blocks)[: depth or -1])


def copy_by_order(source: nn.Module, target: nn.Module) -> None:
    tensors = source.state_dict().values()
    target.load_state_dict(dict(zip(target.state_dict(), tensors, strict=True)))


@pytest.mark.parametrize(("name", "depth"), ALL)
@torch.no_grad()
def test_as_many_rows_as_steps(name: str, depth: int | None) -> None:
    module = lively(build_backbone(name, depth))
    for num_steps, size in ((1, (32, 32)), (2, (32, 64)), (5, (50, 70))):
        rows = module(clips(num_steps, size, num_clips=2))
        assert rows.shape == (2, num_steps, BACKBONES[name].output(depth).dim)
        assert torch.isfinite(rows).all()


@pytest.mark.parametrize(("name", "depth"), [case for case in ALL if str(case.values[0]).startswith(("x3d", "slow"))])
@torch.no_grad()
def test_rows_are_pytorchvideos_own(name: str, depth: int | None) -> None:
    ours, plain = lively(build_backbone(name, depth)), plain_pytorchvideo(name, depth).eval()
    copy_by_order(ours, plain)
    x = clips(5, (32, 64))
    assert_close(ours(x), plain(x).mean((3, 4)).transpose(1, 2))


@torch.no_grad()
def test_i3d_r50_undoes_its_pool() -> None:
    ours, plain = lively(build_backbone("i3d_r50")), plain_pytorchvideo("i3d_r50", None).eval()
    copy_by_order(ours, plain)
    x = clips(64, (32, 32))
    rows = ours(x)
    assert_close(rows[:, ::2], plain(x).mean((3, 4)).transpose(1, 2))
    shifted = plain(x[:, :, 1:-1]).mean((3, 4)).transpose(1, 2)  # the odd phase, away from the clip's ends
    assert_close(rows[:, 21:-21:2], shifted[:, 10:-10])


@pytest.mark.parametrize("name", TWO_D)
@torch.no_grad()
def test_rows_are_timms_own(name: str) -> None:
    tag = BACKBONES[name].urls["imagenet"].removeprefix("timm:")
    timm = import_with_torchvision("timm")
    ours, plain = lively(build_backbone(name)), timm.create_model(tag, num_classes=0).eval()
    plain.load_state_dict(ours.get_submodule("trunk").state_dict())
    x = clips(3, (64, 64), num_clips=2)
    wanted = torch.stack([plain(x[:, :, step]) for step in range(3)], dim=1)
    assert_close(ours(x), wanted)


@pytest.mark.parametrize("name", TWO_D)
def test_table_agrees_with_timm(name: str) -> None:
    ours = BACKBONES[name]
    theirs = backbone_spec(ours.urls["imagenet"])
    for field in ("kind", "outputs", "mean", "std", "native_size", "urls", "head_prefixes", "stride"):
        assert getattr(ours, field) == getattr(theirs, field), field


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet18", (64, 96)), ("vit_tiny_patch16_224", (64, 96)), ("swin_tiny_patch4_window7_224", (224, 224))],
)
@torch.no_grad()
def test_any_timm_model(name: str, size: tuple[int, int]) -> None:
    spec, module = backbone_spec(f"timm:{name}"), build_backbone(f"timm:{name}").eval()
    x = clips(2, size)
    rows = module(x)
    assert rows.shape == (1, 2, spec.output(None).dim)
    cells = module.get_submodule("trunk").forward_features(x[:, :, 1])  # type: ignore[operator]
    cells = (
        cells[:, 1:]
        if name.startswith("vit")
        else cells.flatten(1, 2)
        if name.startswith("swin")
        else cells.flatten(2).mT
    )
    assert_close(rows[:, 1], cells.mean(1))


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        *(("x3d_s", depth) for depth in (5, 4, 3, 2)),
        *((name, None) for name in ("i3d", "i3d_r50", "slow_r50", "regnety_002")),
        *(pytest.param("x3d_l", depth, marks=pytest.mark.slow) for depth in (5, 4, 3, 2)),
    ],
)
def test_a_row_sees_its_receptive_field(name: str, depth: int | None) -> None:
    module = (
        without_squeeze_excitation(lively(build_backbone(name, depth))).double()
        if name != "regnety_002"
        else (lively(build_backbone(name)).double())
    )
    steps = BACKBONES[name].output(depth).receptive_field_steps
    x = clips(2 * (steps // 2) + 21, (32, 32)).double().requires_grad_()
    module(x)[:, x.shape[2] // 2].sum().backward()
    assert x.grad is not None
    seen = x.grad.abs().amax(dim=(0, 1, 3, 4)).nonzero().flatten()
    assert (seen[-1] - seen[0] + 1).item() == steps
    middle = (seen[-1] + seen[0]).item() / 2
    assert abs(middle - x.shape[2] // 2) <= 0.5, "a row must be centred on its own step"


@pytest.mark.parametrize("name", ["x3d_s", "i3d_r50", "slow_r50", "tf_efficientnet_lite0"])
@torch.no_grad()
def test_a_shift_of_the_clip_shifts_the_rows(name: str) -> None:
    module = (
        without_squeeze_excitation(lively(build_backbone(name)))
        if name.startswith("x3d")
        else lively(build_backbone(name))
    )
    x = clips(70, (32, 32))
    edge = BACKBONES[name].output(None).receptive_field_steps // 2 + 1
    whole, later = module(x), module(x[:, :, 3:])
    assert_close(later[:, edge : -edge or None], whole[:, 3 + edge : -edge or None])


def test_backward_pass_works_for_finetuning() -> None:
    module = build_backbone("x3d_xs", 4).train()
    module(clips(4, (32, 32), num_clips=2)).sum().backward()
    assert all(p.grad is not None for p in module.parameters())


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: backbone_spec("x3d"), "x3d_s"),
        (lambda: build_backbone("x3d_s", (4, 6)), "5 or 4 or 3 or 2"),
        (lambda: build_backbone("i3d", 5), "no --depth"),
        (lambda: backbone_spec("timm:resnet17"), "resnet"),
    ],
)
def test_what_there_is_not(call: Callable[[], object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        call()


def test_rows_of_several_depths_are_those_of_each_side_by_side() -> None:
    pictures = clips(6, (64, 32))
    together = build_backbone("x3d_xs", (2, 4, 5)).eval()
    rows = []
    for depth in (2, 4, 5):
        alone = build_backbone("x3d_xs", depth).eval()
        alone.load_state_dict(together.state_dict(), strict=False)
        rows.append(alone(pictures))
    torch.testing.assert_close(together(pictures), torch.cat(rows, dim=-1))
    assert [each.shape[-1] for each in rows] == list(BACKBONES["x3d_xs"].depth_dims((2, 4, 5)) or ())
    assert backbone_spec("x3d_xs", "grid:1x2").depth_dims((2, 4, 5)) == (48, 192, 384)


def test_torchvision_serves_timm_and_pytorchvideo() -> None:
    """In a process of its own the reliability tests load it."""
    for name in ("timm", "pytorchvideo.models.x3d"):
        assert import_with_torchvision(name).__name__ == name
    assert hasattr(torch.ops.torchvision, "nms")


def test_a_working_torchvision_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    compat = importlib.import_module("bas.extract.backbones.torchvision_compat")
    before = list(compat._libraries)
    monkeypatch.setattr(compat, "_define_missing_operators", lambda: pytest.fail("defined operators"))
    assert import_with_torchvision("torchvision").__name__ == "torchvision"
    assert compat._libraries == before
