"""`bas weights` as a person sees it."""

from collections.abc import Mapping

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..extract.backbones.registry import BackboneSpec
from ..extract.backbones.tensor_files import weights_cache

_RIGHT = ("depth", "channels", "sees steps", "stride", "trained at")


def weights_view(specs: Mapping[str, BackboneSpec], *, with_addresses: bool) -> Group:
    """One line per backbone, the default depth first; then where the weights come from, where asked for."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("backbone", *_RIGHT, "weights"):
        table.add_column(name, justify="right" if name in _RIGHT else "left", overflow="fold")
    for name, spec in specs.items():
        outputs = spec.outputs
        table.add_row(
            Text(name),
            " ".join(str(depth) for depth in outputs if depth is not None),
            " ".join(str(output.dim) for output in outputs.values()),
            " ".join(str(output.receptive_field_steps) for output in outputs.values()),
            str(spec.stride),
            f"{spec.native_size}x{spec.native_size}",
            ", ".join(spec.urls),
        )
    addresses = [f"{name} {weights}: {url}" for name, spec in specs.items() for weights, url in spec.urls.items()]
    lines = addresses if with_addresses else ["bas weights BACKBONE says where its weights come from"]
    return Group(table, "", *map(Text, lines), Text(f"cache: {weights_cache()}"))
