"""Files: JSON within limits, whole-or-absent writes, locks, hashes, settings to and from JSON; imports errors only."""

import contextlib
import errno
import glob
import hashlib
import io
import json
import os
import re
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from .errors import InputError, cure_for, refuse_differing

if TYPE_CHECKING:
    import filelock
    from _typeshed import DataclassInstance

JSON_BYTES = 64 << 20
"""Largest JSON file that is read where nothing else is said; parsed, it takes up to about 25 times its size."""
_UNSAFE_RAW = re.compile("[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_UNSAFE_ESCAPE = re.compile(
    r"(?<!\\)(?:\\\\)*\\(?:[bf]|u(?:00(?:0[0-8bcef]|1[0-9a-f]|7f|[89][0-9a-f])|202[a-e]|206[6-9]))", re.IGNORECASE
)
"""Control characters and changes of direction, as they are and as JSON escapes: they fool terminals."""


def open_bytes(path: Path) -> io.BufferedReader:
    """A regular file, open for reading. Raises as `open_regular`."""
    return os.fdopen(open_regular(path), "rb")


def open_regular(path: Path, *, follow: bool = True) -> int:
    """A file descriptor for reading a regular file; never waits for another process, as opening a pipe would.

    Args:
        path: the file.
        follow: False refuses a link.

    Raises:
        OSError: as the file system says, or it is no regular file.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags | (0 if follow else getattr(os, "O_NOFOLLOW", 0)))
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def read_bounded(path: Path, *, max_bytes: int) -> bytes:
    """A whole regular file.

    Raises:
        InputError: missing, no regular file, unreadable, or larger than `max_bytes`.
    """
    try:
        with open_bytes(path) as file:
            num_bytes = os.fstat(file.fileno()).st_size
            data = file.read(min(num_bytes, max_bytes) + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read", got=error.strerror, cure=cure_for(error, "")) from None
    if max(num_bytes, len(data)) > max_bytes:
        raise InputError(
            f"{path}: too large for what it is",
            got=f"{max(num_bytes, len(data)):,} bytes",
            wanted=f"at most {max_bytes:,}",
            cure="fetch it again; do not trust where it came from",
        )
    return data


def read_json(path: Path, *, max_bytes: int = JSON_BYTES) -> Any:
    """Parsed JSON of a small text file.

    Raises:
        InputError: missing, unreadable, larger than `max_bytes`, not JSON (names the line), or with text that is not
            safe to show (control characters, half a surrogate pair).
    """
    return parse_json(read_bounded(path, max_bytes=max_bytes), where=str(path))


def read_text(path: Path, *, max_bytes: int = 1 << 20) -> str:
    """A small text file in UTF-8, without the mark that Windows editors put at the front.

    Raises:
        InputError: missing, unreadable, larger than `max_bytes`, or not UTF-8.
    """
    return decode_text(read_bounded(path, max_bytes=max_bytes), where=str(path))


def decode_text(data: bytes, *, where: str) -> str:
    """UTF-8 text without a mark at the front. Raises as `read_text`; errors begin with `where`."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        got = f"byte {error.start}: {error.reason}"
        raise InputError(f"{where}: not UTF-8 text", got=got, cure="save it as UTF-8, or fetch it again") from None


def parse_json(data: bytes, *, where: str) -> Any:
    """Parsed JSON. Raises as `read_json`; errors begin with `where`."""
    text = decode_text(data, where=where)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        what = f"{where}: not valid JSON at line {error.lineno}, column {error.colno}"
        raise InputError(what, got=error.msg, cure="repair the file, or fetch it again") from None
    except RecursionError:
        raise InputError(f"{where}: JSON nested too deep", cure="fetch the file again") from None
    except ValueError as error:  # an integer of more than 4300 digits
        raise InputError(f"{where}: not usable JSON", got=str(error), cure="fetch the file again") from None
    _require_safe_text(text, value, where=where)
    return value


def _require_safe_text(text: str, value: object, *, where: str) -> None:
    """Refuse what a terminal would obey, and what is no text: names and labels are shown and become folders."""
    is_plain = text.isascii() and "\x7f" not in text  # ten times faster than a search
    unsafe = (None if is_plain else _UNSAFE_RAW.search(text)) or ("\\" in text and _UNSAFE_ESCAPE.search(text))
    if unsafe:
        raise InputError(
            f"{where}: holds control characters",
            got=ascii(unsafe[0]),
            wanted="text that can be shown",
            cure="fetch the file again; do not trust where it came from",
        )
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise InputError(f"{where}: holds half a character", cure="fetch the file again") from None


def write_json_atomic(path: Path, value: object) -> None:
    """Write JSON whole or not at all."""
    write_text_atomic(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_text_atomic(path: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    write_atomic(path, text.encode())


def write_atomic(path: Path, data: bytes, *, via: Path | None = None) -> None:
    """Write a file whole or not at all: a temporary file, fsync, rename. Makes the folder.

    Args:
        path: the file.
        data: all of it.
        via: the temporary file, on the same disk; a kill may leave it behind. Default: `.NAME.PROCESS` beside the file.
    """
    with whole_or_absent(path, via=via) as temporary:
        _write(temporary, data, sync=False)  # that follows


@contextlib.contextmanager
def whole_or_absent(path: Path, *, via: Path | None = None) -> Iterator[Path]:
    """Give a temporary name to write to; at the end it is synced to the disk and renamed, or removed after an error.

    Args:
        path: the file; its folder is made.
        via: as `write_atomic`.
    """
    temporary = via or path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        sync_path(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_path(path.parent)


def write_synced(path: Path, data: bytes) -> None:
    """Write a small file through to the disk; only for places that no reader sees yet. Never through a link."""
    _write(path, data, sync=True)


def _write(path: Path, data: bytes, *, sync: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with os.fdopen(os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o666), "wb") as file:
        file.write(data)
        file.flush()
        if sync:
            os.fsync(file.fileno())


def sync_path(path: Path) -> None:
    """Return when a file's bytes, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_MAX_DEPTH = 48
"""Folders inside each other: a match's id, and what is in a match."""
_FULL = {errno.ENOSPC: "no space left", errno.EDQUOT: "quota used up", errno.EFBIG: "file size limit reached"}


class MatchBusy(InputError):  # noqa: N818 (an InputError by nature)
    """Another process writes this match now."""

    status = "busy elsewhere"


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into an error with a cure.

    Raises:
        InputError: disk full, no permission, read-only, or any other failure of the file system.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            cure = "free some space and run the same command again: it goes on from what is saved"
            raise InputError(f"{path}: {_FULL[error.errno]}", got=error.strerror, cure=cure) from error
        where, cure = error.filename or path, cure_for(error, "check the folder and its rights")
        raise InputError(f"{where}: cannot be written", got=error.strerror, cure=cure) from error


@contextlib.contextmanager
def reading_errors(path: Path) -> Iterator[None]:
    """Turn what the file system says about a file or folder that is read into an error.

    Raises:
        InputError: no permission (another user's folder), no such file, or any other failure of the file system.
    """
    try:
        yield
    except OSError as error:
        raise unreadable(error, path) from None


def unreadable(error: OSError, path: Path | str = "a file") -> InputError:
    """The error for what the file system refuses, about the file that it names, else `path`."""
    cure = cure_for(error, "check the path, its owner and its rights")
    return InputError(f"{error.filename or path}: cannot be used", got=error.strerror, cure=cure)


def cache_folder() -> Path:
    """What bas keeps between runs on this machine: `$BAS_CACHE`, else `~/.cache/bas`.

    Raises:
        InputError: neither is known.
    """
    if root := os.environ.get("BAS_CACHE"):
        return Path(root)
    try:
        return Path.home() / ".cache" / "bas"
    except RuntimeError:
        raise InputError("no home folder", cure="set BAS_CACHE to a folder that may be written") from None


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a regular file's bytes."""
    with open_bytes(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def real_files(folder: Path, *, deep: bool = True) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything in a folder with its own status (that of a link, not of what it leads to); follows no link.

    Args:
        folder: where to begin.
        deep: folders in it as well.

    Raises:
        InputError: folders nested too deep, or one that cannot be read.
    """
    todo = [(folder, 0)]
    while todo:
        parent, depth = todo.pop()
        if depth > _MAX_DEPTH:
            raise InputError(
                f"{folder}: folders nested too deep",
                wanted=f"at most {_MAX_DEPTH}",
                cure="remove them; do not trust this store",
            )
        try:
            found = [(Path(entry.path), entry.stat(follow_symlinks=False)) for entry in os.scandir(parent)]
        except OSError as error:
            raise InputError(f"{parent}: cannot be read", got=error.strerror, cure=cure_for(error, "")) from None
        yield from found
        todo += [(path, depth + 1) for path, status in found if deep and stat.S_ISDIR(status.st_mode)]


class FileLock:
    """A lock file that names its owner, by `filelock`; it ends with `release` or with the process, however it ends.

    A file that a killed process left behind locks nobody out.
    """

    def __init__(self, path: Path, lock: "filelock.BaseFileLock") -> None:
        self.path, self._lock = path, lock

    @classmethod
    def acquire(cls, path: Path, *, wait_seconds: float) -> Self | None:
        """The lock, or None where another process still holds it after `wait_seconds`. Makes the parent folder."""
        import filelock

        deadline = time.monotonic() + wait_seconds
        while True:
            lock = filelock.FileLock(path, thread_local=False)
            try:
                lock.acquire(timeout=max(0.0, deadline - time.monotonic()), poll_interval=0.01)
                path.write_text(f"pid {os.getpid()} on {socket.gethostname()}\n")
            except filelock.Timeout:
                return None
            except (FileNotFoundError, FileExistsError):  # the last owner removes the folder at this moment
                lock.release(force=True)
                if path.parent.exists() and not path.parent.is_dir():
                    raise
                if time.monotonic() >= deadline:
                    return None
                continue
            return cls(path, lock)

    @staticmethod
    def owner(path: Path) -> str:
        """Who holds the lock at `path`, as written there: `pid 12 on host`."""
        try:
            return read_bounded(path, max_bytes=4096).decode(errors="replace").strip() or "another process"
        except InputError:
            return "another process"

    def release(self) -> None:
        """Remove the file, then the folder where it is empty; a second call does nothing."""
        if not self._lock.is_locked:
            return
        self.path.unlink(
            missing_ok=True
        )  # while it is held: who waits for this file sees that it is gone, and asks anew
        self._lock.release()
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


SettingsT = TypeVar("SettingsT", bound="DataclassInstance")


def settings_from(cls: type[SettingsT], record: object, *, where: str) -> SettingsT:
    """A settings dataclass from its JSON: missing fields get their defaults, so that an old run opens tomorrow.

    Args:
        cls: a dataclass whose fields are plain JSON values (convert others before).
        record: what `asdict` gave when it was written.
        where: file, for the error.

    Raises:
        InputError: not an object, a field that this version does not know (names it), one without a default missing,
            or a value that the class refuses.
    """
    if not isinstance(record, Mapping):
        raise InputError(f"{where}: settings are not an object", got=repr(record)[:80])
    known = {each.name for each in fields(cls)}
    unknown = sorted(str(name) for name in set(record) - known)
    if unknown:
        raise InputError(
            f"{where}: unknown setting{'s' if len(unknown) > 1 else ''} {', '.join(unknown)[:200]}",
            wanted=", ".join(sorted(known)),
            cure="it was written by a newer version of bas: update bas",
        )
    try:
        return cls(**record)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: settings are not usable", got=str(error)[:200]) from None


def begun_folder(folder: Path, record_name: str, settings: Mapping[str, object], *, holds: str) -> Mapping[str, Any]:
    """The record in a folder that a command began with the same settings, and goes on with; empty for a new folder.

    Args:
        folder: what the command makes.
        record_name: JSON file in it, with the settings themselves or under `settings`.
        settings: plain JSON values.
        holds: what the folder is to hold, for the errors.

    Raises:
        InputError: the folder holds anything else, or was begun with other settings (names them).
    """
    path = folder / record_name
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder}: not empty, and holds no {holds}", wanted="a new folder")
        return {}
    record = read_json(path)
    inner = record.get("settings", {}) if isinstance(record, Mapping) else None
    if not isinstance(inner, Mapping):
        raise InputError(f"{path}: not usable", got=str(record)[:80], cure="take another folder")
    held = {**record, **inner}
    differing = [name for name in settings if held.get(name) != settings[name]]
    cure = "take another folder, or give the settings that are there"
    refuse_differing(differing, f"{folder}: holds {holds} of other settings", got=settings, wanted=held, cure=cure)
    return cast(Mapping[str, Any], record)


def num_cores() -> int:
    """Cores that this process may use, >= 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory_bytes() -> int:
    """Memory that this process may still take: what the machine has free, or less where a container (cgroup) limits it.

    Unlimited where the system does not say.
    """
    free = 1 << 62
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return min([free, *_cgroup_room()])


_CGROUPS, _PROC_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def _cgroup_room() -> Iterator[int]:
    """Bytes left in each cgroup around this process, v2 and v1, where it has a limit.

    Pages of files that the kernel can drop (`inactive_file`) count as used there, but are free for the asking.
    """
    try:
        groups = [line.split(":", 2) for line in _PROC_CGROUP.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, name in groups:
        if controllers and "memory" not in controllers.split(","):
            continue
        root = _CGROUPS / "memory" if controllers else _CGROUPS
        limit, used = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        )
        folder = root / name.lstrip("/")
        # inside a container the name may be that of the host, and the container's own group is the root
        for each in (folder, *folder.parents) if folder.is_dir() else (root,):
            with contextlib.suppress(OSError, ValueError):
                most = int((each / limit).read_text())  # v2 without a limit says "max"
                stat = dict(line.split() for line in (each / "memory.stat").read_text().splitlines())
                cached = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
                yield max(0, most - int((each / used).read_text()) + cached)
            if each == root:
                break


def remove_stale(path: Path) -> None:
    """Remove what processes that were killed have left of a file: `.<name>.<process id>` beside it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        with contextlib.suppress(ValueError, PermissionError):
            try:
                os.kill(int(left.suffix[1:]), 0)
            except ProcessLookupError:
                left.unlink(missing_ok=True)
