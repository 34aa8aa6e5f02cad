"""The command `bas weights`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import AsJson
from .settings_options import with_options
from .show import say, show, table

if TYPE_CHECKING:
    from rich.console import Group

    from ..extract.backbones.registry import BackboneSpec


@with_options()
def weights(
    names: Annotated[list[str] | None, typer.Argument(metavar="[BACKBONE...]", help="All by default.")] = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="Put their weights into the cache now.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the backbones that are known by name: channels, stride, and where their weights come from."""
    from ..extract.backbones.registry import BACKBONES, backbone_spec

    specs = {name: backbone_spec(name) for name in names or BACKBONES}
    if fetch:
        from ..extract.backbones.weights import load_weights

        for name, spec in specs.items():
            _, record = load_weights(name, None, next(iter(spec.urls)))
            say(f"{name}: {record.source}, file SHA-256 {record.file_sha256 or 'kept by its own loader'}")
    else:
        show(weights_view(specs, with_addresses=bool(names)), weights_json(specs), as_json=as_json)


def weights_view(specs: Mapping[str, "BackboneSpec"], *, with_addresses: bool) -> "Group":
    """One line per backbone, the default depth first; then where the weights come from, where asked for."""
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
    lines = addresses if with_addresses else _HOW_NAMED
    return Group(view, "", *map(Text, lines), Text(f"cache: {cache_folder() / 'weights'}"))


_HOW_NAMED = [
    "timm:NAME               any model of timm, such as timm:vit_small_patch16_dinov3 (--weights imagenet: its own)",
    "2-D BACKBONE+gsf        lets it see time: +tsm, +gsm, +gsf; finetune it first",
    "2-D BACKBONE+adaspot    +gsf on the whole picture small and on a region of each frame; finetune it first",
    "hf:ORG/NAME, hf:FOLDER  V-JEPA 2 and VideoMAE, from the Hugging Face hub or a folder (--weights hub: its own)",
    "bas weights BACKBONE says where its weights come from",
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
