"""A shared store in a data set of the Hugging Face hub, by its client: one commit brings whole matches or nothing."""

import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash
from huggingface_hub.utils.tqdm import disable_progress_bars

from ...errors import InputError
from ...files import file_sha256
from ..layout import FEATURES, MANIFESTS, METADATA, canonical_json, group_metadata
from .manifest import FileEntry, id_hash, is_manifest
from .places import OnBytes, Unreachable, Upload, changed_meanwhile, not_as_announced

Operation = CommitOperationAdd | CommitOperationDelete
_ADDRESS = re.compile(
    r"hf://datasets/(?P<repo>\w[\w.-]*/\w[\w.-]*)"
    r"(?:@(?P<revision>refs/(?:pr|convert)/[^/@]+|[^/@]+))?(?:/(?P<folder>[^?#]*))?",
    re.ASCII,
)
_FORBIDDEN = ("", ".", "..", ".git", ".cache")
_COMMIT_ATTEMPTS = 12
"""Of many who push at once, one wins each round."""
_TRY_AGAIN = (409, 412, 500, 502, 503, 504)
"""Answers to a commit where another came first, or the hub stumbled; the next look tells whether it came through."""
_PATHS_AT_ONCE = 500
_NETWORK_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]
"""Of the HTTP library that the hub's client happens to use."""
_SECRETS = re.compile(r"\b(?:hf_|api_org_|hf_oauth_)\w{8,}|(?<=\?)\S+")
"""Tokens, and the signatures of addresses."""


class HubPlace:
    """A folder of a data set at a revision. The first push makes the data set, as a private one.

    Every commit names its parent, so that it fails where another came first; then everything is looked at again.
    """

    is_read_only, has_card = False, True
    uploads_at_once = 16
    publishers = 1

    def __init__(self, url: str) -> None:
        """Read the address; the hub is not asked yet. HF_ENDPOINT names another hub."""
        self.url = url.rstrip("/")
        self._repo, self._revision, self._folder = parse_address(url)
        endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
        self._api = HfApi(endpoint=endpoint, library_name="bas")
        self._at: dict[str, Any] = {"repo_id": self._repo, "repo_type": "dataset"}
        self._listed_at = self._revision
        """Commit of the last listing: files are fetched from there, whatever others do meanwhile."""
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it logs addresses with their signatures
        if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
            disable_progress_bars()

    def read(self, path: str, *, max_bytes: int) -> bytes | None:
        """See `Place`. None also where there is no such data set, but who asks may make one."""
        try:
            with self._errors(), TemporaryDirectory() as folder:
                too_large = InputError(f"{self.url}/{path}: too large", wanted=f"at most {max_bytes} bytes")
                return self._download(path, self._revision, Path(folder), max_bytes, too_large).read_bytes()
        except _Missing as error:
            if path != METADATA and error.is_repository:
                raise _explain(error.cause, self.url) from None
            return None

    def fetch(self, path: str, target: Path, entry: FileEntry, on_bytes: OnBytes) -> None:
        """See `Place`."""
        where = f"{self.url}: {path}"
        longer = not_as_announced(where, "it is longer", entry)
        try:
            with self._errors(), TemporaryDirectory(dir=target.parent) as folder:
                came = self._download(path, self._listed_at, Path(folder), entry.num_bytes, longer, on_bytes)
                num_bytes, sha256 = came.stat().st_size, file_sha256(came)
                if (num_bytes, sha256) != (entry.num_bytes, entry.sha256):
                    raise not_as_announced(where, f"{num_bytes} bytes, SHA-256 {sha256}", entry)
                came.replace(target)
        except _Missing:
            raise InputError(f"{self.url}/{path}: no such file there") from None

    def manifests(self) -> list[str] | None:
        """See `Place`."""
        self._listed_at = self._head()
        return self._names(self._listed_at)

    def create(self, path: str, data: bytes) -> bool:
        """See `Place`. Makes the data set, private, where there is none."""
        created = False
        try:
            with self._errors():
                self._api.dataset_info(self._repo, expand=["sha"])
        except _Missing:
            with self._errors():
                self._api.create_repo(**self._at, private=True, exist_ok=True)

        def operations(head: str) -> list[Operation]:
            nonlocal created
            created = not self._infos([path], head)
            return [self._addition(path, data)] if created else []

        self._commit(f"Add {path}", operations)
        return created

    def write(self, path: str, data: bytes) -> None:
        """See `Place`."""
        self._commit(f"Write {path}", lambda _: [self._addition(path, data)])

    def publish(self, uploads: Sequence[Upload], on_bytes: OnBytes) -> None:
        """See `Place`. The files come first, which nobody sees; then one commit brings all of them into view."""
        wanted = [f"{upload.manifest.match_id}/{path}" for upload in uploads for path in upload.paths]
        sent: dict[str, CommitOperationAdd] = {}
        for upload in uploads:
            sent |= self._send(upload, on_bytes)

        def operations(head: str) -> list[Operation]:
            there = self._infos(wanted, head)
            files: list[Operation] = [sent[path] for path in wanted if not _is_same(there.get(path), sent[path])]
            return files + self._operations(uploads, head)

        names = [upload.manifest.match_id for upload in uploads]
        title = f"Push {names[0]}" if len(names) == 1 else f"Push {len(names)} matches: {names[0]} to {names[-1]}"
        there = self._infos(wanted, self._commit(title, operations))
        lacking = [path for path in wanted if not _is_same(there.get(path), sent[path])]
        if lacking:
            raise InputError(
                f"{self.url}/{lacking[0]}: did not arrive, or not as it is here",
                cure="push again with --replace; if it stays so: does a .gitignore of the data set leave it out?",
            )

    def _send(self, upload: Upload, on_bytes: OnBytes) -> dict[str, CommitOperationAdd]:
        """Upload what does not travel within a commit; the hub knows by its hash what it has."""
        made = {}
        for path in upload.paths:
            addition = self._addition(f"{upload.manifest.match_id}/{path}", upload.folder / path)
            if addition.upload_info.sha256.hex() != upload.manifest.files[path].sha256:
                raise InputError(f"{upload.folder / path}: changed while it was read", cure="push again")
            made[f"{upload.manifest.match_id}/{path}"] = addition
        with self._errors():
            # free_memory=False: a commit that comes too late is made anew from the same additions
            self._api.preupload_lfs_files(
                additions=made.values(), revision=self._revision, free_memory=False, **self._at
            )
        on_bytes(sum(upload.manifest.files[path].num_bytes for path in upload.paths))
        return made

    def _operations(self, uploads: Sequence[Upload], head: str) -> list[Operation]:
        """Of one commit, beside the files: groups, manifests, what they make void. InputError: another came first."""
        names = self._names(head)
        groups = list(dict.fromkeys(f"{group}/{METADATA}" for upload in uploads for group in upload.groups))
        there = self._infos(groups, head)
        made: list[Operation] = [
            self._addition(path, canonical_json(group_metadata({}), where=path)) for path in groups if path not in there
        ]
        for upload in uploads:
            manifest = upload.manifest
            mine = {name for name in names if name.startswith(f"{id_hash(manifest.match_id)}.")}
            if mine - {manifest.name, *upload.outdated}:
                raise changed_meanwhile(manifest.match_id)
            if manifest.name not in mine:
                made.append(self._addition(f"{MANIFESTS}/{manifest.name}", manifest.document))
            void = [f"{MANIFESTS}/{name}" for name in sorted(mine - {manifest.name})]
            if upload.overwrite:  # files of views that the replaced match had and the new one has not
                wanted = {f"{manifest.match_id}/{path}" for path in manifest.files}
                void += sorted(set(self._tree(f"{manifest.match_id}/{FEATURES}", head, recursive=True)) - wanted)
            made += [CommitOperationDelete(self._inside(path), is_folder=False) for path in void]
        return made

    def _commit(self, title: str, operations: Callable[[str], list[Operation]]) -> str:
        """Commit what `operations` plans for a head; where another came first, plan again. The commit with it all."""
        for attempt in range(_COMMIT_ATTEMPTS):
            head = self._head()
            planned = operations(head)
            if not planned:
                return head
            with self._errors():
                try:
                    commit = self._api.create_commit(
                        operations=planned,
                        commit_message=title,
                        revision=self._revision,
                        parent_commit=head,
                        **self._at,
                    )
                    return str(commit.oid)
                except (HfHubHTTPError, _NETWORK_ERROR) as error:
                    # 409 and 412: another's commit came first; the others: whether ours came through is not known
                    is_last = attempt == _COMMIT_ATTEMPTS - 1
                    if is_last or (isinstance(error, HfHubHTTPError) and _status(error) not in _TRY_AGAIN):
                        raise
            time.sleep(min(2.0, 0.1 * 2**attempt) * random.uniform(0.5, 1.5))
        raise AssertionError("unreachable")

    def _head(self) -> str:
        """The commit that the revision now names."""
        try:
            with self._errors():
                info = self._api.dataset_info(self._repo, revision=self._revision, expand=["sha"])
        except _Missing as error:
            raise _explain(error.cause, self.url) from None
        if not info.sha:
            raise InputError(f"{self.url}: the hub names no commit", cure="check HF_ENDPOINT")
        return info.sha

    def _names(self, revision: str) -> list[str]:
        """Names of the manifests at a revision."""
        paths = self._tree(MANIFESTS, revision, recursive=False)
        return sorted(name for name in (path.rpartition("/")[2] for path in paths) if is_manifest(name))

    def _tree(self, folder: str, revision: str, *, recursive: bool) -> dict[str, RepoFile]:
        """Files below a folder by path; none where there is no such folder."""
        where: dict[str, Any] = {"path_in_repo": self._inside(folder), "revision": revision, **self._at}
        try:
            with self._errors():
                return self._by_path(self._api.list_repo_tree(recursive=recursive, **where))
        except _Missing:
            return {}

    def _infos(self, paths: Sequence[str], revision: str) -> dict[str, RepoFile]:
        """What the hub says of some files, by path; without those that do not exist."""
        found: dict[str, RepoFile] = {}
        for at in range(0, len(paths), _PATHS_AT_ONCE):
            inside = [self._inside(path) for path in paths[at : at + _PATHS_AT_ONCE]]
            with self._errors():
                found |= self._by_path(self._api.get_paths_info(paths=inside, revision=revision, **self._at))
        return found

    def _download(
        self,
        path: str,
        revision: str,
        folder: Path,
        max_bytes: int,
        too_large: InputError,
        on_bytes: OnBytes = lambda _: None,
    ) -> Path:
        """A file below `folder`; `too_large` is raised before more than `max_bytes` of it have come."""
        where: dict[str, Any] = {"filename": self._inside(path), "revision": revision, "local_dir": folder, **self._at}
        progress = _bounded(max_bytes, too_large, on_bytes)
        return Path(self._api.hf_hub_download(**where, tqdm_class=progress))

    def _addition(self, path: str, content: Path | bytes) -> CommitOperationAdd:
        try:
            return CommitOperationAdd(self._inside(path), content)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be pushed", got=str(error)[:200]) from None

    def _inside(self, path: str) -> str:
        """Path within the data set."""
        return f"{self._folder}/{path}" if self._folder else path

    def _by_path(self, found: Any) -> dict[str, RepoFile]:
        """Files by their path within the store."""
        start = len(self._inside(""))
        return {each.path[start:]: each for each in found if isinstance(each, RepoFile)}

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what the hub's client says into errors with a cure; what does not exist into `_Missing`."""
        try:
            yield
        except (InputError, _Missing):
            raise
        except LocalEntryNotFoundError as error:  # what its downloads raise where nobody answers
            cause = error.__cause__
            raise _explain(cause if isinstance(cause, Exception) else error, self.url) from None
        except EntryNotFoundError as error:
            raise _Missing(error, is_repository=False) from None
        except RepositoryNotFoundError as error:
            if type(error) is RepositoryNotFoundError and get_token():  # who asks may make it
                raise _Missing(error, is_repository=True) from None
            raise _explain(error, self.url) from None
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
                raise  # this machine's disk, not the hub
            raise _explain(error, self.url) from None


class _Missing(Exception):  # noqa: N818
    """There is no such file, folder or data set."""

    def __init__(self, cause: Exception, *, is_repository: bool) -> None:
        super().__init__(str(cause))
        self.cause, self.is_repository = cause, is_repository


def _bounded(max_bytes: int, too_large: InputError, on_bytes: OnBytes) -> Any:
    """A progress bar's class for the hub's client, which tells it of every block that comes."""

    class Bounded:
        def __init__(self, *_: object, total: float | None = None, initial: float = 0, **__: object) -> None:
            self.n, self.total, self.disable, self.desc = initial, total, False, ""
            if (total or 0) > max_bytes:
                raise too_large

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if self.n > max_bytes:
                raise too_large
            on_bytes(int(n or 0))

        def __enter__(self) -> "Bounded":
            return self

        def __exit__(self, *_: object) -> None: ...
        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *_, **__: None  # refresh, close, set_description ...

    return Bounded


def parse_address(url: str) -> tuple[str, str, str]:
    """Data set `USER/NAME`, revision, and folder within it (empty: all of it).

    Raises:
        InputError: not an address of a data set on the hub.
    """
    found = _ADDRESS.fullmatch(url.rstrip("/"))
    folder = (found["folder"] or "") if found else ""
    if found is None or (folder and any(part in _FORBIDDEN for part in folder.split("/"))):
        raise InputError("not a data set of the hub", got=url, wanted="hf://datasets/USER/NAME[@REVISION][/PATH]")
    return found["repo"], unquote(found["revision"] or constants.DEFAULT_REVISION), folder


def _is_same(info: RepoFile | None, addition: CommitOperationAdd) -> bool:
    """Whether the hub's file has the content of ours; it knows large files by SHA-256, small ones as git does."""
    if info is None or info.size != addition.upload_info.size:
        return False
    if info.lfs is not None:
        return info.lfs.sha256 == addition.upload_info.sha256.hex()
    with addition.as_file() as file:
        return info.blob_id == git_hash(file.read())


_LOG_IN = "log in: hf auth login, or set HF_TOKEN (huggingface.co/settings/tokens; to push it needs the right to write)"
_RIGHTS = "check the name, and that your token may use this data set (to push: write to it)"
_AGAIN = "check address and network; run the same command again: what has arrived stays"
_KINDS: dict[type[Exception], tuple[str, str]] = {
    OfflineModeIsEnabled: ("offline", "unset HF_HUB_OFFLINE"),
    GatedRepoError: ("its owner gives access on request only", "ask for access on the data set's page"),
    RepositoryNotFoundError: ("no such data set, or it is private", _RIGHTS),
    RevisionNotFoundError: ("no such branch, tag or commit", "check what follows the @"),
}
_STATUS = {
    401: ("not logged in, or the token is not valid", _LOG_IN),
    403: ("no right to do this", _RIGHTS),
    409: ("others write there all the time", _AGAIN),
    412: ("others write there all the time", _AGAIN),
    429: (
        "the hub's limit of requests or commits is reached",
        "wait (commits are counted by the hour), then try again",
    ),
}


def _explain(error: Exception, url: str) -> InputError:
    """As an error for the user; without tokens, whatever the hub says."""
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):  # around that of one upload
        return _explain(error.__cause__, url)
    status = _status(error)
    words = (error.server_message or "") if isinstance(error, HfHubHTTPError) else str(error) or type(error).__name__
    words = _SECRETS.sub("...", " ".join(words.split())).replace(get_token() or "\0", "...")
    got = (f"HTTP {status}: " * (status is not None) + words)[:300].removesuffix(": ")
    kind = next((each for each in _KINDS if isinstance(error, each)), None)
    if kind is None and status is None:
        return Unreachable(f"{url}: cannot be reached, or answers oddly", got=got, cure=_AGAIN)
    what, cure = _KINDS[kind] if kind else _STATUS.get(status or 0, ("the hub refuses", _AGAIN))
    if not get_token() and cure != _LOG_IN and (kind in (GatedRepoError, RepositoryNotFoundError) or status == 403):
        cure = _LOG_IN if cure == _RIGHTS else f"{cure}, then {_LOG_IN}"
    is_away = kind is OfflineModeIsEnabled or (status or 0) >= 500
    return (Unreachable if is_away else InputError)(f"{url}: {what}", got=got, cure=cure)


def _status(error: Exception) -> int | None:
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None
