"""The dense Inception-I3D against the published network's strides, and against its real weights."""

from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from bas.extract.backbones.i3d import InceptionI3d, same_max_pool, same_padding
from bas.extract.backbones.nets import shifted_max
from bas.extract.backbones.registry import build_backbone
from bas.extract.backbones.weights import load_weights

# Kinetics-400 in alphabetical order
JUGGLING_SOCCER_BALL, KICKING_FIELD_GOAL, KICKING_SOCCER_BALL, SHOOTING_GOAL_SOCCER = 171, 174, 175, 297


def pair() -> tuple[InceptionI3d, InceptionI3d]:
    dense, plain = InceptionI3d().eval(), InceptionI3d(dense=False).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in dense.state_dict().items():
            if name.endswith("conv3d.weight"):
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
            elif name.endswith(("running_var", "bn.weight")):
                tensor.uniform_(0.7, 1.3, generator=generator)
            elif not name.endswith("num_batches_tracked"):
                tensor.normal_(0, 0.2, generator=generator)
    plain.load_state_dict(dense.state_dict())
    return dense, plain


def assert_close(got: torch.Tensor, wanted: torch.Tensor) -> None:
    assert wanted.abs().max() > 1e-3
    assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize(("num_steps", "size"), [(8, (64, 64)), (24, (64, 96)), (16, (45, 70))])
@torch.no_grad()
def test_every_eighth_row_is_the_published_networks(num_steps: int, size: tuple[int, int]) -> None:
    dense, plain = pair()
    x = torch.randn(1, 3, num_steps, *size).clamp(-1, 1)
    got, wanted = dense(x), plain(x)
    assert got.shape == (1, 1024, num_steps, -(-size[0] // 32), -(-size[1] // 32))
    assert wanted.shape[2] == num_steps // 8
    assert_close(got[:, :, ::8], wanted)


@torch.no_grad()
def test_the_backbone_moves_rows_to_the_frame_they_are_centred_on() -> None:
    dense, plain = pair()
    module = build_backbone("i3d").eval()
    module.get_submodule("trunk").load_state_dict(dense.state_dict())
    x = torch.randn(1, 3, 24, 32, 32).clamp(-1, 1)
    rows, wanted = module(x), plain(x).mean(dim=(3, 4)).transpose(1, 2)
    assert_close(rows[:, 5::8], wanted)
    assert_close(rows[:, :5], wanted[:, :1].expand(-1, 5, -1))
    assert module(x[:, :, :3]).shape == (1, 3, 1024)


@pytest.mark.parametrize("phase", [1, 4, 7])
@torch.no_grad()
def test_other_rows_are_the_published_networks_on_a_later_start(phase: int) -> None:
    dense, plain = pair()
    x = torch.randn(1, 3, 136, 32, 32).clamp(-1, 1)
    inner = slice(6, 9)  # rows whose 44 steps before and 54 after lie inside the shorter clip
    got, wanted = dense(x)[:, :, phase::8], plain(x[:, :, phase : phase + 128])
    assert_close(got[:, :, inner], wanted[:, :, inner])


def test_tensor_names_are_the_public_ones() -> None:
    names = {name for name in InceptionI3d().state_dict() if not name.endswith("num_batches_tracked")}
    assert len(names) == 285
    assert {"Conv3d_1a_7x7.conv3d.weight", "Mixed_3b.b1a.bn.running_mean", "Mixed_5c.b3b.conv3d.weight"} <= names


@pytest.mark.parametrize(("size", "kernel", "stride"), [(7, 3, 2), (8, 3, 2), (9, 2, 2), (5, 3, 1), (224, 7, 2)])
def test_same_padding(size: int, kernel: int, stride: int) -> None:
    front, back = same_padding(size, kernel, stride)
    assert (size + front + back - kernel) // stride + 1 == -(-size // stride)
    assert 0 <= back - front <= 1


@pytest.mark.parametrize("size", [(8, 9, 10), (7, 8, 9), (9, 9, 9), (8, 8, 8)])
def test_same_max_pool_pads_with_zeros(size: tuple[int, int, int]) -> None:
    x = torch.rand(1, 2, *size)
    kernel, stride = (3, 3, 3), (2, 2, 2)
    pads = [pad for length in reversed(size) for pad in same_padding(length, 3, 2)]
    assert torch.equal(same_max_pool(x, kernel, stride), functional.max_pool3d(functional.pad(x, pads), 3, 2))


def test_shifted_max() -> None:
    x = torch.tensor([3.0, 1.0, 4.0, 1.0, 5.0]).view(1, 1, 5, 1, 1)
    assert shifted_max(x, taps=3, dilation=2, front=0).flatten().tolist() == [5, 1, 5, 1, 5]
    assert shifted_max(x, taps=3, dilation=1, front=1).flatten().tolist() == [3, 4, 4, 5, 5]


@pytest.mark.weights
@pytest.mark.shared
@pytest.mark.slow
@torch.no_grad()
def test_real_weights_know_football(weights_dir: Path, shared_data: Path) -> None:
    file = weights_dir / "i3d_rgb_kinetics400.safetensors"
    module, record = load_weights("i3d", None, str(file))
    with av.open(str(shared_data / "soccer" / "action_0_clip_0.mp4")) as container:
        frames = [f.to_ndarray(format="rgb24", width=224, height=224) for f in islice(container.decode(video=0), 32)]
    pixels = torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2)[None] / 255
    rows = module((pixels - record.mean[0]) / record.std[0])
    assert torch.isfinite(rows).all()
    tensors = load_file(file)
    logits = rows[0, 5::8].mean(0) @ tensors["logits.conv3d.weight"].flatten(1).T + tensors["logits.conv3d.bias"]
    football = {JUGGLING_SOCCER_BALL, KICKING_FIELD_GOAL, KICKING_SOCCER_BALL, SHOOTING_GOAL_SOCCER}
    assert football & set(logits.topk(5).indices.tolist()), logits.topk(5)
