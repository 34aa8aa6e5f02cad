"""Confidences over a whole match: overlapping windows, blended.

Legend: R rows of the match, B windows, T steps, K classes. A step is `stride` rows; the rows are `stride` phases,
scored apart and interleaved.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .contract import HeadOutputs
from .model import SpottingModel
from .training.data import window_starts
from .training.settings import ScoringPlan

FloatArray = NDArray[np.float32]


def blend_weights(num_steps: int) -> Tensor:
    """(T,) share of each step of a window in the blend: a Hann window, which is above zero everywhere."""
    place = (torch.arange(num_steps, dtype=torch.float32) + 0.5) / num_steps  # torch's own begins with a zero
    return torch.sin(torch.pi * place) ** 2


def window_batches(plan: ScoringPlan, num_rows: int) -> Iterator[Tensor]:
    """Rows (B, T) of the windows of a match, phase after phase."""
    for phase in range(min(plan.stride, num_rows)):
        num_steps = -(-(num_rows - phase) // plan.stride)
        length = min(plan.window_steps, num_steps)
        first_b = window_starts(num_steps, clip_len=length, stride=1, hop_rows=plan.hop_steps)
        at_once = max(1, plan.steps_per_call // length)
        for start in range(0, len(first_b), at_once):
            step_bt = torch.from_numpy(first_b[start : start + at_once])[:, None] + torch.arange(length)
            yield phase + plan.stride * step_bt


@torch.inference_mode()
def match_scores(
    model: SpottingModel,
    gather: Callable[[Tensor], Tensor],
    num_rows: int,
    plan: ScoringPlan,
    *,
    num_classes: int,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    on_outputs: Callable[[HeadOutputs, Tensor], None] = lambda _outputs, _index: None,
) -> FloatArray:
    """Confidences of every row of a match.

    Args:
        model: in eval mode.
        gather: indices (B, T) of the match's rows -> features (B, T, C) float32 on the model's device.
        num_rows: R >= 1.
        plan: the windows.
        num_classes: K.
        on_progress: called with steps of windows done and in all.
        on_outputs: called with the outputs of some windows and their rows (B, T).

    Returns:
        (R, K) float32 in [0, 1].
    """
    device = next(model.parameters()).device
    total_rk = torch.zeros(num_rows, num_classes, device=device)
    weight_r1 = torch.zeros(num_rows, 1, device=device)
    batches = list(window_batches(plan, num_rows))
    num_done, num_all = 0, sum(index_bt.numel() for index_bt in batches)
    for index_bt in batches:
        with torch.autocast(device.type, torch.float16, enabled=plan.half and device.type == "cuda"):
            outputs = model(gather(index_bt))
            scores_btk = model.scores(outputs).float()
            on_outputs(outputs, index_bt)
        weight_t1 = blend_weights(index_bt.shape[1]).to(device)[:, None]
        place = index_bt.flatten().to(device)
        total_rk.index_add_(0, place, (scores_btk * weight_t1).flatten(0, 1))
        weight_r1.index_add_(0, place, weight_t1.expand(len(index_bt), -1, 1).flatten(0, 1))
        num_done += index_bt.numel()
        on_progress(num_done, num_all)
    scores_rk: FloatArray = (total_rk / weight_r1).cpu().numpy()
    return scores_rk
