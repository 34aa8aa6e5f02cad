"""The components of a shared store of reduced rows (`bas cache pca`): they travel with its root."""

from pathlib import Path
from tempfile import TemporaryDirectory

from ...errors import InputError
from ...files import read_bounded
from ..layout import MAX_CHANNELS, METADATA, METADATA_BYTES, REDUCTION
from ..reduce.files import group_files, read_reduction
from ..reduce.reduction import Reduction
from ..settings import FeatureSettings
from ..store import FeatureStore
from .place import Place

_ARRAYS = {"pca": ("mean", "components"), "uint8": ("scale", "offset")}
_CURE = "have its owner push the store again"


def send_components(place: Place, store: FeatureStore) -> None:
    """Bring them to a place whose root says the same settings, unless they are there whole.

    The group's metadata comes last, and says that all is there.

    Raises:
        InputError: the place refuses.
    """
    if store.reduction is None or _are_there(place, store.settings):
        return
    for path in sorted(group_files(store.reduction), key=lambda path: (path == METADATA, path.endswith(METADATA))):
        data = read_bounded(store.path / REDUCTION / path, max_bytes=_most_bytes(path, store.settings))
        place.write(f"{REDUCTION}/{path}", data)


def _are_there(place: Place, settings: FeatureSettings) -> bool:
    try:
        return fetch_components(place, settings) is not None
    except InputError:
        return False


def fetch_components(place: Place, settings: FeatureSettings) -> Reduction | None:
    """The reduction of a shared store, checked against the hash in its settings; None where its rows are full.

    Raises:
        InputError: missing or damaged.
    """
    if settings.reduction is None:
        return None
    with TemporaryDirectory() as folder:
        for path in _paths(settings.reduction):
            data = place.read(f"{REDUCTION}/{path}", max_bytes=_most_bytes(path, settings))
            if data is None:
                raise InputError(
                    f"{place.url}: the components of its rows are missing",
                    got=f"no {REDUCTION}/{path}",
                    cure=_CURE,
                )
            file = Path(folder, REDUCTION, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        try:
            return read_reduction(Path(folder), settings)
        except InputError as error:
            what = error.what.replace(folder, place.url)
            raise InputError(what, got=error.got, wanted=error.wanted, cure=_CURE) from None


def _most_bytes(path: str, settings: FeatureSettings) -> int:
    """A file of the group is not larger."""
    if path.endswith(METADATA):
        return METADATA_BYTES
    return 4 * MAX_CHANNELS * (settings.dim if path.startswith("components/") else 1)


def _paths(reduction: str) -> list[str]:
    """Files of the group, by the reduction's name: `pca-64+uint8:...`."""
    kinds = [kind.partition("-")[0] for kind in reduction.partition(":")[0].split("+")]
    chunks = {name: "c/0/0" if name == "components" else "c/0" for kind in kinds for name in _ARRAYS[kind]}
    return [METADATA, *(f"{name}/{file}" for name, chunk in chunks.items() for file in (METADATA, chunk))]
