"""Modules that move channels between frames inside a 2-D network: `tsm`, `gsm`, `gsf`, as in `regnety_002+gsf`.

Shapes: N = B * T frames of B clips, C channels, F of them shifted, h x w cells. Steps outside a clip count as zero.
Sources: Lin et al., TSM, ICCV 2019; Sudhakaran et al., Gate-Shift Networks, CVPR 2020, and Gate-Shift-Fuse, TPAMI 2023.
Placed as E2E-Spot (`tsm`, `gsm`: every residual block) and T-DEED (`gsf`: the later half of the stages) place them.
"""

import math
import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import InputError

SHIFTS = ("tsm", "gsm", "gsf")
SHIFT = "shift"
"""Name of the module in the convolution before which it stands; all other names are those of the plain network."""


class TemporalShift(nn.Module):
    """`tsm`: an eighth of the channels comes from the next frame, an eighth from the one before. No parameters."""

    reach_steps = 1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_steps = 1
        """T of the clips that come next."""
        self.fold = channels // 8

    def forward(self, x_nchw: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, h, w)."""
        x_btchw = torch.unflatten(x_nchw, 0, (-1, self.num_steps))
        later, earlier, same = x_btchw.tensor_split([self.fold, 2 * self.fold], dim=2)
        return torch.cat([_moved(later, 1, -1), _moved(earlier, 1, 1), same], dim=2).flatten(0, 1)


class GateShift(nn.Module):
    """`gsm`, and with `fuse` `gsf`: a learned share of a quarter of the channels moves, half of it each way.

    `gsm` adds what arrives to what stayed; `gsf` weighs the two for each channel and step.
    """

    def __init__(self, channels: int, *, fuse: bool) -> None:
        super().__init__()
        self.num_steps = 1
        """T of the clips that come next."""
        self.reach_steps = 3 if fuse else 2  # the gate's convolution, the shift, and that of the weights
        self.fold = math.ceil(channels // 4 / 4) * 4
        self.norm = nn.BatchNorm3d(self.fold)
        self.gate = nn.Conv3d(self.fold, 2, 3, padding=1, groups=2)
        if not fuse:  # it begins with nothing moved, as in the source; with `fuse` the source keeps torch's own start
            nn.init.zeros_(self.gate.weight)
            nn.init.zeros_(self.gate.bias)  # type: ignore[arg-type]  # there is a bias
        self.fuse = nn.ModuleList(nn.Conv2d(2, 1, 3, padding=1) for _ in range(2)) if fuse else None

    def forward(self, x_nchw: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, h, w)."""
        # channels come last wherever tensors are cut or joined: as pictures lie; else all is copied twice
        moving, rest = torch.split(x_nchw.permute(0, 2, 3, 1), [self.fold, x_nchw.shape[1] - self.fold], dim=-1)
        x_bfthw = torch.unflatten(moving, 0, (-1, self.num_steps)).contiguous().permute(0, 4, 1, 2, 3)
        gate_b2thw = torch.tanh(self.gate(functional.relu(self.norm(x_bfthw))))
        parts = []
        for number, part in enumerate(x_bfthw.chunk(2, dim=1)):
            sent = gate_b2thw[:, number : number + 1] * part
            stayed = part - sent
            sent = _moved(sent, 2, -1 if number == 0 else 1)
            if self.fuse is None:
                mixed = sent + stayed
            else:
                means_b2ct = torch.stack([sent.mean((3, 4)), stayed.mean((3, 4))], dim=1)
                share = torch.sigmoid(self.fuse[number](means_b2ct)).squeeze(1)[..., None, None]
                mixed = sent * share + stayed * (1 - share)
            mixed_nhwf = mixed.permute(0, 2, 3, 4, 1).flatten(0, 1)
            parts.append(torch.stack(mixed_nhwf.chunk(2, dim=-1), dim=-1).flatten(-2))  # interleaved, as published
        return torch.cat([*parts, rest], dim=-1).permute(0, 3, 1, 2)


def _moved(x: Tensor, dim: int, steps: int) -> Tensor:
    """Along time by one step: -1 brings each step its successor, 1 its predecessor; zeros come in."""
    return functional.pad(x, [0, 0] * (x.ndim - dim - 1) + [steps, -steps])


_PUBLISHED = ((".net.", "."), (".gsm.", f".{SHIFT}."), (".gs.", f".{SHIFT}."))
_PUBLISHED_PARTS = {"bn": "norm", "conv3D": "gate", "channel_conv1": "fuse.0", "channel_conv2": "fuse.1"}


_PADDED = re.compile(r"(res_backbone\..*\.(?:conv|channel_conv[12]))\.1\.")
"""A convolution of AdaSpot's two networks, RegNetY always, behind its padding."""


def our_name(name: str) -> str:
    """Of a tensor in a checkpoint of E2E-Spot, T-DEED or AdaSpot, which wrap convolutions: our name; others stay."""
    name = _PADDED.sub(r"\1.", name)
    for theirs, ours in _PUBLISHED:
        name = name.replace(theirs, ours)
    before, shift, part = name.partition(f".{SHIFT}.")
    first, dot, rest = part.partition(".")
    return f"{before}{shift}{_PUBLISHED_PARTS.get(first, first)}{dot}{rest}"


def is_of_shift(name: str) -> bool:
    """Whether a tensor belongs to one of the modules here."""
    return f".{SHIFT}." in name


def insert_shifts(network: nn.Module, kind: str, *, in_all_stages: bool = False) -> list[nn.Module]:
    """Put a module before the first convolution of residual blocks of a timm network; the shortcut stays as it is.

    Args:
        network: a convolutional model of timm.
        kind: of `SHIFTS`.
        in_all_stages: `gsf` in all of them, as AdaSpot has it.

    Raises:
        InputError: no such kind, or a network without such blocks.
    """
    if kind not in SHIFTS:
        raise InputError("no such temporal module", got=kind, wanted=", ".join(SHIFTS), cure="regnety_002+gsf")
    first_convs = _first_convs(network)
    stages = list(dict.fromkeys(stage for stage, _, _ in first_convs))
    chosen = set(stages[len(stages) // 2 :] if kind == "gsf" and not in_all_stages else stages)
    shifts: list[nn.Module] = []
    for stage, conv, channels in first_convs:
        if stage in chosen:
            shift = TemporalShift(channels) if kind == "tsm" else GateShift(channels, fuse=kind == "gsf")
            conv.add_module(SHIFT, shift)
            conv.register_forward_pre_hook(_shift_first)
            shifts.append(shift)
    if not shifts:
        raise InputError(
            f"{type(network).__name__} has no residual blocks to put {kind} into",
            wanted="a convolutional network of timm with blocks, such as regnety_002, resnet18, efficientnet_b0",
        )
    return shifts


def _shift_first(conv: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """A hook, so that every tensor keeps the name that it has without the module."""
    shift = conv.get_submodule(SHIFT)
    return (shift(inputs[0]), *inputs[1:])


def _first_convs(network: nn.Module) -> list[tuple[str, nn.Module, int]]:
    """(stage, its first convolution, channels into it) of every block, in order."""
    found, inside = [], ""
    for name, block in network.named_modules():
        children = list(block.children())
        first = next((child for child in children if not isinstance(child, nn.Identity)), nn.Identity())
        convs = [getattr(child, "conv", child) for child in children]  # timm wraps some with their norm
        conv = getattr(first, "conv", first)
        is_inside = inside != "" and name.startswith(inside)
        # two convolutions or more of its own make a residual block, one a stem
        is_block = sum(isinstance(each, nn.Conv2d) for each in convs) >= 2
        if isinstance(conv, nn.Conv2d) and is_block and not is_inside and "." in name:
            inside = f"{name}."
            found.append((name.rpartition(".")[0].removesuffix(".blocks"), first, conv.in_channels))
    return found
