"""`actionformer`: a pyramid of local attention with shared towers, for events that are points.

Shapes: B clips, T steps, C channels, W width, H attention heads, K classes; level l has ceil(T / 2^l) steps, its step
i centred on clip step i * 2^l; S is the steps of all levels, one level after the other; V steps of a window.
Blocks of `local_attention`: n of them, i queries of a block, j keys around it, d channels of an attention head.
Source: Zhang et al., ActionFormer: Localizing Moments of Actions with Transformers, ECCV 2022, which regresses start
and end; here the signed distance to the instant.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from .contract import Head, HeadOutputs, Trunk, require
from .losses import PRIOR_LOGIT, sigmoid_focal
from .ops import TimeConv, move_scores
from .targets import Targets

_FIRST_NUM_POSITIVE = 100.0
"""Positive points of a batch before the first is seen."""


@dataclass(frozen=True)
class ActionFormerSettings:
    """Settings of `actionformer`."""

    width: int = 512
    """W, a multiple of `num_heads`."""
    num_heads: int = 4
    """H."""
    num_levels: int = 6
    """Levels of the pyramid, each at half the rate of the one before, >= 1."""
    num_projections: int = 2
    """Convolutions (kernel 3) before the pyramid, >= 1."""
    num_stem_blocks: int = 2
    """Transformer blocks at the full rate, >= 0."""
    window_steps: int = 19
    """V, steps of its own level that a step sees; odd."""
    centre_radius: float = 1.5
    """Centre sampling, in strides: level l owns distances to the event up to radius * 2^l steps, beyond those that the
    level before owns."""
    num_tower_layers: int = 2
    """Convolutions before the output of each tower, >= 0."""
    smooth_l1_beta: float = 0.1
    """Where the distance's loss turns from square to linear, in strides, > 0."""
    layer_scale: float = 1e-4
    """First weight of each channel of what a block adds to its input, >= 0; 0: no such weights."""
    drop_path: float = 0.1
    """Probability that a block adds nothing for a clip, in [0, 1)."""
    focal_alpha: float = 0.25
    """Weight of present classes in the focal loss, in (0, 1)."""
    loss_momentum: float = 0.9
    """Of the moving average of the number of positive points, which divides the loss, in [0, 1); 0: this batch's."""

    def __post_init__(self) -> None:
        fits = self.num_heads >= 1 and self.width % self.num_heads == 0
        require(fits, "width does not divide into heads", got=self, wanted="width a multiple of num_heads")
        require(self.window_steps % 2 == 1, "window is not usable", got=self.window_steps, wanted="an odd number")
        ok = self.num_levels >= 1 and self.num_projections >= 1
        require(ok, "depth is not usable", got=self, wanted="num_levels and num_projections >= 1")
        shares = (self.drop_path, self.loss_momentum, self.layer_scale)
        ok = all(0 <= share < 1 for share in shares) and 0 < self.focal_alpha < 1
        require(ok, "setting is not usable", got=self, wanted="layer_scale, drop_path, loss_momentum in [0, 1)")

    def build_head(self, trunk: Trunk, num_classes: int) -> "ActionFormerHead":
        return ActionFormerHead(self, trunk, num_classes)


class LocalBlock(nn.Module):
    """Pre-norm transformer block; queries, keys and values by strided depthwise convolution, attention in a window."""

    def __init__(self, settings: ActionFormerSettings, *, stride: int) -> None:
        super().__init__()
        width = settings.width
        self.num_heads, self.window_steps, self.stride = settings.num_heads, settings.window_steps, stride
        self.norm_in, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.convs = nn.ModuleList(TimeConv(width, width, 3, stride=stride, groups=width) for _ in range(3))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.projections = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.merge = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.drop_path = settings.drop_path
        has_scale = settings.layer_scale > 0
        self.scale_2w = nn.Parameter(torch.full((2, width), settings.layer_scale)) if has_scale else None

    def forward(self, x_btw: Tensor) -> Tensor:
        """(B, T, W) -> (B, ceil(T / stride), W)."""
        y_btw = self.norm_in(x_btw)
        q, k, v = (
            project(norm(conv(y_btw))).unflatten(-1, (self.num_heads, -1))
            for conv, norm, project in zip(self.convs, self.norms, self.projections, strict=True)
        )
        attended_bsw = self.merge(local_attention(q, k, v, window_steps=self.window_steps).flatten(2))
        if self.stride == 2:  # the skip: the maximum of each second step and its neighbours
            x_btw = functional.max_pool1d(x_btw.transpose(1, 2), 3, stride=2, padding=1).transpose(1, 2)
        x_bsw = x_btw + self._share(attended_bsw, 0)
        fed_bsw = self.down(functional.gelu(self.up(self.norm_mlp(x_bsw))))
        return x_bsw + self._share(fed_bsw, 1)

    def _share(self, branch_bsw: Tensor, number: int) -> Tensor:
        """What a branch adds: scaled, and in training left out for some clips."""
        if self.scale_2w is not None:
            branch_bsw = branch_bsw * self.scale_2w[number]
        if not self.training or not self.drop_path:
            return branch_bsw
        kept_b11 = torch.rand(len(branch_bsw), 1, 1, device=branch_bsw.device) >= self.drop_path
        return branch_bsw * kept_b11 / (1 - self.drop_path)


class Tower(nn.Module):
    """Convolutions with LayerNorm and ReLU, then an output convolution; the same for every level."""

    def __init__(self, width: int, dim_out: int, *, num_layers: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(TimeConv(width, width, 3) for _ in range(num_layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(num_layers))
        self.out = TimeConv(width, dim_out, 3)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """(B, steps, W) of each level -> (B, S, outputs)."""
        # in a row with a zero after each level, as beyond its end: one pass over the weights in place of one a level
        sizes = [level.shape[1] + 1 for level in levels]
        x_bjw = torch.cat([functional.pad(level, (0, 0, 0, 1)) for level in levels], 1)
        is_real_j1 = torch.cat([functional.pad(level.new_ones(level.shape[1], 1), (0, 0, 0, 1)) for level in levels])
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x_bjw = functional.relu(norm(conv(x_bjw))) * is_real_j1
        return torch.cat([of_level[:, :-1] for of_level in self.out(x_bjw).split(sizes, 1)], 1)


class ActionFormerHead(Head):
    """Projection, pyramid, and two towers: presence of each class, and the distance to the event in strides."""

    def __init__(self, settings: ActionFormerSettings, trunk: Trunk, num_classes: int) -> None:
        super().__init__()
        self.settings, self.trunk = settings, trunk
        width = settings.width
        dims = [trunk.dim] + [width] * settings.num_projections
        self.projections = nn.ModuleList(TimeConv(a, b, 3) for a, b in pairwise(dims))
        self.projection_norms = nn.ModuleList(nn.LayerNorm(width) for _ in dims[1:])
        self.stem = nn.ModuleList(LocalBlock(settings, stride=1) for _ in range(settings.num_stem_blocks))
        self.strided = nn.ModuleList(LocalBlock(settings, stride=2) for _ in range(settings.num_levels - 1))
        self.level_norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(settings.num_levels))
        self.presence = Tower(width, num_classes, num_layers=settings.num_tower_layers)
        self.distance = Tower(width, 1, num_layers=settings.num_tower_layers)
        self.level_scale = nn.Parameter(torch.ones(settings.num_levels))
        average = nn.Buffer(torch.tensor(_FIRST_NUM_POSITIVE)) if settings.loss_momentum else None
        self.num_positive: Tensor | None = average
        assert self.presence.out.conv.bias is not None
        nn.init.constant_(self.presence.out.conv.bias, PRIOR_LOGIT)

    def forward(self, features_btc: Tensor) -> HeadOutputs:
        """-> logits (B, S, K), offsets (B, S) in strides of their level."""
        x_btw = self.trunk(features_btc)
        for conv, norm in zip(self.projections, self.projection_norms, strict=True):
            x_btw = functional.relu(norm(conv(x_btw)))
        for block in self.stem:
            x_btw = block(x_btw)
        levels = []
        for level, norm in enumerate(self.level_norms):
            if level:
                x_btw = self.strided[level - 1](x_btw)
            levels.append(norm(x_btw))
        scale_s = torch.cat([scale.expand(y.shape[1]) for scale, y in zip(self.level_scale, levels, strict=True)])
        offset_bs = self.distance(levels).squeeze(-1) * scale_s
        return HeadOutputs(self.presence(levels), offset_bs, features_btc.shape[1])

    def loss(self, outputs: HeadOutputs, targets: Targets) -> Tensor:
        """Scalar: sigmoid focal loss of the presence, plus smooth L1 of the distance where a level owns an event."""
        assert outputs.offsets is not None
        position_s, stride_s = self._places(outputs)
        radius_s1 = self.settings.centre_radius * stride_s.unsqueeze(-1)
        offset_bsk = targets.offset_btk[:, position_s]
        distance_bsk = offset_bsk.abs()
        owned_bsk = (distance_bsk <= radius_s1) & ((distance_bsk > radius_s1 / 2) | (stride_s.unsqueeze(-1) == 1))
        mask_bs = targets.mask_bt[:, position_s]
        presence_bsk, is_positive_bs = owned_bsk.float(), owned_bsk.any(-1) & mask_bs
        presence_loss = sigmoid_focal(outputs.logits, presence_bsk, mask_bs, alpha=self.settings.focal_alpha)
        nearest_bs1 = distance_bsk.masked_fill(~owned_bsk, math.inf).argmin(-1, keepdim=True)
        wanted_bs = offset_bsk.gather(-1, nearest_bs1).squeeze(-1) / stride_s
        error_bs = functional.smooth_l1_loss(
            outputs.offsets.float(), wanted_bs, beta=self.settings.smooth_l1_beta, reduction="none"
        )
        distance_loss = error_bs.masked_fill(~is_positive_bs, 0.0).sum()
        return (presence_loss + distance_loss) / self._num_positive(is_positive_bs)

    def _num_positive(self, is_positive_bs: Tensor) -> Tensor:
        """Points with an event: the moving average in training, else the batch's."""
        now = is_positive_bs.sum().clamp(min=1)
        if self.num_positive is None or not self.training:
            return now
        with torch.no_grad():
            self.num_positive.lerp_(now.to(self.num_positive), 1 - self.settings.loss_momentum)
        return self.num_positive.clone()

    def scores(self, outputs: HeadOutputs) -> Tensor:
        """(B, T, K): the confidence of every step of every level, moved by its distance; the highest stays."""
        assert outputs.offsets is not None
        position_s, stride_s = self._places(outputs)
        return move_scores(
            outputs.logits.float().sigmoid(),
            position_s + outputs.offsets.float() * stride_s,
            num_steps=outputs.num_steps,
        )

    def _places(self, outputs: HeadOutputs) -> tuple[Tensor, Tensor]:
        """(S,) clip step of each place, and the stride of its level."""
        device = outputs.logits.device
        strides = [2**level for level in range(self.settings.num_levels)]
        positions = [torch.arange(0, outputs.num_steps, stride, device=device) for stride in strides]
        repeats = [torch.full_like(position, stride) for position, stride in zip(positions, strides, strict=True)]
        return torch.cat(positions), torch.cat(repeats)


def local_attention(q_bshd: Tensor, k_bshd: Tensor, v_bshd: Tensor, *, window_steps: int) -> Tensor:
    """Attention of every step to the steps within `window_steps` (odd) centred on it.

    Blocks of queries meet the keys around them, so that time and memory are linear in the clip's length.

    Args:
        q_bshd, k_bshd, v_bshd: (B, S, H, W / H).
        window_steps: V.

    Returns:
        (B, S, H, W / H).
    """
    num_steps, side = q_bshd.shape[1], window_steps // 2
    block = min(num_steps, 4 * side + 1)
    real_bs = q_bshd.new_ones(1, num_steps, dtype=torch.bool)
    missing = -num_steps % block
    q_bnhid = functional.pad(q_bshd, (0, 0, 0, 0, 0, missing)).unfold(1, block, block).transpose(-1, -2)
    around = (side, side + missing)
    k_bnhjd, v_bnhjd = (
        functional.pad(x, (0, 0, 0, 0, *around)).unfold(1, block + 2 * side, block).transpose(-1, -2)
        for x in (k_bshd, v_bshd)
    )
    real_bnj = functional.pad(real_bs, around).unfold(1, block + 2 * side, block)
    ahead_ij = torch.arange(block + 2 * side, device=q_bshd.device) - torch.arange(block, device=q_bshd.device)[:, None]
    near_ij = (ahead_ij >= 0) & (ahead_ij <= 2 * side)
    may_see_bn1ij = ((near_ij & real_bnj[:, :, None]) | (ahead_ij == side)).unsqueeze(2)  # itself: no empty softmax
    out_bnhid = functional.scaled_dot_product_attention(q_bnhid, k_bnhjd, v_bnhjd, attn_mask=may_see_bn1ij)
    return out_bnhid.transpose(2, 3).flatten(1, 2)[:, :num_steps]
