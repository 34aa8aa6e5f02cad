"""What commands share: options, and how a result is shown. Nothing imports torch."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from ..errors import InputError
from ..events import SPLITS, Split

if TYPE_CHECKING:
    from ..heads.training.settings import TrainSettings

Settings = TypeVar("Settings", bound="TrainSettings")
Store = Annotated[Path, typer.Argument(metavar="STORE", help="Folder that `bas extract --out` made.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS|auto",
        help="Work on a Ray cluster; auto: RAY_ADDRESS, else the one that runs here, else one is started here.",
    ),
]
OnlySplit = Annotated[list[str] | None, typer.Option(help="Only this split; may be repeated.")]
Recipe = Annotated[
    str | None, typer.Option(help="Named settings that the other options change; default: that of the head, or ed.")
]
Head = Annotated[str | None, typer.Option(help="ed, bigru, tcn+sgp, ed+disp, ...")]
HeadSettings = Annotated[
    list[str] | None, typer.Option("--set", help="Setting of a head, as bigru.hidden=96; may be repeated.")
]
Projection = Annotated[int | None, typer.Option(help="Project features to this width first; 0: never.")]
Inputs = Annotated[str | None, typer.Option(help="raw, standard, or scores (for confidences).")]
Loss = Annotated[str | None, typer.Option(help="ce, focal or bce (a sigmoid per class); default: the head's own.")]
ClipLen = Annotated[int | None, typer.Option(help="Steps of a training window.")]
Stride = Annotated[int | None, typer.Option(help="Rows (frames) per step.")]
Hop = Annotated[int | None, typer.Option(help="Rows (frames) between the starts of windows.")]
Dilate = Annotated[int | None, typer.Option(help="Steps to each side of an event that carry its label.")]
Sigma = Annotated[float | None, typer.Option(help="Gaussian soft labels of this width in steps.")]
MixupAlpha = Annotated[float | None, typer.Option(help="Blend pairs of windows by Beta(alpha, alpha); 0: never.")]
Epochs = Annotated[int | None, typer.Option(help="At most so many.")]
EpochSteps = Annotated[int | None, typer.Option(help="Steps (frames seen) of an epoch.")]
WarmupEpochs = Annotated[float | None, typer.Option(help="The learning rate rises over so many epochs.")]
Patience = Annotated[int | None, typer.Option(help="Epochs without improvement before it stops; 0: never.")]
Batch = Annotated[int | None, typer.Option(help="Windows per update.")]
LearningRate = Annotated[float | None, typer.Option(help="Peak learning rate.")]
WeightDecay = Annotated[float | None, typer.Option(help="Of AdamW.")]
MaxGradNorm = Annotated[float | None, typer.Option(help="Scale gradients down to this norm; 0: never.")]
Ema = Annotated[float | None, typer.Option(help="Decay of averaged weights per update; 0: none.")]
Keep = Annotated[str | None, typer.Option(help="Weights to keep: of the best epoch, or the last.")]
Precision = Annotated[str | None, typer.Option(help="auto, fp32, fp16 or bf16.")]
Seed = Annotated[int | None, typer.Option(help="Of weights, order, augmentation, dropout and mixup.")]
Classes = Annotated[str | None, typer.Option(help="A,B,...: learn only these; default: all that are labelled.")]
Valid = Annotated[
    list[str] | None,
    typer.Option(help="Validate on this match, in place of the split valid; may be repeated."),
]
WithValid = Annotated[
    bool, typer.Option("--with-valid", help="With --valid: the other matches of the split valid train too.")
]


def known_splits(names: Sequence[str] | None) -> tuple[Split, ...]:
    """Splits that were typed. Raises InputError for one that there is not."""
    unknown = sorted(set(names or ()) - set(SPLITS))
    if unknown:
        raise InputError("--split is not known", got=", ".join(unknown), wanted=", ".join(SPLITS))
    return tuple(split for split in SPLITS if split in (names or ()))


@contextmanager
def local_stores(sources: Sequence[str], *, splits: Sequence[str], views: Sequence[str] = ()) -> Iterator[list[Path]]:
    """Sources as paths on this machine; of shared stores (URLs) what is needed is pulled into the local cache.

    Args:
        sources: paths or URLs.
        splits: matches that are needed of a shared store; empty: all.
        views: their views; empty: all.

    Raises:
        InputError: a shared store cannot be had.
    """
    paths = []
    for source in sources:
        if "://" not in source:
            paths.append(Path(source))
            continue
        from ..cache.share.local_copy import local_copy
        from ..cache.share.places import folder_of, is_folder
        from ..cache.share.pull import Selection
        from .show import ProgressView

        if is_folder(source):
            paths.append(folder_of(source))
            continue
        selection = Selection(splits=tuple(splits), views=tuple(views))
        with ProgressView("pulling", unit="bytes") as progress:
            paths.append(local_copy(source, selection, progress=progress))
    yield paths


_FIELDS = {"hop": "hop_rows", "mixup_alpha": "mixup", "set_": "options"}
"""Options that are called otherwise than the setting that they change."""


def changed(recipe: Settings, options: Mapping[str, Any], **computed: Any) -> Settings:
    """The recipe with the settings that the command line names.

    Args:
        recipe: a dataclass.
        options: parameters of a command; None: not named. Those that are no setting are left alone.
        computed: settings that take more than a look at one parameter; they come before the parameter.
    """
    named = {_FIELDS.get(name, name): value for name, value in options.items()}
    if named.get("options") is not None:
        named["options"] = {**recipe.options, **head_options(named["options"])}
    named |= computed
    known = {each.name for each in fields(recipe)}
    return replace(recipe, **{name: value for name, value in named.items() if name in known and value is not None})


def head_options(pairs: list[str] | None) -> dict[str, Any]:
    """Settings of heads from `NAME=VALUE`; a value that is no JSON is text.

    Raises:
        InputError: no `=`.
    """
    options = {}
    for pair in pairs or ():
        name, equals, text = pair.partition("=")
        if not equals:
            raise InputError("--set is not usable", got=pair, wanted="HEAD.FIELD=VALUE, such as bigru.hidden=96")
        try:
            options[name] = json.loads(text)
        except ValueError:
            options[name] = text
    return options


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Progress bar on stderr, gone at the end; nothing where stderr is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
