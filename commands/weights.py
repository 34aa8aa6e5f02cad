"""The command `bas weights`."""

from typing import Annotated

import typer

from .options import AsJson
from .settings_options import with_options
from .show import say, show


@with_options()
def weights(
    names: Annotated[list[str] | None, typer.Argument(metavar="[BACKBONE...]", help="All by default.")] = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="Put their weights into the cache now.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the backbones that are known by name: channels, stride, and where their weights come from."""
    from ..extract.backbones.registry import BACKBONES, backbone_spec
    from .weights_view import weights_json, weights_view

    specs = {name: backbone_spec(name) for name in names or BACKBONES}
    if fetch:
        from ..extract.backbones.weights import load_weights

        for name, spec in specs.items():
            _, record = load_weights(name, None, next(iter(spec.urls)))
            say(f"{name}: {record.source}, file SHA-256 {record.file_sha256 or 'kept by its own loader'}")
    else:
        show(weights_view(specs, with_addresses=bool(names)), weights_json(specs), as_json=as_json)
