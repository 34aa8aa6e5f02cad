"""The components of a shared store of reduced rows (`bas cache pca`): they travel with its root."""

from pathlib import Path
from tempfile import TemporaryDirectory

from ...errors import InputError
from ..layout import METADATA, REDUCTION
from ..reduce.files import group_files, read_reduction
from ..reduce.reduction import Reduction
from ..settings import FeatureSettings
from ..store import FeatureStore
from .place import Place

_MAX_BYTES = 1 << 30
"""Of one array: 16,000 components of 16,000 channels."""
_ARRAYS = {"pca": ("mean", "components"), "uint8": ("scale", "offset")}


def send_components(place: Place, store: FeatureStore) -> None:
    """Bring them to a place whose root says the same settings; the group's metadata comes last, and says all is there.

    Raises:
        InputError: the place refuses.
    """
    if store.reduction is None or place.read(f"{REDUCTION}/{METADATA}", max_bytes=_MAX_BYTES) is not None:
        return
    for path in sorted(group_files(store.reduction), key=lambda path: (path == METADATA, path.endswith(METADATA))):
        place.write(f"{REDUCTION}/{path}", (store.path / REDUCTION / path).read_bytes())


def fetch_components(place: Place, settings: FeatureSettings) -> Reduction | None:
    """The reduction of a shared store, checked against the hash in its settings; None where its rows are full.

    Raises:
        InputError: missing or damaged.
    """
    if settings.reduction is None:
        return None
    with TemporaryDirectory() as folder:
        for path in _paths(settings.reduction):
            data = place.read(f"{REDUCTION}/{path}", max_bytes=_MAX_BYTES)
            if data is None:
                raise InputError(
                    f"{place.url}: the components of its rows are missing",
                    got=f"no {REDUCTION}/{path}",
                    cure="have its owner push the store again",
                )
            file = Path(folder, REDUCTION, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        return read_reduction(Path(folder), settings)


def _paths(reduction: str) -> list[str]:
    """Files of the group, by the reduction's name: `pca-64+uint8:...`."""
    kinds = [kind.partition("-")[0] for kind in reduction.partition(":")[0].split("+")]
    chunks = {name: "c/0/0" if name == "components" else "c/0" for kind in kinds for name in _ARRAYS[kind]}
    return [METADATA, *(f"{name}/{file}" for name, chunk in chunks.items() for file in (METADATA, chunk))]
