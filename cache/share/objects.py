"""A shared store in an object store (S3-compatible, Google, Azure) or behind a plain HTTP server."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...errors import InputError
from ..layout import FEATURES, MANIFESTS, METADATA, canonical_json, group_metadata
from .claim import Claim
from .manifest import FileEntry, id_hash, is_manifest
from .object_client import ObjectClient
from .place import MATCHES_AT_ONCE, DamagedInTransit, OnBytes, Upload

_FILES_AT_ONCE = 8


class ObjectPlace:
    """A prefix of a bucket, or a folder behind HTTP (read only)."""

    uploads_at_once = 1
    publishers = MATCHES_AT_ONCE

    def __init__(self, url: str) -> None:
        """Connect; nothing is read yet.

        Raises:
            InputError: the URL or the configuration in the environment cannot be used.
        """
        self._client = ObjectClient(url)
        self.url, self._known_groups = self._client.url, set[str]()
        self.read, self.stream = self._client.read, self._client.stream
        self.create, self.write = self._client.create, self._client.write

    def manifests(self) -> list[str] | None:
        """See `Place`; oldest first."""
        if self._client.is_http:
            return None
        named = sorted((each["last_modified"], _name(each["path"])) for each in self._client.files(MANIFESTS))
        return [name for _, name in named if is_manifest(name)]

    def publish(self, uploads: Sequence[Upload], on_bytes: OnBytes) -> None:
        """See `Place`: values, then metadata, then the manifest that makes the match visible."""
        for upload in uploads:
            manifest = upload.manifest
            claim = Claim(self._client, manifest, seize=upload.overwrite)
            others = self._others(upload)
            if set(others) - set(upload.outdated):
                claim.release()
                raise InputError(
                    f"match {manifest.match_id!r} has just been pushed by somebody else, with other content",
                    cure="run the same command again: it compares anew, and what has arrived does not travel twice",
                )
            if upload.overwrite:
                self._clear(upload, others)
            self._send_files(upload, on_bytes)
            self._make_groups(upload.groups)
            if upload.overwrite:  # whoever had the claim before may have written until now
                self._send_files(upload, on_bytes)
            claim.require_kept()
            self.write(f"{MANIFESTS}/{manifest.name}", manifest.document)
            for name in others:
                self._client.delete(f"{MANIFESTS}/{name}")
            claim.release()

    def _others(self, upload: Upload) -> list[str]:
        """Names of the match's manifests that are there now, but for the one to come."""
        mine = f"{id_hash(upload.manifest.match_id)}."
        names = self.manifests() or []
        return [name for name in names if name.startswith(mine) and name != upload.manifest.name]

    def _clear(self, upload: Upload, manifests: Sequence[str]) -> None:
        """Let nobody see the match while its files are replaced, and take away those that the new one has not."""
        match_id, files = upload.manifest.match_id, upload.manifest.files
        for name in (*manifests, upload.manifest.name):
            self._client.delete(f"{MANIFESTS}/{name}")
        self._client.delete(f"{match_id}/{METADATA}")
        wanted = {f"{match_id}/{path}" for path in files}
        for each in self._client.files(f"{match_id}/{FEATURES}"):
            if each["path"] not in wanted:
                self._client.delete(each["path"])

    def _send_files(self, upload: Upload, on_bytes: OnBytes) -> None:
        """Values side by side, then metadata in order; what an earlier run has brought stays there."""
        match_id, files = upload.manifest.match_id, upload.manifest.files
        there = {each["path"]: each["size"] for each in self._client.files(match_id)}

        def send(path: str) -> None:
            entry, name = files[path], f"{match_id}/{path}"
            if there.get(name) != entry.num_bytes or self._client.sha256(name) != entry.sha256:
                self._send(upload.folder / path, name, entry, on_bytes)

        values = [path for path in upload.paths if not path.endswith(METADATA)]
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            list(pool.map(send, values))
        for path in upload.paths:
            if path.endswith(METADATA):
                send(path)

    def _send(self, path: Path, name: str, entry: FileEntry, on_bytes: OnBytes) -> None:
        """One file, hashed once more on its way: what is announced is what arrives."""

        def blocks(block_bytes: int) -> Iterator[bytes]:
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while block := file.read(block_bytes):
                    digest.update(block)
                    on_bytes(len(block))
                    yield block
            if digest.hexdigest() != entry.sha256:
                raise DamagedInTransit(f"{path}: changed while it was read", cure="push again")

        self._client.send(name, blocks, num_bytes=entry.num_bytes, sha256=entry.sha256)
        if self._client.size(name) != entry.num_bytes:
            raise DamagedInTransit(f"{self.url}/{name}: did not arrive whole", cure="push again")

    def _make_groups(self, groups: Sequence[str]) -> None:
        for group in groups:
            if group not in self._known_groups:
                self.create(f"{group}/{METADATA}", canonical_json(group_metadata({}), where=group))
                self._known_groups.add(group)


def _name(path: str) -> str:
    return path.rpartition("/")[2]
