"""`stage_unet`: a U-Net whose levels are the backbone's own stages, from a store of several depths.

Shapes: B clips, T steps, S = floor(T / 2) coarser steps, C channels of all stages together, D of the deepest.
Source: the decoder of mcv-m6-video/mcv-c6-2026-team5, week7 (X3D-M, one max pool over time at the bottom).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from .contract import Neck, require
from .ops import TimeBatchNorm, TimeConv


@dataclass(frozen=True)
class StageUnetSettings:
    """Settings of `stage_unet`."""

    stages: tuple[int, ...] = (24, 48, 96, 192)
    """Channels of each stage, the deepest last: a row of `--depth 2,3,4,5` of X3D."""
    width: int = 64
    """Channels of the levels above the lowest."""

    def __post_init__(self) -> None:
        ok = len(self.stages) >= 2 and min(self.stages) >= 1 and self.width >= 1
        require(ok, "size is not usable", got=self, wanted="two or more stages, width >= 1")

    def build(self, dim: int) -> "StageUnet":
        """(B, T, sum of stages) -> (B, T, channels of the deepest stage)."""
        channels = " + ".join(map(str, self.stages))
        wanted = f"{channels} channels, not projected: bas extract --depth 2,3,4,5, bas train-head --proj 0"
        require(dim == sum(self.stages), "rows do not fit stage_unet", got=f"{dim} channels", wanted=wanted)
        return StageUnet(self)


class ConvNormRelu(nn.Module):
    """Convolution of kernel 3, BatchNorm, ReLU."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.conv, self.norm = TimeConv(dim_in, dim_out, 3), TimeBatchNorm(dim_out)

    def forward(self, x_btc: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, D), >= 0."""
        return functional.relu(self.norm(self.conv(x_btc)))


class StageUnet(Neck):
    """The deepest stage at half the rate and back, then joined with one stage after the other; linear to D."""

    def __init__(self, settings: StageUnetSettings) -> None:
        super().__init__()
        *shallow, deepest = settings.stages
        self.stages, self.dim = settings.stages, deepest
        self.up = nn.ConvTranspose1d(deepest, shallow[-1], 4, stride=2, padding=1)
        before, self.joins = shallow[-1], nn.ModuleList()
        for number, stage in enumerate(reversed(shallow)):
            after = stage if number == 0 else settings.width
            self.joins.append(ConvNormRelu(before + stage, after))
            before = after
        self.out = nn.Linear(before, deepest)

    def forward(self, x_btc: Tensor) -> Tensor:
        *shallow, deepest_btd = torch.split(x_btc, list(self.stages), dim=-1)
        num_steps = x_btc.shape[1]
        coarse_bds = functional.max_pool1d(deepest_btd.transpose(1, 2), min(2, num_steps))
        fine_bct = self.up(coarse_bds)
        if fine_bct.shape[2] != num_steps:
            fine_bct = functional.interpolate(fine_bct, num_steps, mode="linear")
        x_btc = fine_bct.transpose(1, 2)
        for join, stage_btc in zip(self.joins, reversed(shallow), strict=True):
            x_btc = join(torch.cat([x_btc, stage_btc], dim=-1))
        out_btd: Tensor = self.out(x_btc)
        return out_btd
