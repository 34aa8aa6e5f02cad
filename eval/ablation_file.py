"""Reads the table that `bas ablate` leaves in its folder: `ablation.json`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..events import read_json
from .ablation import FORMAT, TABLE


@dataclass(frozen=True)
class Trained:
    """One finished run of a recipe."""

    seed: int
    run: Path
    """Its folder."""
    store: Path
    """Features and labels that it was trained on."""
    predictions: Path
    """What it found on the judged split."""


@dataclass(frozen=True)
class Row:
    """A recipe."""

    name: str
    """The recipe's; with the store's where it runs on several."""
    runs: tuple[Trained, ...]
    """Finished ones, by seed."""
    record: Mapping[str, Any]
    """The row as it stands in the file, for the table."""


@dataclass(frozen=True)
class Ablation:
    """All recipes on one data set."""

    path: Path
    """The folder."""
    sources: tuple[Path, ...]
    """Data set folders and stores that it was made from, where they can be found."""
    split: str
    """Judged."""
    rows: tuple[Row, ...]
    chance: Mapping[str, float]
    """Name of a mean -> what chance scores, 0 to 1."""

    @classmethod
    def read(cls, path: Path) -> "Ablation":
        """From the folder that `bas ablate --out` made, finished or under way.

        Raises:
            InputError: another format, or damaged.
        """
        where = path / TABLE
        record = read_json(where)
        found = record.get("format") if isinstance(record, Mapping) else type(record).__name__
        if found != FORMAT:
            raise InputError(f"{where}: another format", got=found, wanted=FORMAT, cure="use the bas that made it")
        try:
            sources = [Path(source) for source in record["sources"]]
            return cls(
                path=path,
                sources=tuple(path / source for source in sources if (path / source).exists()),
                split=str(record["split"]),
                rows=tuple(_row(path, row) for row in record["rows"]),
                chance={str(name): float(value) for name, value in record["chance"].items()},
            )
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise InputError(f"{where}: damaged", got=repr(error)[:120], cure="run bas ablate again") from None


def _row(path: Path, record: Mapping[str, Any]) -> Row:
    runs = [
        Trained(int(run["seed"]), path / run["run"], path / run["store"], path / run["predictions"])
        for run in record["runs"]
    ]
    return Row(str(record.get("name") or record["recipe"]), tuple(sorted(runs, key=lambda run: run.seed)), record)
