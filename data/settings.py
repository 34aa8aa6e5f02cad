"""What the user can ask of `bas data proxy` and `bas data synthetic`. Nothing here imports PyAV."""

from dataclasses import dataclass
from typing import Any, Literal

from ..errors import InputError

ExportFormat = Literal["soccernet", "osl", "csv", "edl", "fcpxml", "vtt", "ffmetadata", "clips", "footpass"]
X264_PRESET = "veryfast"
_MAX_MATCHES = 1000


@dataclass(frozen=True, kw_only=True)
class ProxySettings:
    """How small copies of videos are made."""

    size: tuple[int, int] = (398, 224)
    """Width x height that a picture takes at most; its aspect is kept, and none is made larger."""
    gop: int = 12
    """Frames from one key frame to the next at most."""
    crf: int = 18
    """Quality of x264, 0 (lossless) to 51; 6 more halve the size."""
    max_bad_share: float = 0.05
    """Largest share of undecodable frames with which a video is accepted, 0 to 1."""

    def __post_init__(self) -> None:
        if min(self.size) < 16:
            raise InputError("--size is not usable", got="x".join(map(str, self.size)), wanted="16x16 or more")
        if self.gop < 1:
            raise InputError("--gop is not usable", got=self.gop, wanted="1 or more frames")
        if not 0 <= self.crf <= 51:
            raise InputError("--crf is not usable", got=self.crf, wanted="0 (lossless) to 51 (worst)")

    def to_json(self) -> dict[str, Any]:
        """What decides the bytes of a copy, as plain JSON values."""
        width, height = self.size
        return {"width": width, "height": height, "gop": self.gop, "crf": self.crf, "preset": X264_PRESET}


@dataclass(frozen=True)
class SyntheticSettings:
    """What decides every byte of a synthetic data set."""

    minutes: float = 20.0
    """Length of all matches together."""
    matches: int = 7
    """Number of matches, 3 or more; about 4/7 train, 1/7 valid, 2/7 test."""
    seed: int = 0
    """Seed of all chance; another one gives other matches."""
    variety: float = 1.0
    """How different the matches look, 0 to 1."""

    def __post_init__(self) -> None:
        if not 0 < self.minutes < float("inf"):
            raise InputError("--minutes is not usable", got=self.minutes, wanted="a number > 0")
        if not 3 <= self.matches <= _MAX_MATCHES:
            wanted = f"3 to {_MAX_MATCHES}: each split needs a match of its own"
            raise InputError("--matches is not usable", got=self.matches, wanted=wanted)
        if self.seed < 0:
            raise InputError("--seed is not usable", got=self.seed, wanted="a whole number >= 0")
        if not 0 <= self.variety <= 1:
            raise InputError("--variety is not usable", got=self.variety, wanted="0 to 1")
        if (seconds := self.minutes * 60 / self.matches) < 2:
            cure = "more --minutes, or fewer --matches"
            raise InputError(
                "the matches would be too short", got=f"{seconds:.2f} s each", wanted="2 s or more", cure=cure
            )
