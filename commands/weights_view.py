"""`bas weights` as a person sees it, and as JSON."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.text import Text

from ..extract.backbones.registry import BackboneSpec
from ..files import cache_folder
from .show import table


def weights_view(specs: Mapping[str, BackboneSpec], *, with_addresses: bool) -> Group:
    """One line per backbone, the default depth first; then where the weights come from, where asked for."""
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
    lines = addresses if with_addresses else ["bas weights BACKBONE says where its weights come from"]
    return Group(view, "", *map(Text, lines), Text(f"cache: {cache_folder() / 'weights'}"))


def weights_json(specs: Mapping[str, BackboneSpec]) -> list[dict[str, Any]]:
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
