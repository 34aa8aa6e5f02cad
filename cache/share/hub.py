"""A shared store in a data set of the Hugging Face hub: one commit brings whole matches, or nothing."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from huggingface_hub import CommitOperationAdd, get_token
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile

from ...errors import InputError
from ..layout import FEATURES, MANIFESTS, METADATA, canonical_json, group_metadata
from .hub_client import ATTEMPTS, HubClient, Operation
from .manifest import FileEntry, id_hash, is_manifest
from .place import DamagedInTransit, OnBytes, Upload

Files = Mapping[str, tuple[Path, FileEntry]]
"""Path within the store -> the file on this machine, and what its manifest says of it."""
_BLOCK_BYTES = 1 << 20
_UPLOAD_BYTES = 64 << 20
"""About so much travels between two reports of progress."""
_INLINE_BYTES = 10 << 20
"""Largest file that the hub may want within the commit itself ..."""
_COMMIT_BYTES = 128 << 20
"""... and so many bytes of such files go into one, as the client holds them in memory about three times."""


class HubPlace:
    """A folder of a data set on the hub. Its first push makes the data set, as a private one."""

    uploads_at_once = 16
    publishers = 1

    def __init__(self, url: str) -> None:
        """Read the address; the hub is not asked yet. HF_ENDPOINT names another hub.

        Raises:
            InputError: not such an address.
        """
        self._hub = HubClient(url)
        self.url = self._hub.url
        self._listed_at = self._hub.revision
        """Commit of the last listing: what `manifests` has named is read from there, whatever others do."""

    def read(self, path: str, *, max_bytes: int) -> bytes | None:
        """See `Place`. None also where there is no such data set, but who asks may make one."""

        def attempt() -> bytes | None:
            pieces, num_bytes = [], 0
            try:
                with self._hub.open(path, self._hub.revision) as blocks:
                    for block in blocks:
                        num_bytes += len(block)
                        if num_bytes > max_bytes:
                            raise InputError(f"{self.url}/{path}: too large", wanted=f"at most {max_bytes} bytes")
                        pieces.append(block)
            except RepositoryNotFoundError as error:
                if path == METADATA and type(error) is RepositoryNotFoundError and get_token():
                    return None
                raise
            except EntryNotFoundError:
                return None
            return b"".join(pieces)

        return self._hub.call(attempt)

    def stream(self, path: str, *, start: int, num_bytes: int) -> Iterator[bytes]:
        """See `Place`. A line that breaks is taken up again where it broke."""
        at, failed = start, 0
        while at < num_bytes:
            try:
                with self._hub.open(path, self._listed_at, start=at, stop=num_bytes) as blocks:
                    for block in blocks:
                        block = block[: num_bytes - at]
                        at, failed = at + len(block), 0
                        yield block
                        if at == num_bytes:
                            return
                return  # shorter than announced
            except Exception as error:
                failed += 1
                self._hub.wait(error, failed, ATTEMPTS)

    def manifests(self) -> list[str] | None:
        """See `Place`."""
        self._listed_at = self._hub.head()
        return self._names(self._listed_at)

    def create(self, path: str, data: bytes) -> bool:
        """See `Place`. Makes the data set, private, where there is none."""
        created = False
        self._hub.make_repository()

        def operations(head: str) -> list[Operation]:
            nonlocal created
            there = self._hub.infos([path], head)
            created = not there
            return [] if there else [self._hub.addition(path, data)]

        self._hub.commit(f"Add {path}", operations)
        return created

    def write(self, path: str, data: bytes) -> None:
        """See `Place`."""
        self._hub.commit(f"Write {path}", lambda _: [self._hub.addition(path, data)])

    def publish(self, uploads: Sequence[Upload], on_bytes: OnBytes) -> None:
        """See `Place`. Mostly one commit; several where many files have to travel within the commit itself."""
        for batch in in_batches(uploads):
            self._publish(batch, on_bytes)

    def _publish(self, uploads: Sequence[Upload], on_bytes: OnBytes) -> None:
        """Bring the files first, which nobody sees, then all of them into view by one commit."""
        files = {
            f"{upload.manifest.match_id}/{path}": (upload.folder / path, upload.manifest.files[path])
            for upload in uploads
            for path in upload.paths
        }
        additions: dict[str, CommitOperationAdd] = {}

        def operations(head: str) -> list[Operation]:
            held = self._held(files, head)
            for path in files.keys() - held - additions.keys():
                additions[path] = self._hub.addition(path, files[path][0])
            adding: list[Operation] = [additions[path] for path in files if path not in held]
            return adding + self._operations(uploads, head)

        held = self._held(files, self._hub.head())
        additions |= self._send({path: each for path, each in files.items() if path not in held}, on_bytes)
        made = self._hub.commit(_summary(uploads), operations)
        lacking = files.keys() - self._held(files, made)
        if lacking:
            raise DamagedInTransit(
                f"{self.url}/{min(lacking)}: did not arrive, or not as it is here",
                cure="push again with --replace; if it stays so: does a .gitignore of the data set leave it out?",
            )

    def _operations(self, uploads: Sequence[Upload], head: str) -> list[Operation]:
        """Of one commit, beside the files: groups, manifests, and what they make void.

        Raises:
            InputError: somebody has pushed another content of a match meanwhile.
        """
        names = set(self._names(head))
        groups = {f"{group}/{METADATA}": group for upload in uploads for group in upload.groups}
        missing = groups.keys() - self._hub.infos(list(groups), head).keys()
        made: list[Operation] = [
            self._hub.addition(path, canonical_json(group_metadata({}), where=path)) for path in sorted(missing)
        ]
        for upload in uploads:
            manifest = upload.manifest
            mine = {name for name in names if name.startswith(f"{id_hash(manifest.match_id)}.")}
            if mine - {manifest.name, *upload.outdated}:
                raise InputError(
                    f"match {manifest.match_id!r} has just been pushed by somebody else, with other content",
                    cure="run the same command again: it compares anew, and what has arrived does not travel twice",
                )
            if manifest.name not in names:
                made.append(self._hub.addition(f"{MANIFESTS}/{manifest.name}", manifest.document))
            void = [f"{MANIFESTS}/{name}" for name in sorted(mine - {manifest.name})]
            void += self._strays(upload, head) if upload.overwrite else []
            made += [self._hub.deletion(path) for path in void]
        return made

    def _strays(self, upload: Upload, head: str) -> list[str]:
        """Files of views that the replaced match had and the new one has not."""
        match_id = upload.manifest.match_id
        wanted = {f"{match_id}/{path}" for path in upload.manifest.files}
        return sorted(self._hub.tree(f"{match_id}/{FEATURES}", head, recursive=True).keys() - wanted)

    def _send(self, files: Files, on_bytes: OnBytes) -> dict[str, CommitOperationAdd]:
        """Upload what does not travel within a commit; the hub knows by its hash what it has.

        Raises:
            DamagedInTransit: a file is not what was announced.
        """
        sent: dict[str, CommitOperationAdd] = {}
        for paths in _in_parts(files):
            part = {path: self._hub.addition(path, files[path][0]) for path in paths}
            self._hub.upload(part.values())
            for path, addition in part.items():
                if addition.upload_info.sha256.hex() != files[path][1].sha256:
                    raise DamagedInTransit(f"{files[path][0]}: changed while it was read", cure="push again")
                on_bytes(files[path][1].num_bytes)
            sent |= part
        return sent

    def _held(self, files: Files, revision: str) -> set[str]:
        """Those of some files that the hub has at a revision with the same content."""
        infos = self._hub.infos(list(files), revision)
        return {path for path, info in infos.items() if _is_same(info, *files[path])}

    def _names(self, revision: str) -> list[str]:
        """Names of the manifests at a revision."""
        paths = self._hub.tree(MANIFESTS, revision, recursive=False)
        return sorted(name for name in (path.rpartition("/")[2] for path in paths) if is_manifest(name))


def in_batches(uploads: Sequence[Upload]) -> list[list[Upload]]:
    """Matches by commit, so that what travels within a commit fits into memory."""
    batches: list[list[Upload]] = []
    left = 0
    for upload in uploads:
        sizes = (upload.manifest.files[path].num_bytes for path in upload.paths)
        inline = sum(size for size in sizes if size <= _INLINE_BYTES)
        if not batches or inline > left:
            batches.append([])
            left = _COMMIT_BYTES
        batches[-1].append(upload)
        left -= inline
    return batches


def _in_parts(files: Files) -> Iterator[list[str]]:
    """Paths, some megabytes at a time."""
    part: list[str] = []
    num_bytes = 0
    for path, (_, entry) in files.items():
        part.append(path)
        num_bytes += entry.num_bytes
        if num_bytes >= _UPLOAD_BYTES:
            yield part
            part, num_bytes = [], 0
    if part:
        yield part


def _is_same(info: RepoFile, path: Path, entry: FileEntry) -> bool:
    """Whether the hub's file has the content of ours; it knows large files by SHA-256, small ones as git does."""
    if info.size != entry.num_bytes:
        return False
    if info.lfs is not None:
        return info.lfs.sha256 == entry.sha256
    digest = hashlib.sha1(b"blob %d\0" % entry.num_bytes, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return info.blob_id == digest.hexdigest()


def _summary(uploads: Sequence[Upload]) -> str:
    names = [upload.manifest.match_id for upload in uploads]
    return f"Push {names[0]}" if len(names) == 1 else f"Push {len(names)} matches: {names[0]} to {names[-1]}"
