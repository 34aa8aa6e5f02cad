"""Labels of one label file while they are edited: an append-only journal beside the file, and the file written whole.

A change is on the disk, in the journal, before anybody is told that it is made. `Labels-ball.json` follows within a
second, and is brought up to date from the journal when it is opened again, whatever ended the process before.
"""

import contextlib
import hashlib
import json
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

from ..errors import InputError
from ..events import Event, parse_event
from ..files import FileLock, disk_errors, parse_json, read_bounded, write_atomic

JOURNAL_BYTES = 1 << 30
"""Largest journal that is read: some million changes."""
_FIELDS: Mapping[str, Mapping[str, type]] = {
    "spot": {"ms": int, "label": str},
    "stretch": {"from_ms": int, "to_ms": int},
    "reject": {"ms": int, "label": str},
}
"""Kinds of items with what makes each: a label; "all is marked from here to here"; "there is no such spot here"."""
_MAX_MS, _MAX_NAME = 24 * 3600 * 1000, 80
FROM_FILE = "the file"
"""Who made changes that another program wrote into the label file."""

_Key = tuple[int, int, str]
"""Half, milliseconds and label of a spot."""
Item = dict[str, Any]
"""`kind`, the fields of its kind, `half`, `by` and `at`; of a spot that came from a file also `raw`, its record."""


class Conflict(InputError):  # noqa: N818 (an InputError by nature)
    """Items are not as the window that changes them believes."""

    def __init__(self, what: str, now: Mapping[str, Item | None]) -> None:
        super().__init__(what, cure="the page shows what is there now: make the change again if you still want it")
        self.now = now


class Change(NamedTuple):
    """One item before and after; None: it is not there."""

    id: str
    before: Item | None
    after: Item | None

    @property
    def half(self) -> int:
        """Of the item."""
        return int((self.after or self.before or {}).get("half", 1))


class Document:
    """The items of one label file. Safe to use from several threads; one process at a time holds it."""

    def __init__(self, path: Path, lock: FileLock | None) -> None:
        self.path, self.journal_path = path, journal_of(path)
        self.items: dict[str, Item] = {}
        self.notes: list[str] = []
        """What a person should know: changes of the file from outside."""
        self._lock, self._file_lock = threading.RLock(), lock
        self._entries: list[tuple[str, tuple[Change, ...]]] = []
        """(who, changes) of every journal entry that changes items, in order: `seq` is how many there are."""
        self._undoable, self._redoable = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list)
        """Who -> numbers of the entries that this person can undo, and make again."""
        self.known_ids = set[str]()
        """Of every item that there ever was."""
        self._known_sha256, self._base = "", list[_Key]()
        """Label file as it was last read or written, and its spots."""
        self._stamp: tuple[int, int, int] | None = None
        self._head: dict[str, Any] = {}
        """What else the label file holds beside its annotations."""
        self._written_seq = -1

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read journal and label file (which may not exist yet), and take over what another program has changed.

        Raises:
            InputError: another process labels it, or a file is damaged or may not be used.
        """
        lock_path = path.with_name(f".{path.name}.lock")
        with disk_errors(path.parent):
            lock = FileLock.acquire(lock_path, wait_seconds=0.0)
        if lock is None:
            raise InputError(
                f"{path}: is being labelled by another process",
                got=FileLock.owner(lock_path),
                wanted="one bas label for a label file; it may have many windows",
                cure="use the address that the other one printed, or end it",
            )
        document = cls(path, lock)
        try:
            document.replay(mend=True)
            document.take_over_file()
        except BaseException:
            lock.release()
            raise
        return document

    def close(self) -> None:
        """Write the label file and let others have it."""
        try:
            self.write_file()
        finally:
            if self._file_lock is not None:
                self._file_lock.release()

    @property
    def seq(self) -> int:
        """Number of the last change."""
        return len(self._entries)

    def changes_since(self, seq: int, *, half: int = 1) -> list[dict[str, Any]]:
        """What each item of a half is now that was changed after entry `seq`, as `{"id", "after"}`."""
        with self._lock:
            entries = self._entries[max(0, seq) :]
            ids = dict.fromkeys(change.id for _, changes in entries for change in changes if change.half == half)
            return [{"id": each, "after": shown(self.items.get(each))} for each in ids]

    def change(self, changes: Sequence[Mapping[str, Any]], *, by: str, half: int = 1) -> int:
        """Make changes, all or none; returns when they are on the disk.

        Args:
            changes: `{"id", "before", "after"}` as the page believes.
            by: who makes them.
            half: of new items.

        Returns:
            `seq` after them.

        Raises:
            Conflict: an item is not as `before` says.
            InputError: an item is not usable.
        """
        with self._lock:
            made, stale = [], {}
            for each in changes:
                identity, before, after = _checked_change(each)
                now = self.items.get(identity)
                if _essence(now) != _essence(before):
                    stale[identity] = shown(now)
                    continue
                if after is not None:
                    # "raw" is not in what the page sends back: it never saw it
                    kept: Item = {name: now[name] for name in ("half", "raw") if now and name in now}
                    after = {"half": half, **kept, **after, "by": by, "at": _now()}
                made.append(Change(identity, now, after))
            if stale:
                raise Conflict("changed in another window meanwhile", stale)
            self._append("change", by, made)
            return self.seq

    def undo(self, *, by: str, half: int = 1, redo: bool = False) -> list[dict[str, Any]]:
        """Take back the last change of a person in a half, or make it again; what the items are then, or nothing.

        Raises:
            Conflict: an item was changed by somebody else since; that change can no longer be undone.
        """
        with self._lock:
            stack = (self._redoable if redo else self._undoable)[by]
            number = next((each for each in reversed(stack) if self._entries[each][1][0].half == half), None)
            if number is None:
                return []
            _, changes = self._entries[number]
            wanted = [(c.id, c.before, c.after) if redo else (c.id, c.after, c.before) for c in changes]
            stale = {
                i: shown(self.items.get(i)) for i, now, _ in wanted if _essence(self.items.get(i)) != _essence(now)
            }
            if stale:
                stack.remove(number)  # else it would block the way to every older change
                raise Conflict("this change cannot be undone: somebody else has changed the same spot since", stale)
            made = [Change(identity, self.items.get(identity), then) for identity, _, then in reversed(wanted)]
            self._append("redo" if redo else "undo", by, made, of=number)
            return [{"id": each.id, "after": shown(each.after)} for each in made]

    def rename(self, old: str, new: str, *, by: str) -> None:
        """Give every item of a class another label, as one change."""
        with self._lock:
            held = [(identity, item) for identity, item in self.items.items() if item.get("label") == old]
            if held:
                self._append("change", by, [Change(each, item, {**item, "label": new}) for each, item in held])

    def of_kind(self, kind: str, *, half: int = 1) -> list[Item]:
        """Items of a kind in a half, in time order."""
        with self._lock:
            found = [item for item in self.items.values() if item["kind"] == kind and item["half"] == half]
        return sorted(found, key=lambda item: (item.get("ms", item.get("from_ms")), item.get("label", "")))

    def labels(self) -> set[str]:
        """Labels of all spots and rejections."""
        with self._lock:
            return {item["label"] for item in self.items.values() if "label" in item}

    def write_file(self) -> None:
        """Write the label file where it is not up to date, after taking over what others wrote into it.

        Raises:
            InputError: it cannot be written, or it is damaged by another program.
        """
        with self._lock:
            self.take_over_file()
            if self._written_seq == self.seq:
                return
            spots = sorted(
                (item for item in self.items.values() if item["kind"] == "spot"),
                key=lambda item: (item["half"], item["ms"], item["label"]),
            )
            events = [_event(item) for item in spots]
            # readers of SoccerNet's files leave `by` and `at` alone
            records = [
                {**item.get("raw", {}), **event.to_json(), "by": item["by"], "at": item["at"]}
                for item, event in zip(spots, events, strict=True)
            ]
            data = (json.dumps({**self._head, "annotations": records}, indent=1, ensure_ascii=False) + "\n").encode()
            with disk_errors(self.path):
                write_atomic(self.path, data)
                self._stamp = _stamp(self.path)
            self._remember_file(data, events)
            self._written_seq = self.seq

    def take_over_file(self) -> None:
        """Where another program has changed the label file, make the same changes here; nothing of ours is lost.

        Raises:
            InputError: it can no longer be read as labels.
        """
        with self._lock:
            stamp = _stamp(self.path)
            if stamp == self._stamp:
                return
            if stamp is None:  # removed: what is in the journal is written again
                self._stamp, self._written_seq = None, -1
                return
            data = read_bounded(self.path, max_bytes=64 << 20)
            sha256 = hashlib.sha256(data).hexdigest()
            document = parse_json(data, where=str(self.path))
            records = document.get("annotations") if isinstance(document, Mapping) else None
            if not isinstance(records, list):
                raise InputError(f"{self.path}: no list named 'annotations'", wanted='{"annotations": [...]}')
            self._head = {name: value for name, value in document.items() if name != "annotations"}
            theirs = [parse_event(each, where=f"{self.path}: annotations[{n}]") for n, each in enumerate(records)]
            self._stamp = stamp
            if sha256 == self._known_sha256:
                return
            made = self._differences(theirs, records)
            if made:
                if self._entries:
                    self.notes.append(
                        f"{self.path.name} was changed by another program: {len(made)} spot(s) taken over"
                    )
                self._append(FROM_FILE, FROM_FILE, made)
            self._remember_file(data, theirs)
            self._written_seq = self.seq if self._keys() == sorted(map(_event_key, theirs)) else -1

    def _differences(self, theirs: Sequence[Event], records: Sequence[Mapping[str, Any]]) -> list[Change]:
        """Changes that bring what the file gained and lost since it was last known into the items."""
        # counted, as a file may hold the same spot twice
        before, after = Counter(self._base), list(map(_event_key, theirs))
        gone, come = before - Counter(after), Counter(after) - before
        held: dict[_Key, list[str]] = {}
        for identity, item in self.items.items():
            if item["kind"] == "spot":
                held.setdefault(_key(item), []).append(identity)
        made = [
            Change(identity, self.items[identity], None)
            for key in gone.elements()
            for identity in held.pop(key, [])[:1]
        ]
        for number, (key, event, record) in enumerate(zip(after, theirs, records, strict=True)):
            is_new = come[key] > 0
            come[key] -= is_new
            if not is_new or key in held:  # marked here as well
                continue
            by = str(record.get("by", FROM_FILE))
            item = {"kind": "spot", "ms": event.position_ms, "label": event.label, "half": event.half}
            at = str(record.get("at", "")) or _now()
            made.append(Change(f"file-{self.seq}-{number}", None, {**item, "by": by, "at": at, "raw": dict(record)}))
        return made

    def _remember_file(self, data: bytes, events: Sequence[Event]) -> None:
        """Note which label file is known, and its spots where they are others than ours."""
        self._known_sha256, self._base = hashlib.sha256(data).hexdigest(), list(map(_event_key, events))
        entry: dict[str, Any] = {"kind": "file", "sha256": self._known_sha256}
        if self._keys() != sorted(self._base):  # mostly they are equal, and a line stays short
            entry["spots"] = self._base
        self._write_entry(entry)

    def _keys(self) -> list[_Key]:
        return sorted(_key(item) for item in self.items.values() if item["kind"] == "spot")

    def _append(self, kind: str, by: str, changes: Sequence[Change], *, of: int = -1) -> None:
        self._write_entry({"kind": kind, "by": by, "at": _now(), "of": of, "changes": [c._asdict() for c in changes]})
        self._apply(kind, by, changes, of=of)

    def _apply(self, kind: str, by: str, changes: Sequence[Change], *, of: int) -> None:
        number = len(self._entries)
        self._entries.append((by, tuple(changes)))
        self.known_ids.update(change.id for change in changes)
        for change in changes:
            if change.after is None:
                self.items.pop(change.id, None)
            else:
                self.items[change.id] = change.after
        undoable, redoable = self._undoable[by], self._redoable[by]
        if kind == "change":
            undoable.append(number)
            redoable.clear()
        elif kind == "undo" and of in undoable:  # a journal that was edited by hand may name any entry
            undoable.remove(of)
            redoable.append(of)
        elif kind == "redo" and of in redoable:
            redoable.remove(of)
            undoable.append(of)

    def _write_entry(self, entry: Mapping[str, Any]) -> None:
        """Append a line and sync it. One that a kill cuts off is left out when the journal is read."""
        line = json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        with disk_errors(self.journal_path), self.journal_path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())  # only now may anybody be told that the change is made

    def replay(self, *, mend: bool) -> None:
        """Make all changes of the journal again; `mend` cuts off a last line that a kill tore.

        Raises:
            InputError: a line is no change.
        """
        if not self.journal_path.exists():
            return
        data = read_bounded(self.journal_path, max_bytes=JOURNAL_BYTES)
        whole = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                entry = json.loads(line)
                if entry["kind"] == "file":
                    self._known_sha256 = str(entry["sha256"])
                    spots = entry.get("spots", self._keys())
                    self._base = [(int(half), int(ms), str(label)) for half, ms, label in spots]
                    continue
                changes = [Change(str(c["id"]), c["before"], c["after"]) for c in entry["changes"]]
                self._apply(str(entry["kind"]), str(entry["by"]), changes, of=int(entry["of"]))
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{self.journal_path}: line {number} is no change",
                    got=f"{type(error).__name__}: {error}"[:200],
                    cure="move the journal away: labels are in the label file, their history is in the journal",
                ) from None
        if mend and whole < len(data):  # it was never confirmed to anybody
            with disk_errors(self.journal_path):
                os.truncate(self.journal_path, whole)


def journal_of(path: Path) -> Path:
    """The journal of a label file: `Labels-ball.journal.jsonl` beside it."""
    return path.with_name(f"{path.name.removesuffix('.json')}.journal.jsonl")


def read_journal(path: Path) -> dict[str, Item]:
    """Items of a label file that somebody else may be writing.

    Raises:
        InputError: a line is no change.
    """
    document = Document(path, None)
    document.replay(mend=False)
    return document.items


def shown(item: Item | None) -> Item | None:
    """An item as the page sees it."""
    return None if item is None else {name: value for name, value in item.items() if name != "raw"}


@contextlib.contextmanager
def opened(paths: Sequence[Path]) -> Iterator[dict[Path, Document]]:
    """Documents of label files; all are closed at the end."""
    with contextlib.ExitStack() as stack:
        documents = {}
        for path in dict.fromkeys(paths):
            documents[path] = Document.open(path)
            stack.callback(documents[path].close)
        yield documents


def _checked_change(record: object) -> tuple[str, Item | None, Item | None]:
    if not isinstance(record, Mapping) or not isinstance(record.get("id"), str) or not 0 < len(record["id"]) <= 64:
        raise InputError("change is not usable", got=repr(record)[:80], wanted='{"id", "before", "after"}')
    before, after = record.get("before"), record.get("after")
    if before is None and after is None:
        raise InputError("change is not usable", got="nothing before and nothing after", wanted="one of them")
    return record["id"], before, None if after is None else _checked_item(after)


def _checked_item(record: object) -> Item:
    kind = record.get("kind") if isinstance(record, Mapping) else None
    if not isinstance(record, Mapping) or kind not in _FIELDS:
        raise InputError("item is not usable", got=repr(record)[:80], wanted=f"kind {' or '.join(_FIELDS)}")
    item: Item = {"kind": kind}
    for name, of_type in _FIELDS[str(kind)].items():
        value = record.get(name)
        if not (is_class_name(value) if of_type is str else type(value) is int and 0 <= value < _MAX_MS):
            text = f"printable text of at most {_MAX_NAME} letters"
            wanted = text if of_type is str else "whole milliseconds, less than a day"
            raise InputError(f"{name} of a {kind} is not usable", got=repr(value)[:80], wanted=wanted)
        item[name] = value
    if kind == "stretch" and item["from_ms"] >= item["to_ms"]:
        raise InputError("stretch is not usable", got=f"{item['from_ms']} to {item['to_ms']} ms", wanted="some time")
    return item


def is_class_name(name: object) -> bool:
    """Whether a name can be a class: short, printable, no blanks around it."""
    return isinstance(name, str) and 0 < len(name) <= _MAX_NAME and name.isprintable() and name == name.strip()


def _essence(item: Item | None) -> tuple[object, ...] | None:
    """What makes an item what it is: not who marked it, and when."""
    if item is None:
        return None
    kind = str(item.get("kind"))
    return kind, *(item.get(name) for name in _FIELDS.get(kind, {}))


def _event(item: Item) -> Event:
    raw = item.get("raw", {})
    visible = str(raw.get("visibility", "visible")) != "not shown"
    team, player = (str(raw.get(name, "")) for name in ("team", "player"))
    return Event(item["ms"], item["label"], half=item["half"], team=team, visible=visible, player=player)


def _key(item: Item) -> _Key:
    return item["half"], item["ms"], item["label"]


def _event_key(event: Event) -> _Key:
    return event.half, event.position_ms, event.label


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    # an editor that writes in place keeps the number, one that renames may keep the time
    return status.st_ino, status.st_size, status.st_mtime_ns


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
