"""The components of a shared store of reduced rows (`bas cache pca`): they travel with its root."""

from pathlib import Path
from tempfile import TemporaryDirectory

from ...errors import InputError
from ...files import read_bounded
from ..layout import METADATA_BYTES
from ..reduction import REDUCTION_FILE, Reduction, read_reduction
from ..settings import FeatureSettings
from ..shard import MAX_CHANNELS
from ..store import FeatureStore
from .place import Place

_CURE = "have its owner push the store again"


def send_components(place: Place, store: FeatureStore) -> None:
    """Bring them to a place whose root says the same settings, unless they are there whole.

    Raises:
        InputError: the place refuses.
    """
    if store.reduction is None or _are_there(place, store.settings):
        return
    place.write(REDUCTION_FILE, read_bounded(store.path / REDUCTION_FILE, max_bytes=_most_bytes(store.settings)))


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
    data = place.read(REDUCTION_FILE, max_bytes=_most_bytes(settings))
    if data is None:
        got = f"no {REDUCTION_FILE}"
        raise InputError(f"{place.url}: the components of its rows are missing", got=got, cure=_CURE)
    with TemporaryDirectory() as folder:
        (Path(folder) / REDUCTION_FILE).write_bytes(data)
        try:
            return read_reduction(Path(folder), settings)
        except InputError as error:
            what = error.what.replace(folder, place.url)
            raise InputError(what, got=error.got, wanted=error.wanted, cure=_CURE) from None


def _most_bytes(settings: FeatureSettings) -> int:
    """No file of components is larger."""
    return METADATA_BYTES + 4 * MAX_CHANNELS * (settings.dim + 3)
