"""Which place a URL names: S3-compatible and other object stores, web servers, the Hugging Face hub."""

from collections.abc import Callable

from ...errors import InputError
from .place import Place, scheme_of


def _objects(url: str) -> Place:
    from .objects import ObjectPlace

    return ObjectPlace(url)


def _hub(url: str) -> Place:
    from .hub import HubPlace

    return HubPlace(url)


PLACES: dict[str, Callable[[str], Place]] = {**dict.fromkeys(("s3", "gs", "az", "http", "https"), _objects), "hf": _hub}
"""Scheme of a URL -> what opens it."""


def open_place(url: str) -> Place:
    """The place at a URL that is no folder.

    Args:
        url: s3://BUCKET/PATH, gs://, az://, http(s)://, hf://datasets/USER/NAME[/PATH].

    Raises:
        InputError: not such a URL, or one that cannot be used.
    """
    if scheme_of(url) not in PLACES:
        raise InputError(
            "not a place for stores",
            got=url,
            wanted="a folder, s3://BUCKET/PATH, gs://..., az://..., https://..., hf://datasets/USER/NAME",
        )
    return PLACES[scheme_of(url)](url)
