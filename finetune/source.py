"""The videos of a data set, opened once: what training draws clips from and validation runs through."""

from dataclasses import dataclass, field

from ..data.sources import DataSet, Match
from ..errors import InputError
from ..events import TimeGrid
from ..extract.extractor import Extractor
from ..extract.video.reader import Video
from ..heads.training.data import Matches, MatchLabels


@dataclass
class VideoSource:
    """Videos by match id, opened when they are first asked for."""

    data_set: DataSet
    extractor: Extractor
    """Says on which grid and at which size they are read."""
    _videos: dict[str, Video] = field(default_factory=dict, repr=False)

    def matches(self) -> Matches:
        """The data set's matches, to choose from."""
        split_of = {match.id: match.split for match in self.data_set.matches}
        root, again = str(self.data_set.root), "run the same command again"
        return Matches(root, self.data_set.classes, split_of, self._labels, again)

    def video(self, match_id: str) -> Video:
        """The video of a match.

        Raises:
            InputError: missing, or not readable.
        """
        if match_id not in self._videos:
            self._videos[match_id] = self.extractor.open(self._match(match_id).require_video())
        return self._videos[match_id]

    def _labels(self, match_id: str) -> MatchLabels:
        events = self.data_set.events(self._match(match_id))
        if events is None:  # before its video is read, which may take a while
            raise InputError(
                f"{self.data_set.root}: match {match_id!r} has no labels",
                got="a video alone",
                wanted="Labels-ball.json beside it",
                cure="label it, or move it out of the splits train and valid (splits.json)",
            )
        grid = self.video(match_id).grid
        return MatchLabels(grid.num_steps, TimeGrid(grid.fps), events)

    def _match(self, match_id: str) -> Match:
        return next(match for match in self.data_set.matches if match.id == match_id)
