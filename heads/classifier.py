"""The common end of most heads: a classifier over the trunk, and `+disp`.

Shapes: B clips, T steps, C feature channels, D trunk channels, K classes, N = K + 1 with background 0.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from .contract import Head, HeadOutputs, Trunk
from .losses import PRESENCE_LOSSES, PRIOR_LOGIT, SOFTMAX_LOSSES, mean_where
from .ops import move_scores
from .targets import Targets
from .training.settings import LossName


class ClassifierHead(Head):
    """Trunk, dropout, then linear D -> N with softmax; with `displacement` also linear D -> 1, in steps.

    With the losses `bce` and `bce_focal` linear D -> K with sigmoids instead: two classes may share a step.

    Displacement: Soares et al., Temporally Precise Action Spotting in Soccer Videos Using Dense Detection Anchors,
    ICIP 2022; learned by squared error as in T-DEED, over all steps, 0 where no (dilated) label is.
    """

    def __init__(
        self, trunk: Trunk, *, num_classes: int, loss: LossName, displacement: bool, dropout: float | None = None
    ) -> None:
        """`loss` is one of `SOFTMAX_LOSSES` or `PRESENCE_LOSSES`; `dropout` by default that of the last neck."""
        super().__init__()
        self.trunk = trunk
        self.dropout = nn.Dropout(trunk.classifier_dropout if dropout is None else dropout)
        self.is_softmax = loss in SOFTMAX_LOSSES
        self.classifier = nn.Linear(trunk.dim, num_classes + self.is_softmax)
        if not self.is_softmax:
            nn.init.constant_(self.classifier.bias, PRIOR_LOGIT)
        self.displacement = nn.Linear(trunk.dim, 1) if displacement else None
        self.loss_name = loss

    def forward(self, features_btc: Tensor) -> HeadOutputs:
        """-> logits (B, T, N), or (B, T, K) with sigmoids; offsets (B, T) in steps or None. Raises as `Trunk`."""
        x_btd = self.dropout(self.trunk(features_btc))
        offsets_bt = None if self.displacement is None else self.displacement(x_btd).squeeze(-1)
        return HeadOutputs(self.classifier(x_btd), offsets_bt, num_steps=x_btd.shape[1])

    def loss(self, outputs: HeadOutputs, targets: Targets) -> Tensor:
        """Scalar: the classifier's loss, plus the squared error of the displacement in steps squared."""
        if self.is_softmax:
            loss = SOFTMAX_LOSSES[self.loss_name](outputs.logits, targets.label_btn, targets.mask_bt)
        else:
            loss = PRESENCE_LOSSES[self.loss_name](outputs.logits, targets.presence_btk, targets.mask_bt)
        if outputs.offsets is None:
            return loss
        wanted_bt = targets.displacement_bt.masked_fill(targets.class_bt == 0, 0.0)
        error_bt = functional.mse_loss(outputs.offsets.float(), wanted_bt, reduction="none")
        return loss + mean_where(error_bt, targets.mask_bt)

    def scores(self, outputs: HeadOutputs) -> Tensor:
        """(B, T, K): probabilities, moved by the displacement where there is one."""
        logits = outputs.logits.float()
        probability_btk = logits.softmax(-1)[..., 1:] if self.is_softmax else logits.sigmoid()
        if outputs.offsets is None:
            return probability_btk
        position_bt = torch.arange(outputs.num_steps, device=probability_btk.device) + outputs.offsets.float()
        return move_scores(probability_btk, position_bt, num_steps=outputs.num_steps)
