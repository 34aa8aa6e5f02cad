"""Questions and commits to one data set of the Hugging Face hub, tried again where that may help; errors in words."""

import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_session,
    get_token,
    hf_hub_url,
    hf_raise_for_status,
)
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.tqdm import disable_progress_bars

from ...errors import InputError
from .hub_errors import explained, is_conflict, is_passing, pause_seconds

T = TypeVar("T")
Operation = CommitOperationAdd | CommitOperationDelete
_ADDRESS = re.compile(
    r"hf://datasets/(?P<repo>\w[\w.-]*/\w[\w.-]*)"
    r"(?:@(?P<revision>refs/(?:pr|convert)/[^/@]+|[^/@]+))?(?:/(?P<folder>[^?#]*))?",
    re.ASCII,
)
_FORBIDDEN = ("", ".", "..", ".git", ".cache")
ATTEMPTS = 4
_COMMIT_ATTEMPTS = 12
"""Of many who push at once, one wins each round."""
_PATHS_AT_ONCE = 500
"""Paths in one question to the hub."""


class HubClient:
    """A folder of a data set at a revision; paths are within that folder.

    Every commit names its parent, so that it fails where another came first; then everything is looked at again.
    """

    def __init__(self, url: str) -> None:
        """Read the address; the hub is not asked yet. HF_ENDPOINT names another hub.

        Raises:
            InputError: not such an address.
        """
        self.url = url.rstrip("/")
        self._repo, self.revision, self._folder = parse_address(url)
        endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
        self._api = HfApi(endpoint=endpoint, library_name="bas")
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it logs addresses with their signatures
        if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
            disable_progress_bars()

    @contextmanager
    def open(self, path: str, revision: str, *, start: int = 0, stop: int | None = None) -> Iterator[Iterator[bytes]]:
        """Blocks of a file from byte `start` on, by way of the hub's redirects, which get no token."""
        token, headers = get_token(), {"accept-encoding": "identity"}
        if token and not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
            headers["authorization"] = f"Bearer {token}"
        if stop is not None:
            headers["range"] = f"bytes={start}-{stop - 1}"
        url = hf_hub_url(
            self._repo, self._inside(path), repo_type="dataset", revision=revision, endpoint=self._api.endpoint
        )
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
            if response.status_code == 416:  # it ends before `start`
                yield iter(())
                return
            hf_raise_for_status(response)
            blocks = response.iter_raw()  # as they come: nothing is lost where the line breaks
            yield blocks if response.status_code == 206 else _from(blocks, start)

    def head(self) -> str:
        """The commit that the revision now names."""
        info = self.call(lambda: self._api.dataset_info(self._repo, revision=self.revision, expand=["sha"]))
        if not info.sha:
            raise InputError(f"{self.url}: the hub names no commit", cure="check HF_ENDPOINT")
        return info.sha

    def tree(self, folder: str, revision: str, *, recursive: bool) -> dict[str, RepoFile]:
        """Files below a folder by path; none where there is no such folder."""

        def attempt() -> dict[str, RepoFile]:
            try:
                found = list(
                    self._api.list_repo_tree(
                        self._repo, self._inside(folder), recursive=recursive, revision=revision, repo_type="dataset"
                    )
                )
            except EntryNotFoundError:
                return {}
            return self._by_path(found)

        return self.call(attempt, attempts=1)  # the library tries again by itself

    def infos(self, paths: Sequence[str], revision: str) -> dict[str, RepoFile]:
        """What the hub says of some files, by path; without those that do not exist."""
        found: dict[str, RepoFile] = {}
        for at in range(0, len(paths), _PATHS_AT_ONCE):
            inside = [self._inside(path) for path in paths[at : at + _PATHS_AT_ONCE]]
            found |= self._by_path(
                self.call(
                    lambda inside=inside: self._api.get_paths_info(  # type: ignore[misc]
                        self._repo, inside, revision=revision, repo_type="dataset"
                    )
                )
            )
        return found

    def commit(self, summary: str, operations: Callable[[str], list[Operation]]) -> str:
        """Make one commit, on top of the commit that `operations` has looked at.

        Args:
            summary: its title.
            operations: what to do, for the commit that is the newest; called again where another came first.

        Returns:
            The commit that has it all.

        Raises:
            InputError: the hub refuses, or others are always faster.
        """
        tried = failed = 0
        while True:
            head = self.head()
            planned = operations(head)
            if not planned:
                return head
            try:
                made = self._api.create_commit(
                    self._repo,
                    planned,
                    commit_message=summary,
                    repo_type="dataset",
                    revision=self.revision,
                    parent_commit=head,
                )
                return made.oid
            except Exception as error:  # it may have come through all the same: the next look tells
                tried, failed = tried + 1, failed + (not is_conflict(error))
                self.wait(error, *((tried, _COMMIT_ATTEMPTS) if is_conflict(error) else (failed, ATTEMPTS)))

    def upload(self, additions: Iterable[CommitOperationAdd]) -> None:
        """Bring the files that do not travel within a commit. The hub knows by its hash what it has.

        Raises:
            InputError: it refuses, or cannot be reached.
        """
        self.call(
            lambda: self._api.preupload_lfs_files(
                self._repo, additions, repo_type="dataset", revision=self.revision, free_memory=False
            ),
            attempts=1,  # the library tries again by itself
        )

    def make_repository(self) -> None:
        """Make the data set, private, unless it exists.

        Raises:
            InputError: the hub refuses.
        """
        try:
            self._api.dataset_info(self._repo, expand=["sha"])
        except RepositoryNotFoundError:
            self.call(lambda: self._api.create_repo(self._repo, repo_type="dataset", private=True, exist_ok=True))
        except Exception as error:
            raise explained(error, url=self.url) from None

    def addition(self, path: str, content: Path | bytes) -> CommitOperationAdd:
        """A file for a commit.

        Raises:
            InputError: it is gone, or the hub allows no such path.
        """
        try:
            return CommitOperationAdd(self._inside(path), content)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be pushed", got=str(error)[:200]) from None

    def deletion(self, path: str) -> CommitOperationDelete:
        """A file that a commit removes."""
        return CommitOperationDelete(self._inside(path), is_folder=False)

    def _inside(self, path: str) -> str:
        """Path within the data set."""
        return f"{self._folder}/{path}" if self._folder else path

    def _by_path(self, found: Sequence[object]) -> dict[str, RepoFile]:
        """Files by their path within the store."""
        start = len(self._inside(""))
        return {each.path[start:]: each for each in found if isinstance(each, RepoFile)}

    def call(self, attempt: Callable[[], T], *, attempts: int = ATTEMPTS) -> T:
        """The result; what may be a passing trouble is tried again.

        Raises:
            InputError: the hub refuses, or cannot be reached.
        """
        number = 0
        while True:
            number += 1
            try:
                return attempt()
            except Exception as error:
                self.wait(error, number, attempts)

    def wait(self, error: Exception, attempt: int, attempts: int) -> None:
        """Wait until the next attempt may succeed.

        Raises:
            InputError: it will not, or this was the last.
        """
        if isinstance(error, InputError):
            raise error
        pause = pause_seconds(error, min(attempt, ATTEMPTS))
        if attempt >= attempts or pause is None or not (is_passing(error) or is_conflict(error)):
            raise explained(error, url=self.url) from None
        time.sleep(pause)


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


def _from(blocks: Iterator[bytes], start: int) -> Iterator[bytes]:
    """Without the first `start` bytes."""
    for block in blocks:
        if start < len(block):
            yield block[start:]
        start = max(0, start - len(block))
