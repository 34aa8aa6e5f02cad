"""Where the backbone's weights of a store came from. It changes no number, so it is no part of the settings key."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import reading_record


@dataclass(frozen=True, kw_only=True)
class WeightsOrigin:
    """A weights file, or a finetuned run. Round-trips through JSON."""

    name: str
    """`kinetics` or the like, the weights file's name, or the name of the run's folder."""
    file_sha256: str
    """SHA-256 of the weights file."""
    run_sha256: str | None = None
    """SHA-256 of the run's `run.json`, which names the tensors; None where they come from no run of ours."""
    epoch: int | None = None
    """The run's epoch (from 1) whose weights these are."""
    train_matches: tuple[str, ...] = ()
    """Matches that the backbone was finetuned on."""
    valid_matches: tuple[str, ...] = ()
    """Matches that chose the epoch."""

    def __post_init__(self) -> None:
        for text in (self.name, self.file_sha256, *self.train_matches, *self.valid_matches):
            if not isinstance(text, str):
                raise TypeError(f"{text!r} is no text")
        if not isinstance(self.run_sha256, str | None) or type(self.epoch) not in (int, type(None)):
            raise TypeError(f"run {self.run_sha256!r}, epoch {self.epoch!r}")
        if not isinstance(self.train_matches, tuple) or not isinstance(self.valid_matches, tuple):
            raise TypeError("matches are no lists")

    @property
    def is_run(self) -> bool:
        """Whether it is a finetuned run."""
        return self.run_sha256 is not None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any], *, where: str) -> "WeightsOrigin":
        """Inverse of `to_json`.

        Raises:
            InputError: a field is missing or unknown, or a name is no text.
        """
        with reading_record(f"{where}: the origin of the weights is damaged"):
            values: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
            }
            return cls(**values)

    def told(self) -> str:
        """In one line for people."""
        if self.run_sha256 is None:
            return f"{self.name}, file SHA-256 {self.file_sha256[:12]}..."
        return (
            f"finetuned run {self.name} (run.json SHA-256 {self.run_sha256[:12]}...), epoch {self.epoch}, trained on "
            f"{_listed(self.train_matches)}; chosen on {_listed(self.valid_matches)}"
        )

    def flattery(self, match_ids: Sequence[str]) -> str:
        """In one line, which of the matches the backbone was finetuned on; empty where it was on none."""
        seen = [match_id for match_id in match_ids if match_id in self.train_matches]
        if not seen:
            return ""
        return (
            f"{len(seen)} of {len(match_ids)} validation matches trained the backbone of these features (run "
            f"{self.name}), so figures on them flatter: {', '.join(seen)}"
        )


def _listed(match_ids: tuple[str, ...]) -> str:
    return f"{len(match_ids)} match{'es' if len(match_ids) != 1 else ''}: {', '.join(match_ids)}"
