"""Who brings a match to an object store now: a small file beside the manifests, as such stores know no locks."""

import getpass
import os
import socket
import time
from typing import Any

from ...errors import InputError
from ...files import parse_json
from ..layout import MANIFESTS, canonical_json
from .manifest import MatchManifest, id_hash
from .object_client import ObjectClient

_MAX_BYTES = 1 << 16
_MAX_SECONDS = 24 * 3600
"""After so long a claim is taken to be left over."""


class Claim:
    """The right to bring one content of a match. Several processes may hold it at once for the same content.

    It keeps two contents of a match from mixing. It is no lock against a writer that stalls while another takes over by
    --replace: then hashes do not fit, and readers refuse the match by name.
    """

    def __init__(self, client: ObjectClient, manifest: MatchManifest, *, seize: bool) -> None:
        """Claim the match.

        Args:
            client: the place.
            manifest: of what it is to hold.
            seize: take the claim from whoever has it.

        Raises:
            InputError: somebody else brings other content; or the place refuses.
        """
        self._client, self._manifest = client, manifest
        self._path = f"{MANIFESTS}/{id_hash(manifest.match_id)}.claim"
        mine = {
            "manifest": manifest.name,
            "by": f"{_user()} on {socket.gethostname()}, process {os.getpid()}",
            "since": int(time.time()),
        }
        document = canonical_json(mine, where=self._path)
        if client.create(self._path, document):
            return
        theirs = self._read()
        if theirs and theirs["manifest"] != manifest.name and not seize:
            raise InputError(
                f"match {manifest.match_id!r} is being pushed by somebody else, with other content",
                got=f"{theirs['by'][:100]!r}, {_age(theirs)} minutes ago",
                cure="wait for them; if they have given up: --replace",
            )
        client.write(self._path, document)

    def require_kept(self) -> None:
        """Raise InputError where somebody else has taken over, or has brought other content, since."""
        theirs = self._read()
        if theirs is None:  # another process with the same content has ended: then its manifest is there
            if self._client.size(f"{MANIFESTS}/{self._manifest.name}") is not None:
                return
        elif theirs["manifest"] == self._manifest.name:
            return
        raise InputError(
            f"match {self._manifest.match_id!r} is being replaced by somebody else",
            got=theirs["by"][:100] if theirs else "the claim on it is gone",
            cure="ask them, then run the same command again",
        )

    def release(self) -> None:
        """Let others come."""
        self._client.delete(self._path)

    def _read(self) -> dict[str, Any] | None:
        """The claim there; None where there is none, it is damaged, or left over."""
        try:
            record = parse_json(self._client.read(self._path, max_bytes=_MAX_BYTES) or b"null", where=self._path)
        except InputError:  # too large as well
            return None
        kinds = {"manifest": str, "by": str, "since": int}
        if not isinstance(record, dict) or not all(isinstance(record.get(name), kind) for name, kind in kinds.items()):
            return None
        return record if abs(time.time() - record["since"]) < _MAX_SECONDS else None


def _age(claim: dict[str, Any]) -> int:
    return int(max(0, time.time() - claim["since"]) // 60)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"
