"""Validation of a network that is being finetuned: by the way it will be used, `bas extract` and then the head."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from ..cache.bank import bank_of_rows
from ..extract.extractor import Extractor
from ..extract.match_rows import collect_rows
from ..extract.options import share_out
from ..extract.run import RowsDone
from ..heads.scoring import FloatArray, match_scores
from ..heads.training.settings import ScoringPlan
from ..heads.training.data import Chosen, LabelledMatch
from ..heads.training.evaluator import Choice, Referee, Verdict
from ..heads.training.settings import FinetuneSettings
from .net import FinetuneNet, gathered, num_processes, process_index
from .source import VideoSource


@dataclass(frozen=True)
class VideoJudge:
    """The validation matches: rows of the backbone as it is, then the head; several processes share them out."""

    source: VideoSource
    """Its extractor holds a backbone of its own, which takes the weights that are judged."""
    referee: Referee
    plan: ScoringPlan
    device: torch.device
    """Where the head runs."""
    on_progress: Callable[[RowsDone], None] = lambda _: None

    @classmethod
    def of(
        cls,
        chosen: Chosen,
        source: VideoSource,
        settings: FinetuneSettings,
        *,
        device: torch.device,
        on_progress: Callable[[RowsDone], None],
    ) -> "VideoJudge":
        """A judge of the matches chosen for validation."""
        return cls(source, Referee.of(chosen), settings.scoring_plan, device, on_progress)

    def verdict(self, net: FinetuneNet) -> Verdict:
        """Validation mAP with the default peaks; leaves the network in training mode."""
        return self.referee.verdict(self.scores(net))

    def choose(self, net: FinetuneNet) -> Choice:
        """The best peaks, and a calibration fitted on them."""
        return self.referee.choose(self.scores(net))

    def scores(self, net: FinetuneNet) -> list[FloatArray]:
        """(rows, K) of each match."""
        matches = self.referee.matches
        mine = share_out([match.num_rows for match in matches], index=process_index(), count=num_processes())
        extractor = extractor_of(net, self.source.extractor)
        net.eval()
        found = [(number, self._match_scores(net, extractor, matches[number])) for number in mine]
        net.train()
        by_number = {number: scores for part in gathered(found) for number, scores in part}
        return [by_number[number] for number in range(len(matches))]

    def _match_scores(self, net: FinetuneNet, extractor: Extractor, match: LabelledMatch) -> FloatArray:
        video = self.source.video(match.id)
        rows_rc, _ = collect_rows(video, extractor, view="identity", match_id=match.id, on_progress=self.on_progress)
        bank = bank_of_rows(rows_rc, match_id=match.id, device=self.device)
        num_classes = len(self.referee.classes)
        return match_scores(net.spotting, bank.gather, bank.num_rows, self.plan, num_classes=num_classes)


def extractor_of(net: FinetuneNet, like: Extractor) -> Extractor:
    """What makes rows with the backbone as it is, now."""
    backbone = copy.deepcopy(like.module)
    backbone.load_state_dict({name: tensor.cpu() for name, tensor in net.backbone.state_dict().items()})
    return replace(like, module=backbone.eval(), _engines={})
