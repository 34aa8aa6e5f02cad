"""The command `bas weights`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..published import PREFIX, PUBLISHED, PublishedModel, convert, published_model, run_folder
from .options import AsJson
from .settings_options import with_options
from .show import say, show, table

if TYPE_CHECKING:
    from rich.console import Group

    from ..extract.backbones.registry import BackboneSpec


@with_options()
def weights(
    names: Annotated[list[str] | None, typer.Argument(metavar="[BACKBONE|hub:NAME...]", help="All by default.")] = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="Put their weights into the cache now.")] = False,
    file: Annotated[
        Path | None,
        typer.Option("--convert", metavar="FILE", help="Make a run of this checkpoint of a whole published model."),
    ] = None,
    as_name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="With --convert: which of the models it is.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="With --convert: folder of the run.")] = None,
    as_json: AsJson = False,
) -> None:
    """List what is known by name: backbones, and whole models that others published (`--run hub:NAME`)."""
    from ..extract.backbones.registry import BACKBONES, backbone_spec

    if file is not None or as_name is not None or out is not None:
        if file is None or as_name is None or out is None:
            raise InputError("--convert, --as and --out go together", wanted="--convert FILE --as NAME --out RUN")
        convert(file, as_name, out)
        say(f"{out}: converted. Next: bas predict VIDEO --run {out} --out predictions")
        return
    typed = names or [*BACKBONES, *([] if fetch else [PREFIX + name for name in PUBLISHED])]
    specs = {name: backbone_spec(name) for name in typed if not name.startswith(PREFIX)}
    models = {name: published_model(name) for name in typed if name.startswith(PREFIX)}
    if fetch:
        from ..extract.backbones.weights import load_weights

        for name in models:
            say(f"{name}: {run_folder(name)}")
        for name, spec in specs.items():
            _, record = load_weights(name, None, next(iter(spec.urls)))
            say(f"{name}: {record.source}, file SHA-256 {record.file_sha256 or 'kept by its own loader'}")
    else:
        view = weights_view(specs, models, with_addresses=bool(names))
        show(view, [*weights_json(specs), *models_json(models)], as_json=as_json)


def weights_view(
    specs: Mapping[str, "BackboneSpec"], models: Mapping[str, PublishedModel], *, with_addresses: bool
) -> "Group":
    """One line per backbone, the default depth first; where the weights come from, where asked for; whole models."""
    from rich.console import Group
    from rich.text import Text

    from ..files import cache_folder

    rows = [
        (
            name,
            " ".join(str(depth) for depth in spec.outputs if depth is not None),
            " ".join(str(output.dim) for output in spec.outputs.values()),
            " ".join(str(output.receptive_field_steps) for output in spec.outputs.values()),
            str(spec.stride),
            f"{spec.native_size}x{spec.native_size}",
            ", ".join(spec.urls),
        )
        for name, spec in specs.items()
    ]
    view = table(("backbone", "depth", "channels", "sees steps", "stride", "trained at", "weights"), rows)
    addresses = [f"{name} {weights}: {url}" for name, spec in specs.items() for weights, url in spec.urls.items()]
    lines = [*(addresses if with_addresses else _HOW_NAMED)]
    for name, model in models.items():
        lines += _all_of(name, model) if with_addresses else [f"{name:<26} {model.about}; {model.figure}"]
    above = (view, "") if specs else ()
    return Group(*above, *map(Text, lines), Text(f"cache: {cache_folder() / 'weights'}"))


def _all_of(name: str, model: PublishedModel) -> list[str]:
    """A whole model in words."""
    how = "" if model.is_fetched else " (by hand; then bas weights --convert FILE --as NAME --out RUN)"
    return [
        f"{name}: {model.about}",
        f"    {len(model.classes)} classes: {', '.join(model.classes)}",
        f"    licence: {model.licence}",
        f"    reported: {model.figure}",
        f"    fetched from: {model.place}{how}",
        f"    read in: {model.source}",
    ]


_HOW_NAMED = [
    "timm:NAME               any model of timm, such as timm:vit_small_patch16_dinov3 (--weights imagenet: its own)",
    "2-D BACKBONE+gsf        lets it see time: +tsm, +gsm, +gsf; finetune it first",
    "2-D BACKBONE+adaspot    +gsf on the whole picture small and on a region of each frame; finetune it first",
    "hf:ORG/NAME, hf:FOLDER  V-JEPA 2 and VideoMAE, from the Hugging Face hub or a folder (--weights hub: its own)",
    "bas weights BACKBONE says where its weights come from; bas weights hub:NAME says all of a whole model:",
]


def weights_json(specs: Mapping[str, "BackboneSpec"]) -> list[dict[str, Any]]:
    """The same as plain JSON."""
    return [
        {
            "backbone": name,
            "kind": spec.kind,
            "depths": [
                {"depth": depth, "channels": output.dim, "receptive_field_steps": output.receptive_field_steps}
                for depth, output in spec.outputs.items()
            ],
            "stride": spec.stride,
            "trained_at": spec.native_size,
            "mean": list(spec.mean),
            "std": list(spec.std),
            "weights": dict(spec.urls),
        }
        for name, spec in specs.items()
    ]


def models_json(models: Mapping[str, PublishedModel]) -> list[dict[str, Any]]:
    """Whole models as plain JSON."""
    return [
        {
            "model": name,
            "about": model.about,
            "classes": list(model.classes),
            "licence": model.licence,
            "figure": model.figure,
            "source": model.source,
            "from": model.place,
            "is_fetched": model.is_fetched,
        }
        for name, model in models.items()
    ]
