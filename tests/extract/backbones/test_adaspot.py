"""AdaSpot: where its region lies, what a row depends on, and weights of one network and of a public checkpoint."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bas.errors import InputError
from bas.extract.backbones.adaspot import NETWORKS, REACH_STEPS, choose_regions, cut_regions, saliency
from bas.extract.backbones.nets import build_timm
from bas.extract.backbones.registry import backbone_spec, build_backbone
from bas.extract.backbones.weights import load_weights
from bas.finetune.network import trunk_blocks

Lively = Callable[[torch.nn.Module], torch.nn.Module]

NAME = "timm:test_resnet+adaspot"
HEIGHT, WIDTH = 448, 796
CELLS = (7, 13)


def spots(places: list[tuple[int, int]]) -> Tensor:
    """Cells (N, 2, 7, 13) of one clip, one bright in each frame; the rest rises a little, so that nothing is level."""
    cells = torch.linspace(0, 0.01, 7 * 13).view(1, 1, 7, 13).repeat(len(places), 2, 1, 1)
    for frame, (row, column) in zip(cells, places, strict=True):
        frame[:, row, column] = 5
    return cells


def corners(cells: Tensor) -> tuple[Tensor, Tensor]:
    return choose_regions(cells, num_steps=len(cells), height=HEIGHT, width=WIDTH)


def clips(num_clips: int, num_steps: int, size: tuple[int, int] = (128, 192)) -> Tensor:
    return torch.randn(num_clips, 3, num_steps, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("num_steps", [1, 2, 5])
@pytest.mark.parametrize("place", [(0, 0), (3, 6), (6, 12), (1, 10), (5, 0)])
def test_the_region_holds_the_middle_of_the_bright_cell(num_steps: int, place: tuple[int, int]) -> None:
    top, left = corners(spots([place] * num_steps))
    middle = [
        (index + 0.5) / number * pixels for index, number, pixels in zip(place, CELLS, (HEIGHT, WIDTH), strict=True)
    ]
    for first, at, pixels in ((top, middle[0], HEIGHT), (left, middle[1], WIDTH)):
        assert (first >= 0).all()
        assert (first + 112 < pixels).all()
        assert (first <= at).all()
        assert (at < first + 112).all()


def test_the_region_follows_what_moves_and_is_not_drawn_by_a_single_frame() -> None:
    moving = spots([(1 + step // 6, step // 2) for step in range(24)])
    top, left = corners(moving)
    assert (left.diff() >= 0).all()
    assert left[-1] - left[0] > 400
    assert top[-1] > top[0]
    flash = spots([(1, 2)] * 9 + [(5, 10)] + [(1, 2)] * 9)
    top, left = corners(flash)
    assert len(set(top.tolist())) == len(set(left.tolist())) == 1


def test_frames_further_than_the_smoothing_choose_nothing_and_clips_are_apart() -> None:
    num_steps = 2 * REACH_STEPS + 3
    cells = torch.rand(2 * num_steps, 3, 4, 5, generator=torch.Generator().manual_seed(1)).double()
    before = saliency(cells, num_steps)
    cells[REACH_STEPS + 1] += torch.linspace(0, 1, 20).view(4, 5).double()
    changed = (saliency(cells, num_steps) - before).abs().amax((1, 2)) > 0
    assert changed.tolist() == [0 < step < num_steps - 1 for step in range(num_steps)] + [False] * num_steps


def test_pictures_without_a_brightest_cell_get_the_middle() -> None:
    top, left = corners(torch.ones(2, 4, 7, 13))
    assert top.tolist() == [(HEIGHT - 112) // 2] * 2
    assert left.tolist() == [52 * WIDTH // 104 - 56] * 2


def test_regions_are_cut_where_they_were_chosen() -> None:
    frames = torch.arange(2 * 3 * 130 * 200).view(2, 3, 130, 200)
    cut = cut_regions(frames, torch.tensor([0, 17]), torch.tensor([87, 5]))
    assert torch.equal(cut[0], frames[0, :, :112, 87:199])
    assert torch.equal(cut[1], frames[1, :, 17:129, 5:117])


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 32), (50, 70), (128, 192)])
def test_a_row_for_each_step_whatever_the_length_and_size(size: tuple[int, int], lively_shifts: Lively) -> None:
    backbone, dim = lively_shifts(build_backbone(NAME)), backbone_spec(NAME).output(None).dim
    for num_steps in (1, 2, 9):
        rows = backbone(clips(2, num_steps, size))
        assert rows.shape == (2, num_steps, dim)
        assert rows.isfinite().all()
        torch.testing.assert_close(rows[1:], backbone(clips(2, num_steps, size)[1:]))


def test_the_gradient_reaches_both_networks_and_both_projections(lively_shifts: Lively) -> None:
    backbone = lively_shifts(build_backbone(NAME))
    backbone(clips(1, 4)).square().sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0 or "shift" in name, name


@torch.no_grad()
def test_details_count_in_the_region_only(lively_shifts: Lively) -> None:
    """A pattern of single pixels, which the small picture does not show: only the second network can see it."""
    backbone = lively_shifts(build_backbone(NAME))
    x = clips(1, 1, (448, 796)) * 0.1
    x[..., 40:120, 100:180] += 3
    small = nn.functional.interpolate(x[:, :, 0], (224, 398), mode="bilinear", antialias=True)
    cells = backbone.get_submodule(f"trunk.{NETWORKS[0]}").forward_features(small)  # type: ignore[operator]
    top, left = map(int, choose_regions(cells, num_steps=1, height=448, width=796))
    rows, checks = backbone(x), torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(20, 20)
    changes = []
    for row, column in ((top + 36, left + 36), ((top + 200) % 400, (left + 400) % 750)):
        changed = x.clone()
        changed[..., row : row + 40, column : column + 40] += checks
        changes.append(float((backbone(changed) - rows).abs().max()))
    assert changes[0] > 20 * changes[1]


def test_what_is_known_of_it() -> None:
    spec = backbone_spec("regnety_002+adaspot")
    assert (spec.kind, spec.size, spec.stride, spec.output(None).dim) == ("3d", (796, 448), 2, 368)
    assert spec.output(None).receptive_field_steps == 1 + 2 * (13 * 3 + 6 + 13 * 3)  # 13 blocks in each network


def test_both_networks_begin_with_the_weights_of_one(tmp_path: Path) -> None:
    torch.manual_seed(5)
    plain = build_timm("test_resnet").state_dict()
    save_file({f"module.{name}": tensor for name, tensor in plain.items()}, tmp_path / "plain.safetensors")
    module, _ = load_weights(NAME, None, str(tmp_path / "plain.safetensors"))
    mine = module.get_submodule("trunk").state_dict()
    for network in NETWORKS:
        assert all(torch.equal(mine[f"{network}.{name}"], tensor) for name, tensor in plain.items())


def test_a_public_checkpoint_loads_by_its_names(tmp_path: Path, lively_shifts: Lively) -> None:
    """Names of `regnety_002` in a file that the public code wrote, by hand."""
    whole = lively_shifts(build_backbone("regnety_002+adaspot")).get_submodule("trunk").state_dict()
    by_hand = {
        "lowres_backbone.stem.conv.weight": "lowres_backbone.stem.conv.1.weight",
        "lowres_backbone.s1.b1.conv1.conv.weight": "lowres_backbone.s1.b1.conv1.net.conv.weight",
        "lowres_backbone.s1.b1.conv1.bn.running_var": "lowres_backbone.s1.b1.conv1.net.bn.running_var",
        "highres_backbone.s4.b7.conv1.shift.gate.bias": "highres_backbone.s4.b7.conv1.gs.conv3D.bias",
        "highres_backbone.s4.b7.conv1.shift.norm.weight": "highres_backbone.s4.b7.conv1.gs.bn.weight",
        "highres_backbone.s4.b7.conv1.shift.fuse.0.weight": "highres_backbone.s4.b7.conv1.gs.channel_conv1.1.weight",
        "highres_backbone.s4.b7.conv1.shift.fuse.1.bias": "highres_backbone.s4.b7.conv1.gs.channel_conv2.1.bias",
        "highres_backbone.s3.b2.conv2.conv.weight": "highres_backbone.s3.b2.conv2.conv.1.weight",
        "highres_backbone.s3.b2.se.fc1.bias": "highres_backbone.s3.b2.se.fc1.bias",
        "highres_backbone.s2.b1.downsample.conv.weight": "highres_backbone.s2.b1.downsample.conv.weight",
        "lowres_linear.2.weight": "lowres_linear.2.weight",
    }
    published = {_published(name): tensor for name, tensor in whole.items()}
    assert {name: _published(name) for name in by_hand} == by_hand
    rest = {"temp_enc": torch.zeros(100, 368), "_temp_fine_lowres.bias_hh_l0": torch.zeros(3)}
    rest |= {"_temp_fine.weight_ih_l0": torch.zeros(3, 2), "_pred_fine_highres._fc_out.bias": torch.zeros(11)}
    save_file(published | rest, tmp_path / "theirs.safetensors")
    mine = load_weights("regnety_002+adaspot", None, str(tmp_path / "theirs.safetensors"))[0].get_submodule("trunk")
    for name, tensor in mine.state_dict().items():
        assert torch.equal(tensor, whole[name]) or name.endswith("num_batches_tracked"), name
    del published["lowres_linear.0.bias"]
    save_file(published, tmp_path / "less.safetensors")
    with pytest.raises(InputError, match="1 missing"):
        load_weights("regnety_002+adaspot", None, str(tmp_path / "less.safetensors"))


def _published(name: str) -> str:
    """As the public code calls a tensor: padding stands before convolutions, and gates around them."""
    for ours, theirs in (
        ("norm", "bn"),
        ("gate", "conv3D"),
        ("fuse.0", "channel_conv1.1"),
        ("fuse.1", "channel_conv2.1"),
    ):
        name = name.replace(f".shift.{ours}.", f".gs.{theirs}.")
    for padded in (".stem.conv.", ".conv2.conv."):
        name = name.replace(padded, f"{padded}1.")
    return name if ".gs." in name else name.replace(".conv1.", ".conv1.net.")


@pytest.mark.parametrize(
    ("name", "pool", "told"),
    [
        ("x3d_s+adaspot", "mean", "sees time already"),
        ("timm:vit_tiny_patch16_224+adaspot", "mean", "no residual blocks"),
        (NAME, "grid:2x2", "--pool does not fit"),
    ],
)
def test_what_there_is_not(name: str, pool: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        backbone_spec(name, pool)


def test_finetuning_counts_the_blocks_of_both_networks_and_then_the_projections() -> None:
    backbone = build_backbone("regnety_002+adaspot")
    names = {id(each): name for name, each in backbone.get_submodule("trunk").named_parameters()}
    blocks = [
        {".".join(names[id(each)].split(".")[:2]) for each in block.parameters()}
        for block in trunk_blocks(backbone, set(names))
    ]
    stages = [{f"{network}.{part}"} for network in NETWORKS for part in ("stem", "s1", "s2", "s3", "s4")]
    assert blocks == [*stages, *({f"{part}.0", f"{part}.2"} for part in ("lowres_linear", "highres_linear"))]
