"""The index of a shared store: all manifests in one file, complete however many push at once."""

from typing import Protocol

from ...errors import InputError
from ..layout import MANIFESTS
from .manifest import INDEX, MAX_DOCUMENT_BYTES, MAX_INDEX_BYTES, MatchManifest, index_document, parse_all, parse_index
from .place import TooLarge

_MAX_ROUNDS = 20


class Listed(Protocol):
    """What the index needs of a place."""

    url: str

    def read(self, path: str, *, max_bytes: int) -> bytes | None: ...
    def write(self, path: str, data: bytes) -> None: ...
    def manifests(self) -> list[str] | None: ...


def update_index(place: Listed) -> None:
    """Make the index hold every usable manifest that is there.

    Whoever writes the index looks again afterwards. So the one who wrote it last has seen all manifests that were there
    by then, and whoever brings another one later writes it again. This needs a place that shows at once what was
    written (S3 does; a network share may show it seconds later). A process that is killed between a manifest and the
    index leaves the index behind, until somebody pushes anything; places that can be listed are read rightly even so.

    Raises:
        InputError: the place refuses.
    """
    path, unusable = f"{MANIFESTS}/{INDEX}", set[str]()
    for _ in range(_MAX_ROUNDS):
        names = place.manifests()
        if names is None:
            return
        wanted, known = set(names) - unusable, _known(place, path)
        if set(known) == wanted:
            return
        missing = {name: _document(place, name) for name in wanted - set(known)}
        made, damaged = parse_all(missing, where=place.url)
        unusable |= set(damaged)
        usable = {name: each for name, each in (known | made).items() if name in wanted}
        place.write(path, index_document({name: each.document for name, each in usable.items()}))


def _known(place: Listed, path: str) -> dict[str, MatchManifest]:
    """Usable manifests of the index by name; none where it is damaged."""
    try:
        data = place.read(path, max_bytes=MAX_INDEX_BYTES)
    except TooLarge:
        return {}
    try:
        documents = {} if data is None else parse_index(data, where=place.url)
    except InputError:
        return {}
    return parse_all(documents, where=place.url)[0]


def _document(place: Listed, name: str) -> bytes:
    """Empty where it was replaced just now, or is too large to be one."""
    try:
        return place.read(f"{MANIFESTS}/{name}", max_bytes=MAX_DOCUMENT_BYTES) or b""
    except TooLarge:
        return b""
