"""`anchor`: temporal anchors of several lengths on every step.

Shapes: B clips, T steps, C channels, W width, A anchors per step, K classes. Lengths are in steps, which are frames
at one row per frame. Same output wherever an event happens (translation equivariant away from the ends).
Anchors in time: Gao et al., TURN TAP, ICCV 2017; for spotting: Soares et al., ICIP 2022.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from .contract import Head, HeadOutputs, Trunk, require
from .losses import PRIOR_LOGIT, mean_where, num_present, sigmoid_focal
from .ops import TimeConv, move_scores
from .targets import Targets


@dataclass(frozen=True)
class AnchorSettings:
    """Settings of `anchor`."""

    lengths_steps: tuple[int, ...] = (8, 16, 32)
    """Anchors, all centred on every step; one is positive if its centre is within a quarter of it of the event."""
    event_steps: int = 16
    """Nominal length of an event around its instant."""
    width: int = 256
    """W, of the tower."""
    dilations: tuple[int, ...] = (1, 2, 4, 8)
    """Of the tower's convolutions (kernel 3); with these it sees 16 steps to each side, the longest anchor."""
    smooth_l1_beta: float = 0.05
    """Where the offset's loss turns from square to linear, in anchor lengths, > 0. Offsets are at most 0.25: with the
    usual 1 their gradient vanishes beside that of the presence."""

    def __post_init__(self) -> None:
        ok = len(self.lengths_steps) > 0 and min(self.lengths_steps) >= 1
        require(ok, "anchors are not usable", got=self.lengths_steps, wanted="at least one length >= 1 step")
        require(self.smooth_l1_beta > 0, "beta is not usable", got=self.smooth_l1_beta, wanted="> 0")

    def build_head(self, trunk: Trunk, num_classes: int) -> "AnchorHead":
        return AnchorHead(self, trunk, num_classes)


class AnchorHead(Head):
    """Residual dilated tower; per step and anchor, presence of each class and offsets of start, centre and end."""

    def __init__(self, settings: AnchorSettings, trunk: Trunk, num_classes: int) -> None:
        super().__init__()
        self.settings, self.trunk = settings, trunk
        width, num_anchors = settings.width, len(settings.lengths_steps)
        self.stem = TimeConv(trunk.dim, width, 3)
        self.convs = nn.ModuleList(TimeConv(width, width, 3, dilation=dilation) for dilation in settings.dilations)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in settings.dilations)
        self.presence = nn.Linear(width, num_anchors * num_classes)
        self.offsets = nn.Linear(width, num_anchors * 3)
        nn.init.constant_(self.presence.bias, PRIOR_LOGIT)
        nn.init.normal_(self.offsets.weight, 0, 0.01)  # offsets are at most a quarter: start near none
        nn.init.zeros_(self.offsets.bias)

    def forward(self, features_btc: Tensor) -> HeadOutputs:
        """-> logits (B, T, A, K), offsets (B, T, A, 3) of start, centre, end in anchor lengths."""
        x_btw = self.stem(self.trunk(features_btc))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x_btw = x_btw + functional.relu(norm(conv(x_btw)))
        num_anchors = len(self.settings.lengths_steps)
        logits_btak = self.presence(x_btw).unflatten(-1, (num_anchors, -1))
        return HeadOutputs(logits_btak, self.offsets(x_btw).unflatten(-1, (num_anchors, 3)), x_btw.shape[1])

    def loss(self, outputs: HeadOutputs, targets: Targets) -> Tensor:
        """Scalar: sigmoid focal loss of the presence, plus smooth L1 of the offsets of positive anchors."""
        assert outputs.offsets is not None
        positive_btak = self._positive(targets)
        mask_bta = targets.mask_bt.unsqueeze(-1).expand(-1, -1, positive_btak.shape[2])
        presence_btak = positive_btak.float()
        presence_loss = sigmoid_focal(outputs.logits, presence_btak, mask_bta) / num_present(presence_btak, mask_bta)
        error_bta3 = functional.smooth_l1_loss(
            outputs.offsets.float(),
            self._wanted_offsets(targets.displacement_bt),
            beta=self.settings.smooth_l1_beta,
            reduction="none",
        )
        chosen_bta = positive_btak.any(-1) & mask_bta
        return presence_loss + mean_where(error_bta3, chosen_bta.unsqueeze(-1).expand_as(error_bta3))

    def scores(self, outputs: HeadOutputs) -> Tensor:
        """(B, T, K): each anchor's confidence, moved by its centre offset; the highest stays."""
        assert outputs.offsets is not None
        presence_btak = outputs.logits.float().sigmoid()
        presence_btw = presence_btak.flatten(2)
        step_t1 = torch.arange(outputs.num_steps, device=presence_btw.device).unsqueeze(1)
        position_bta = step_t1 + outputs.offsets[..., 1].float() * self._lengths(presence_btw)
        return move_scores(
            presence_btw.reshape(len(presence_btw), -1, presence_btak.shape[-1]),
            position_bta.flatten(1, 2),
            num_steps=outputs.num_steps,
        )

    def _lengths(self, like: Tensor) -> Tensor:
        return torch.tensor(self.settings.lengths_steps, device=like.device, dtype=torch.float32)

    def _positive(self, targets: Targets) -> Tensor:
        """(B, T, A, K) bool."""
        distance_bt1k = targets.offset_btk.abs().unsqueeze(2)
        return distance_bt1k <= self._lengths(distance_bt1k).unsqueeze(-1) / 4

    def _wanted_offsets(self, displacement_bt: Tensor) -> Tensor:
        """(B, T, A, 3): from the anchor's start, centre and end to those of the nearest event, in anchor lengths."""
        lengths_a = self._lengths(displacement_bt)
        centre_bta = displacement_bt.unsqueeze(-1).expand(-1, -1, len(lengths_a))
        narrower_a = (lengths_a - self.settings.event_steps) / 2
        return torch.stack([centre_bta + narrower_a, centre_bta, centre_bta - narrower_a], -1) / lengths_a.unsqueeze(-1)
