"""A shared store that is damaged or lies: refused by name, nothing appears, nothing is written elsewhere."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bas.cache.share.manifest import MATCH_FILES, MatchManifest, parse_index, view_files
from bas.cache.store import FeatureStore
from bas.cache.verify import verify
from bas.errors import InputError

SHARD, INDEX = "a/features/identity/c/0/0", "__manifest__/index.json"
Usage = namedtuple("Usage", "total used free")
Edit = Callable[[bytes], bytes]


def edit(path: Path, change: Edit) -> bytes:
    """Change a file; its bytes before."""
    before = path.read_bytes()
    path.write_bytes(change(before))
    return before


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    """Change a JSON file."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def everything(folder: Path, but: Path) -> dict[str, bytes | None]:
    """All files below a folder but those of one store."""
    paths = [path for path in folder.rglob("*") if not path.is_relative_to(but)]
    return {str(path): path.read_bytes() if path.is_file() else None for path in paths}


def flip(data: bytes) -> bytes:
    return data[:1000] + bytes([data[1000] ^ 1]) + data[1001:]


DAMAGE: dict[str, tuple[str, Edit]] = {
    "flipped": (SHARD, flip),
    "short": (SHARD, lambda data: data[:-1]),
    "pts": ("a/pts/c/0", flip),
    "json": ("a/zarr.json", lambda data: data.replace(b"PASS", b"SHOT")),
    "array": ("a/features/identity/zarr.json", lambda _: b"{}"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named_and_the_rest_arrives(liar: Any, sharing: Any, tmp_path: Path, case: str, tree: Any) -> None:
    path, change = DAMAGE[case]
    before, copy = edit(liar.folder / path, change), tmp_path / "copy"
    outside = everything(tmp_path, copy)
    outcome = sharing.pull(liar.url, copy)
    assert {each.match_id: each.status for each in outcome.results} == {"a": "failed", "b": "received"}
    assert f"{liar.url}: {path} is not what its manifest says" in outcome.results[0].message
    assert FeatureStore.open(copy).matches() == ["b"]
    assert everything(tmp_path, copy) == outside
    (liar.folder / path).write_bytes(before)
    assert sharing.pull(liar.url, copy).complete
    assert verify(copy) == []
    assert tree(copy / "a") == tree(liar.folder / "a")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("path", [SHARD, "a/zarr.json"])
def test_a_named_pipe_is_no_file_of_a_match(two_matches: Path, sharing: Any, tmp_path: Path, path: str) -> None:
    shutil.copytree(two_matches, tmp_path / "share")
    (tmp_path / "share" / path).unlink()
    os.mkfifo(tmp_path / "share" / path)  # who opens it waits for somebody who writes
    for outcome in (
        sharing.pull(tmp_path / "share", tmp_path / "pulled"),
        sharing.push(tmp_path / "share", tmp_path / "pushed"),
    ):
        assert {each.match_id: each.is_done for each in outcome.results} == {"a": False, "b": True}
        told = next(each.message for each in outcome.results if each.match_id == "a")
        assert "not a regular file" in told
    assert any(finding.match == "a" for finding in verify(tmp_path / "share"))


def lie(folder: Path, change: Callable[[Any], None], *, index: bool = True) -> str:
    """Let the manifest of match a say something else, under a name that fits; its new name."""
    names = {json.loads(path.read_text())["match"]: path for path in folder.glob("__manifest__/*.*.json")}
    record = json.loads(names["a"].read_text())
    change(record)
    text = (json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
    match = hashlib.sha256(str(record["match"]).encode("utf-8", "replace")).hexdigest()[:32]
    name = f"{match}.{hashlib.sha256(text).hexdigest()[:32]}.json"
    names["a"].unlink()
    (folder / "__manifest__" / name).write_bytes(text)
    if index:
        paths = folder.glob("__manifest__/*.*.json")
        manifests = {path.name: json.loads(path.read_bytes()) for path in paths}
        (folder / INDEX).write_text(json.dumps({"format": 1, "manifests": manifests}))
    return name


def entries(record: Any, **sizes: int) -> None:
    """Set sizes of files, by part of their name."""
    for path, entry in record["files"].items():
        for part, size in sizes.items():
            if part in path and path.endswith(("c/0", "c/0/0")):
                entry[0] = size


def rename_view(record: Any, view: str) -> None:
    record["files"] = {path.replace("identity", view): entry for path, entry in record["files"].items()}


BAD_IDS = ("../a", "/etc/a", "a\0b", "__manifest__/a")
LIES: dict[str, Callable[[Any], Any]] = {
    **{f"id {name!r}": lambda r, name=name: r.update(match=name) for name in BAD_IDS},  # type: ignore[misc]
    **{f"view {name!r}": lambda r, name=name: rename_view(r, name) for name in ("..", "a/b")},  # type: ignore[misc]
    "another file": lambda r: r["files"].update({"../../evil": [1, "0" * 64]}),
    "a missing file": lambda r: r["files"].pop("pts/c/0"),
    "another split": lambda r: r.update(split=["train"]),
    "2**60": lambda r: entries(r, pts=2**60),
    "large JSON": lambda r: r["files"].update({"zarr.json": [10**9, "0" * 64]}),
    "no hash": lambda r: r["files"]["pts/c/0"].__setitem__(1, "abc"),
    "settings": lambda r: r.update(settings_key="0" * 64),
}


@pytest.mark.parametrize("case", LIES)
def test_manifests_that_no_store_has(liar: Any, sharing: Any, tmp_path: Path, case: str) -> None:
    lie(liar.folder, LIES[case])
    outside = everything(tmp_path, tmp_path / "copy")
    with pytest.raises(InputError) as told:
        sharing.pull(liar.url, tmp_path / "copy")
    assert liar.url in str(told.value)
    assert everything(tmp_path, tmp_path / "copy") == outside
    assert not (tmp_path / "copy").exists()


HONEST_HASHES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "rows": (lambda r: r.update(num_rows=10**12), "size does not fit 1000000000000 rows"),
    "small": (lambda r: entries(r, identity=10), "features/identity/c/0/0: size does not fit"),
    "large": (lambda r: entries(r, pts=10**6), "pts/c/0: size does not fit"),
    "events": (lambda r: r.update(num_events=7), "record and manifest differ"),
    "split": (lambda r: r.update(split="test"), "record and manifest differ"),
}


@pytest.mark.parametrize("case", HONEST_HASHES)
def test_manifests_that_do_not_fit_the_match(liar: Any, sharing: Any, tmp_path: Path, case: str) -> None:
    """Sizes are found wrong before any values are fetched."""
    change, said = HONEST_HASHES[case]
    lie(liar.folder, change)
    asked: list[str] = []
    if "size" in said:
        for path in (SHARD, "a/pts/c/0", "a/valid/c/0"):
            liar.tricks[path] = lambda handler: asked.append(handler.path)
    outcome = sharing.pull(liar.url, tmp_path / "copy", matches=("a",))
    assert outcome.results[0].status == "failed"
    assert said in outcome.results[0].message
    assert asked == []
    assert FeatureStore.open(tmp_path / "copy").matches() == []


def test_more_than_the_disk_holds(liar: Any, sharing: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lie(liar.folder, lambda r: entries(r, identity=10**14))
    with pytest.raises(InputError, match=r"no room[\s\S]*100,000"):
        sharing.pull(liar.url, tmp_path / "copy")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("bas.cache.share.places.ObjectPlace.fetch", full)
    outcome = sharing.pull(liar.url, tmp_path / "copy", matches=("b",))
    assert outcome.results[0].status == "failed"
    assert "no space left" in outcome.results[0].message
    monkeypatch.undo()
    assert sharing.pull(liar.url, tmp_path / "copy", matches=("b",)).complete


GROUPS: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "consolidated": ("zarr.json", lambda m: m.update(consolidated_metadata={"metadata": {}}), "not a plain group"),
    "no group": ("features/zarr.json", lambda m: m.update(node_type="array"), "not a plain group"),
    "no hash": ("pts/zarr.json", lambda m: m.update(attributes={}), "no sha256 to check the values against"),
    "huge": ("features/identity/zarr.json", lambda m: m.update(shape=[10**12, 6]), "1000000000000, 6"),
    "codec": ("valid/zarr.json", lambda m: m["codecs"].append({"name": "pickle"}), "not written by bas"),
    "label": ("zarr.json", lambda m: m["attributes"]["bas_match"]["labels"][0].update(label="X"), "not a class"),
    "deep": ("zarr.json", lambda m: m.clear(), "match record"),
}


@pytest.mark.parametrize("case", GROUPS)
def test_metadata_with_hashes_that_fit(liar: Any, sharing: Any, tmp_path: Path, case: str) -> None:
    path, change, said = GROUPS[case]
    edit_json(liar.folder / "a" / path, change)
    data = (liar.folder / "a" / path).read_bytes()
    lie(liar.folder, lambda r: r["files"].update({path: [len(data), hashlib.sha256(data).hexdigest()]}))
    outcome = sharing.pull(liar.url, tmp_path / "copy")
    assert {each.match_id: each.status for each in outcome.results} == {"a": "failed", "b": "received"}
    assert said in outcome.results[0].message, outcome.results[0].message
    assert outcome.results[0].message.startswith(liar.url)
    assert ".partial" not in outcome.results[0].message
    assert FeatureStore.open(tmp_path / "copy").matches() == ["b"]


def test_an_edited_manifest_with_its_name(
    liar: Any, bucket: Any, two_matches: Path, sharing: Any, tmp_path: Path
) -> None:
    path = next(path for path in liar.folder.glob("__manifest__/*.*.json") if b'"a"' in path.read_bytes())
    edit_json(liar.folder / INDEX, lambda index: index["manifests"][path.name].update(num_events=5))
    with pytest.raises(InputError, match="does not fit its own hash") as told:
        sharing.pull(liar.url, tmp_path / "copy")
    assert path.name in str(told.value)
    # Where the place can be listed, only the manifest itself counts, and whoever has the match can mend it.
    sharing.push(two_matches, bucket.url)
    bucket.put(INDEX, (liar.folder / INDEX).read_bytes())
    assert sharing.pull(bucket.url, tmp_path / "one").complete
    for rubbish in (b"{}", b"\xff", b"[" * 5000, b" " * 2_000_000):
        bucket.put(f"__manifest__/{path.name}", rubbish)
        bucket.put(INDEX, rubbish)
        with pytest.raises(InputError, match=path.name):
            sharing.pull(bucket.url, tmp_path / "two")
        differs = sharing.push(two_matches, bucket.url).results[0]
        assert (differs.status, "damaged" in differs.message) == ("differs", True)
        assert sharing.push(two_matches, bucket.url, replace=True).complete
        assert sharing.pull(bucket.url, tmp_path / "two").complete
        assert set(parse_index(bucket.get(INDEX), where="")[0]) == {
            path.name for path in liar.folder.glob("__manifest__/*.*.json")
        }
    assert verify(tmp_path / "two") == []


def test_ids_that_differ_in_case_only(maker: Any, sharing: Any, tmp_path: Path) -> None:
    maker.match("Liga/a", num_rows=300)
    maker.match("liga/a", num_rows=300)
    sharing.push(maker.path, tmp_path / "share")
    assert sharing.pull(tmp_path / "share", tmp_path / "copy").complete
    assert verify(tmp_path / "copy") == []


def test_a_match_inside_a_match(make_maker: Any, bucket: Any, sharing: Any, tmp_path: Path) -> None:
    outer, inner = (make_maker(tmp_path / name) for name in ("outer", "inner"))
    outer.match("a", num_rows=300)
    inner.match("a/b", num_rows=300)
    sharing.push(outer.path, bucket.url)
    with pytest.raises(InputError, match="'a/b' lies inside match 'a'"):
        sharing.push(inner.path, bucket.url)
    assert sharing.push(inner.path, f"{bucket.url}/hidden").complete
    hidden = [path for path in bucket.paths() if path.startswith(("hidden/a/b/", "hidden/__")) and "index" not in path]
    for path in hidden:
        bucket.put(path.removeprefix("hidden/"), bucket.get(path))
    with pytest.raises(InputError, match="'a/b' lies inside match 'a'"):
        sharing.pull(bucket.url, tmp_path / "copy")
    assert sharing.pull(bucket.url, tmp_path / "copy", matches=("a",)).complete
    assert sharing.pull(bucket.url, tmp_path / "copy", matches=("a/b",)).results[0].status == "failed"
    assert verify(tmp_path / "copy") == []


INDEXES: dict[str, bytes] = {
    "deep": b'{"format":1,"manifests":' + b"[" * 200_000,
    "many small": b'{"format":1,"manifests":[' + b"[]," * 1_000_000 + b"[]]}",
    "wrong kind": b'{"format":1,"manifests":[1]}',
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("case", INDEXES)
def test_indexes_that_cannot_be(liar: Any, sharing: Any, tmp_path: Path, case: str) -> None:
    (liar.folder / INDEX).write_bytes(INDEXES[case])
    with pytest.raises(InputError, match=r"index.json: ") as told:
        sharing.pull(liar.url, tmp_path / "copy")
    assert liar.url in str(told.value)
    assert not (tmp_path / "copy").exists()


ROOTS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "format": (lambda m: m["attributes"]["bas"].update(format=99), "another format"),
    "no record": (lambda m: m["attributes"].pop("bas"), "not a store of bas"),
    "settings": (lambda m: m["attributes"]["bas"]["settings"].update(width=399), "do not fit their hash"),
    "software": (lambda m: m["attributes"]["bas"].update(software="x"), "damaged"),
}


@pytest.mark.parametrize("case", ROOTS)
def test_roots_that_are_no_store(liar: Any, sharing: Any, tmp_path: Path, case: str) -> None:
    change, said = ROOTS[case]
    edit_json(liar.folder / "zarr.json", change)
    with pytest.raises(InputError, match=said) as told:
        sharing.pull(liar.url, tmp_path / "copy")
    assert liar.url in str(told.value)
    assert not (tmp_path / "copy").exists()


def test_links_in_the_destination(liar: Any, sharing: Any, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "copy"
    sharing.pull(liar.url, copy, matches=("b",))
    (copy / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="lead"):
        sharing.pull(liar.url, copy)
    (copy / "a").unlink()
    (copy / ".partial").symlink_to(tmp_path / "elsewhere")
    try:
        outcome = sharing.pull(liar.url, copy)
    except InputError as error:
        assert "lead" in str(error) or "link" in str(error)  # noqa: PT017 (either is fine)
    else:
        assert not outcome.complete
    assert [path for path in (tmp_path / "elsewhere").rglob("*") if path.suffix != ".lock"] == []


manifests = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


RECORD: dict[str, Any] = {
    **{"format": 1, "match": "a", "split": None, "num_rows": 1, "num_events": None, "settings_key": "0" * 64},
    "files": {path: [1, "0" * 64] for path in (*MATCH_FILES, *view_files("v"))},
}


def test_the_record_that_is_mutated_below_is_a_good_one() -> None:
    with pytest.raises(InputError, match="does not fit its own hash") as told:
        MatchManifest.parse(json.dumps(RECORD).encode(), name="x", where="there")
    assert MatchManifest.parse(json.dumps(RECORD).encode(), name=str(told.value.got), where="there").views == ("v",)


@settings(max_examples=150)
@given(value=manifests, place=st.sampled_from([*RECORD, ""]))
def test_any_manifest(value: object, place: str) -> None:
    document = json.dumps(RECORD | {place: value} if place else value).encode()
    for data in (document, document[: len(document) // 2]):
        with pytest.raises(InputError):
            MatchManifest.parse(data, name="x", where="there")
        with contextlib.suppress(InputError):
            parse_index(data, where="there")
