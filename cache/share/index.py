"""The index of a shared store: all manifests in one file, complete however many push at once."""

from typing import Protocol

from ...errors import InputError
from ..layout import MANIFESTS
from .manifest import INDEX, MAX_DOCUMENT_BYTES, MAX_INDEX_BYTES, index_document, parse_index

_MAX_ROUNDS = 20


class Listed(Protocol):
    """What the index needs of a place."""

    url: str

    def read(self, path: str, *, max_bytes: int) -> bytes | None: ...
    def write(self, path: str, data: bytes) -> None: ...
    def manifests(self) -> list[str] | None: ...


def update_index(place: Listed) -> None:
    """Make the index hold every manifest that is there.

    Whoever writes the index looks again afterwards. So the one who wrote it last has seen all manifests that were there
    by then, and whoever brings another one later writes it again.

    Raises:
        InputError: the place refuses.
    """
    path = f"{MANIFESTS}/{INDEX}"
    for _ in range(_MAX_ROUNDS):
        names = place.manifests()
        if names is None:
            return
        known = _known(place, path)
        if set(known) == set(names):
            return
        documents = {}
        for name in names:
            text = known.get(name) or place.read(f"{MANIFESTS}/{name}", max_bytes=MAX_DOCUMENT_BYTES)
            if text is not None:  # else it was replaced just now
                documents[name] = text
        place.write(path, index_document(documents))


def _known(place: Listed, path: str) -> dict[str, bytes]:
    """Documents of the index by name; none where it is damaged."""
    data = place.read(path, max_bytes=MAX_INDEX_BYTES)
    try:
        return {} if data is None else parse_index(data, where=place.url)
    except InputError:
        return {}
