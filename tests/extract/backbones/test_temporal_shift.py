"""2-D networks that see time: what moves, what a row sees, and weights under published names and ours."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from bas.errors import InputError
from bas.extract.backbones.nets import build_timm
from bas.extract.backbones.registry import backbone_spec, build_backbone
from bas.extract.backbones.temporal_shift import SHIFTS, GateShift, TemporalShift
from bas.extract.backbones.weights import load_weights

Lively = Callable[[torch.nn.Module], torch.nn.Module]

PLAIN = "timm:test_resnet"
every_kind = pytest.mark.parametrize("kind", SHIFTS)


def clips(num_clips: int, num_steps: int) -> Tensor:
    return torch.randn(num_clips, 3, num_steps, 48, 64, generator=torch.Generator().manual_seed(1))


def test_tsm_takes_an_eighth_from_each_neighbour() -> None:
    shift = TemporalShift(16)
    shift.num_steps = 3
    x = torch.arange(1.0, 4.0).repeat(2).view(6, 1, 1, 1).expand(6, 16, 1, 1)
    first = shift(x)[:3, :, 0, 0]
    assert first[:, 0].tolist() == [2, 3, 0]
    assert first[:, 3].tolist() == [0, 1, 2]
    assert (first[:, 4:] == torch.tensor([[1.0], [2.0], [3.0]])).all()
    assert torch.equal(shift(x)[3:, :, 0, 0], first)


@pytest.mark.parametrize("fuse", [False, True])
def test_a_gate_moves_a_share_and_keeps_the_rest(fuse: bool) -> None:
    """Written again, one channel at a time."""
    shift = GateShift(32, fuse=fuse).eval()
    for parameter in shift.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(len(parameter.shape)))
    shift.num_steps = num_steps = 4
    x = torch.randn(num_steps, 32, 2, 3, generator=torch.Generator().manual_seed(3))
    got, half = shift(x), shift.fold // 2
    assert torch.equal(got[:, shift.fold :], x[:, shift.fold :])
    gates = torch.tanh(shift.gate(torch.relu(shift.norm(x[None, :, : shift.fold].transpose(1, 2)))))[0]
    for group in (0, 1):
        part = x[:, group * half : (group + 1) * half]
        moved, stayed = torch.zeros_like(part), torch.zeros_like(part)
        for step in range(num_steps):
            source = step + 1 if group == 0 else step - 1
            stayed[step] = part[step] * (1 - gates[group, step])
            if 0 <= source < num_steps:
                moved[step] = part[source] * gates[group, source]
        mixed = moved + stayed
        if shift.fuse is not None:
            means = torch.stack([moved.mean((2, 3)).T, stayed.mean((2, 3)).T])[None]
            share = torch.sigmoid(shift.fuse[group](means))[0, 0].T[:, :, None, None]
            mixed = moved * share + stayed * (1 - share)
        order = [channel // 2 + (channel % 2) * (half // 2) for channel in range(half)]
        torch.testing.assert_close(got[:, group * half : (group + 1) * half], mixed[:, order])


@every_kind
def test_clips_are_apart_and_a_row_sees_its_reach(kind: str, lively_shifts: Lively) -> None:
    backbone = lively_shifts(build_backbone(f"{PLAIN}+{kind}"))
    reach = backbone_spec(f"{PLAIN}+{kind}").output(None).receptive_field_steps // 2
    x = clips(2, 2 * reach + 4).double()
    backbone.double()
    with torch.no_grad():
        rows = backbone(x)
        torch.testing.assert_close(rows, torch.cat([backbone(x[:1]), backbone(x[1:])]))
        x[:, :, reach + 1] += 1
        changed = (backbone(x) - rows).abs().amax(dim=(0, 2)) > 0
    assert changed[1 : 2 * reach + 2].all()
    assert not changed[0]
    assert not changed[2 * reach + 2 :].any()


@every_kind
def test_plain_weights_and_a_checkpoint_of_ours_load(kind: str, tmp_path: Path, lively_shifts: Lively) -> None:
    torch.manual_seed(5)
    plain = build_timm("test_resnet")
    save_file(plain.state_dict(), tmp_path / "plain.safetensors")
    module, _ = load_weights(f"{PLAIN}+{kind}", None, str(tmp_path / "plain.safetensors"))
    mine = module.get_submodule("trunk").state_dict()
    assert all(torch.equal(mine[name], tensor) for name, tensor in plain.state_dict().items())
    assert any(".shift." in name for name in mine) == (kind != "tsm")
    trunk = lively_shifts(build_backbone(f"{PLAIN}+{kind}")).get_submodule("trunk")
    whole = {f"_features.{name}": tensor for name, tensor in trunk.state_dict().items()}
    published = {
        name.replace("conv1.", "conv1.net.") if ".shift." not in name else _published(name, kind): tensor
        for name, tensor in whole.items()
        if "layer" in name
    } | {name: tensor for name, tensor in whole.items() if "layer" not in name}
    save_file(published | {"_head.weight": torch.zeros(2)}, tmp_path / "theirs.safetensors")
    module, _ = load_weights(f"{PLAIN}+{kind}", None, str(tmp_path / "theirs.safetensors"))
    mine = module.get_submodule("trunk").state_dict()
    for name, tensor in whole.items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(mine[name.removeprefix("_features.")], tensor), name


def _published(name: str, kind: str) -> str:
    """As E2E-Spot (gsm) and T-DEED (gsf) call it."""
    for ours, theirs in (("norm", "bn"), ("gate", "conv3D"), ("fuse.0", "channel_conv1"), ("fuse.1", "channel_conv2")):
        name = name.replace(f".shift.{ours}.", f".shift.{theirs}.")
    return name.replace(".shift.", ".gsm." if kind == "gsm" else ".gs.")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("x3d_s+gsf", "a 2-D backbone before"),
        ("regnety_002+gsx", "tsm, gsm, gsf"),
        ("timm:vit_tiny_patch16_224+gsf", "no residual blocks"),
        ("nothing+gsf", "no such backbone"),
    ],
)
def test_what_there_is_not(name: str, told: str) -> None:
    with pytest.raises(InputError) as error:
        backbone_spec(name)
    assert told in str(error.value)
