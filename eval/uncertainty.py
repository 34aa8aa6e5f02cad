"""How sure a score is: resampled blocks of time, and what chance would score.

Legend: B blocks, R resamples, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ..errors import InputError
from .spots import FloatArray, Game, IntArray, Spots


@dataclass(frozen=True)
class Resampling:
    """How the bootstrap draws."""

    num_resamples: int = 500
    """>= 0; 0: no intervals."""
    block_seconds: int = 300
    """Length of a block, > 0: events within it are kept together, since neighbours depend on each other."""
    level: float = 0.95
    """Share of the resamples inside the interval, 0 to 1."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_resamples < 0 or self.block_seconds < 1 or not 0 < self.level < 1:
            raise InputError("resampling is not usable", got=self, wanted="resamples >= 0, block >= 1 s, level in 0..1")

    def block_frames(self, fps: Fraction) -> int:
        """Length of a block in cells, at least 1."""
        return max(1, int(self.block_seconds * fps))

    def weights(self, game_of_block: IntArray) -> FloatArray:
        """(R, B) how often each block is drawn: games with replacement, then each one's blocks with replacement."""
        generator = np.random.default_rng(self.seed)
        blocks = [np.nonzero(game_of_block == game)[0] for game in np.unique(game_of_block)]
        weights = np.zeros((self.num_resamples, len(game_of_block)))
        for row in weights:
            for game in generator.integers(0, len(blocks), len(blocks)):
                drawn = generator.choice(blocks[game], len(blocks[game]))
                np.add.at(row, drawn, 1.0)
        return weights

    def interval(self, samples: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Percentile interval over the first axis, (R, ...) -> two of (...); NaN samples are left out."""
        outside = (1 - self.level) / 2
        empty = np.isnan(samples).all(axis=0)
        filled = np.where(empty, 0.0, samples)
        low, high = np.nanquantile(filled, [outside, 1 - outside], axis=0)
        return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


def chance_games(
    games: Sequence[Game], fps: Fraction, *, draw: int, per_second: float = 1.0, seed: int = 0
) -> list[Game]:
    """The same events with predictions that know nothing.

    For each class, `per_second` instants per second of the game on average, uniform over its cells, each with a
    uniform score in 0..1. A game lasts until its last event or prediction.

    Args:
        games: whose events are kept.
        fps: cells per second.
        draw: number of the draw; each is another random sequence.
        per_second: density for each class; SoccerNet's real predictions have one every 0.5 to 2 s.
        seed: of all draws.
    """
    chance = []
    for index, game in enumerate(games):
        generator = np.random.default_rng([seed, draw, index])
        num_frames, num_classes = game.num_frames, game.num_classes
        num_spots = round(float(num_frames / fps) * per_second) * num_classes
        predictions = Spots.collect(
            generator.integers(0, max(num_frames, 1), num_spots),
            np.arange(num_spots) % num_classes,
            generator.random(num_spots),
            num_classes=num_classes,
        )
        chance.append(Game(game.events, predictions))
    return chance
