"""The table of `bas ablate`: recipes by seeds, as `ablation.json` and `ablation.csv` hold it."""

import csv
import io
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..cache.settings import Depth
from ..errors import InputError, reading_record, refuse_differing
from ..eval.report import Score, finite
from ..files import read_json, write_json_atomic, write_text_atomic

FORMAT, TABLE, SHEET = "bas-ablation-1", "ablation.json", "ablation.csv"
Status = Literal["done", "failed", "pending"]
_MEASURES = ("value", "low", "high", "chance")
_OWN = ("name", "recipe", "about", "backbone", "depth", "head", "weights", "frames_per_epoch", "num_seeds")
"""Fields of a row that stand in the file as they are."""


@dataclass(frozen=True, kw_only=True)
class SeedRun:
    """One recipe trained with one seed, and the scores of its predictions."""

    seed: int
    run: str
    """Its folder, relative to the table's, or absolute."""
    store: str
    """The features, likewise."""
    predictions: str
    """Folder of the predictions, likewise."""
    seconds: float
    """Spent in its epochs, validation included, over all parts of an interrupted training."""
    parameters: int
    means: Mapping[str, Mapping[str, float | None]]
    """Name of a mean (`mAP-10`, ...) -> value, low, high, chance, 0 to 1; None where not defined."""

    @staticmethod
    def plain(means: Mapping[str, Score]) -> dict[str, dict[str, float | None]]:
        """Scores of a report as `means` holds them."""
        return {name: {each: finite(getattr(score, each)) for each in _MEASURES} for name, score in means.items()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "SeedRun":
        """What `vars` gave."""
        means = record["means"].items()
        return cls(
            seed=int(record["seed"]),
            run=str(record["run"]),
            store=str(record["store"]),
            predictions=str(record["predictions"]),
            seconds=float(record["seconds"]),
            parameters=int(record["parameters"]),
            means={
                name: {each: None if score[each] is None else float(score[each]) for each in _MEASURES}
                for name, score in means
            },
        )


@dataclass(frozen=True, kw_only=True)
class Row:
    """One recipe on one store, over its seeds."""

    name: str
    """The recipe's, with `@` and the store's where it runs on several."""
    recipe: str
    about: str
    backbone: str
    depth: Depth
    head: str
    weights: str
    published: Mapping[str, Any] | None
    """`map_10`, `map_12` in %, `source`; None where nothing is published, or for another backbone."""
    frames_per_epoch: int
    """Steps of an epoch; 0 while the store is not there."""
    num_seeds: int
    """Asked for."""
    runs: tuple[SeedRun, ...] = ()
    """Finished ones, by seed."""
    failures: Mapping[str, str] = field(default_factory=dict)
    """What failed (`seed 2`, or nothing for all of it) -> why."""

    @property
    def status(self) -> Status:
        """`done` where every seed has its scores."""
        if self.failures:
            return "failed"
        return "done" if len(self.runs) == self.num_seeds else "pending"

    @property
    def error(self) -> str:
        """Why it failed; the same reason of several seeds once."""
        by_reason: dict[str, list[str]] = {}
        for what, why in self.failures.items():
            by_reason.setdefault(why, []).append(what)
        return "\n".join(f"{', '.join(what)}: {why}" if any(what) else why for why, what in by_reason.items())

    def over_seeds(self, measure: str) -> dict[str, float]:
        """Mean over the finished runs of `value`, `low`, `high` or `chance`, by name of the mean."""
        return {name: statistics.fmean(values) for name, values in self._values(measure).items()}

    def sd(self) -> dict[str, float] | None:
        """Standard deviation over seeds by name of the mean; None for fewer than two."""
        if len(self.runs) < 2:
            return None
        return {name: statistics.stdev(values) for name, values in self._values("value").items()}

    @property
    def parameters(self) -> int | None:
        """Of the head; None before a run is finished."""
        return self.runs[0].parameters if self.runs else None

    @property
    def seconds(self) -> float | None:
        """Mean time to train; None before a run is finished."""
        return statistics.fmean(run.seconds for run in self.runs) if self.runs else None

    def with_run(self, run: SeedRun) -> "Row":
        """The row with one more finished run."""
        return replace(self, runs=tuple(sorted((*self.runs, run), key=lambda each: each.seed)))

    def with_failure(self, why: str, *, seed: int | None = None) -> "Row":
        """The row with a seed that failed; without one, all of it."""
        return replace(self, failures={**self.failures, "" if seed is None else f"seed {seed}": why})

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            **{name: getattr(self, name) for name in _OWN},
            "published": None if self.published is None else dict(self.published),
            "runs": [dict(vars(run)) for run in self.runs],
            "mean": self.over_seeds("value"),
            "sd": self.sd(),
            "low": self.over_seeds("low"),
            "high": self.over_seeds("high"),
            "parameters": self.parameters,
            "seconds": self.seconds,
            "status": self.status,
            "error": self.error,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Row":
        """What `to_json` gave, with its failures as one."""
        runs = tuple(sorted(map(SeedRun.from_json, record["runs"]), key=lambda run: run.seed))
        if len({tuple(run.means) for run in runs}) > 1:
            raise ValueError("runs of one row with other means")
        older = {
            "num_seeds": len(runs) + (record["status"] == "pending"),
            "frames_per_epoch": record.get("epoch_steps"),
        }
        fields = {**older, **record}  # tables of earlier versions
        if not (isinstance(fields["name"], str) and isinstance(fields["num_seeds"], int)):
            raise TypeError("name or num_seeds")
        return cls(
            **{name: fields[name] for name in _OWN},
            published=None if record["published"] is None else dict(record["published"]),
            runs=runs,
            failures={"": str(record["error"])} if record["status"] == "failed" else {},
        )

    def _values(self, measure: str) -> dict[str, list[float]]:
        names = self.runs[0].means if self.runs else ()
        found = {name: [run.means[name][measure] for run in self.runs] for name in names}
        known = {name: [value for value in values if value is not None] for name, values in found.items()}
        return {name: values for name, values in known.items() if values}


@dataclass(frozen=True, kw_only=True)
class AblationTable:
    """All rows, and what they share."""

    sources: tuple[str, ...]
    """Data sets and stores, as absolute paths."""
    split: str
    """Split that was evaluated."""
    settings: Mapping[str, Any]
    """Plain JSON of what was asked for beside recipes and seeds."""
    classes: tuple[str, ...]
    rows: tuple[Row, ...]
    chance: Mapping[str, float]
    """Name of a mean -> what predictions that know nothing reach."""
    notes: tuple[str, ...] = ()
    """What is worth knowing when reading it."""

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the means, headline first; empty before anything is known."""
        means = next((run.means for row in self.rows for run in row.runs), self.chance)
        return tuple(means)

    @property
    def complete(self) -> bool:
        """Every row is done."""
        return all(row.status == "done" for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "format": FORMAT,
            "sources": list(self.sources),
            "split": self.split,
            "settings": dict(self.settings),
            "classes": list(self.classes),
            "rows": [row.to_json() for row in self.rows],
            "chance": dict(self.chance),
            "notes": list(self.notes),
        }

    @classmethod
    def read(cls, folder: Path) -> "AblationTable":
        """From the folder that `write` was given, finished or under way.

        Raises:
            InputError: another format, or damaged.
        """
        path = folder / TABLE
        record = read_json(path)
        found = record.get("format") if isinstance(record, Mapping) else type(record).__name__
        if found != FORMAT:
            raise InputError(f"{path}: another format", got=found, wanted=FORMAT, cure="name another folder")
        cure = "delete the file, then run bas ablate again: what is trained is kept"
        with reading_record(f"{path}: damaged", cure=cure):
            return cls(
                sources=tuple(map(str, record["sources"])),
                split=str(record["split"]),
                settings=dict(record["settings"]),
                classes=tuple(map(str, record["classes"])),
                rows=tuple(map(Row.from_json, record["rows"])),
                chance={str(name): float(value) for name, value in record["chance"].items()},
                notes=tuple(map(str, record["notes"])),
            )

    def write(self, folder: Path) -> None:
        """`ablation.json` and `ablation.csv` in a folder, each whole or not at all."""
        write_json_atomic(folder / TABLE, self.to_json())
        write_text_atomic(folder / SHEET, self._sheet())

    def _sheet(self) -> str:
        """Rows with AP in %, for a spreadsheet."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        columns = [f"{name} {what} %" for name in self.measures for what in ("mean", "sd", "low", "high")]
        published = ["published mAP-10 %", "published mAP-12 %", "published by"]
        first = ["row", "recipe", "backbone", "depth", "weights", "head", "seeds"]
        writer.writerow([*first, *columns, *published, "parameters", "seconds", "status", "error"])
        for row in self.rows:
            by = row.published or {}
            parts = (row.over_seeds("value"), row.sd() or {}, row.over_seeds("low"), row.over_seeds("high"))
            writer.writerow(
                [
                    *(row.name, row.recipe, row.backbone, row.depth, row.weights, row.head, len(row.runs)),
                    *(_percent(part.get(name)) for name in self.measures for part in parts),
                    *(by.get("map_10"), by.get("map_12"), by.get("source")),
                    *(row.parameters, row.seconds, row.status, row.error),
                ]
            )
        chance = [cell for name in self.measures for cell in (_percent(self.chance.get(name)), "", "", "")]
        writer.writerow(["chance", *[""] * (len(first) - 1), *chance, *[""] * (len(published) + 4)])
        return text.getvalue()


def require_same_settings(folder: Path, table: AblationTable) -> None:
    """Refuse to go on with a table that was made with other settings; recipes and seeds may be others.

    Raises:
        InputError: names what differs; or the stored table is damaged or of another format.
    """
    if not (folder / TABLE).exists():
        return
    mine, theirs = (
        {"sources": list(each.sources), "split": each.split, **each.settings}
        for each in (table, AblationTable.read(folder))
    )
    wrong = [name for name in mine if mine[name] != theirs.get(name)]
    what = f"{folder}: holds a table made with other settings"
    cure = "name another --out, or use the table's own settings to go on with it"
    refuse_differing(wrong, what, got=mine, wanted=theirs, cure=cure)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.3f}"
