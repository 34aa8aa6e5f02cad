"""Several processes share a place at once, and any of them may vanish at any moment: matches are seen whole or not."""

import json
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from bas.cache.share.pull import Traffic
from bas.cache.store import FeatureStore
from bas.cache.verify import check_match, verify
from bas.errors import InputError
from bas.workers import SILENT

INDEX = "__manifest__/index.json"


def read_index(url: str, request: pytest.FixtureRequest) -> set[str]:
    """Match ids of the index at a place."""
    data = Path(url, INDEX).read_bytes() if "://" not in url else request.getfixturevalue("bucket").get(INDEX)
    return {each["match"] for each in json.loads(data)["manifests"].values()}


def test_different_matches_at_once(
    make_maker: Any, sharing: Any, url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    makers = [make_maker(tmp_path / f"clone{number}") for number in range(3)]
    for number, maker in enumerate(makers):
        for each in range(2):
            maker.match(f"liga/{number}/{each}", num_rows=300 + number)
    for place in [f"{url}/{number}" for number in range(2 if "://" in url else 1)]:  # an empty place each time
        ends = sharing.processes(*({"do": "push", "store": maker.path, "url": place} for maker in makers))
        assert [end["code"] for end in ends] == [0, 0, 0], ends
        assert [len(end["statuses"]) for end in ends] == [2, 2, 2]
        copy = tmp_path / f"copy{place[-1]}"
        pulls = sharing.processes(*({"do": "pull", "store": copy, "url": place} for _ in range(2)))
        assert sharing.pull(place, copy).complete, pulls
        assert all(status != "failed" for end in pulls for status in end["statuses"].values()), pulls
        assert FeatureStore.open(copy).matches() == [f"liga/{n}/{each}" for n in range(3) for each in range(2)]
        assert verify(copy) == []
        if "://" not in place:
            assert read_index(place, request) == set(FeatureStore.open(copy).matches())
        else:
            bucket = request.getfixturevalue("bucket")
            listed = json.loads(bucket.get(f"{place[-1]}/{INDEX}"))["manifests"].values()
            assert {each["match"] for each in listed} == set(FeatureStore.open(copy).matches())


@pytest.mark.parametrize("same", [True, False])
def test_the_same_match_at_once(make_maker: Any, sharing: Any, url: str, tmp_path: Path, same: bool, tree: Any) -> None:
    makers = [make_maker(tmp_path / f"clone{number}") for number in range(2)]
    for number, maker in enumerate(makers):
        maker.match("a", num_rows=2000, match_meta=maker.meta(split="train" if same or number else "valid"))
    for number in range(2):
        place, copy = f"{url}/{number}", tmp_path / f"copy{number}"
        ends = sharing.processes(*({"do": "push", "store": maker.path, "url": place} for maker in makers))
        codes = sorted(end["code"] for end in ends)
        if same and "://" in place:
            assert codes == [0, 0], ends
        assert codes in ([[0, 0], [0, 2]] if same else [[0, 2]]), ends
        told = [end for end in ends if end["code"]]
        assert all("a" in end["statuses"] and end["error"] for end in told), told
        assert sharing.pull(place, copy).complete
        assert verify(copy) == []
        assert tree(copy / "a") in [tree(maker.path / "a") for maker in makers]
        winner = next(maker for maker, end in zip(makers, ends, strict=True) if not end["code"])
        assert tree(copy / "a") == tree(winner.path / "a")
        assert not [each for each in sharing.push(winner.path, place).results if each.status != "already there"]


def test_what_comes_between_plan_and_push_is_noticed(
    make_maker: Any, sharing: Any, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slower one has planned before the other's match was there."""
    fast, slow = (make_maker(tmp_path / name) for name in ("fast", "slow"))
    fast.match("a", num_rows=300)
    slow.match("a", num_rows=301)
    from bas.cache.share import push as module

    real = module._upload

    def late(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(module, "_upload", real)
        assert sharing.push(fast.path, bucket.url).complete
        return real(*arguments, **options)

    monkeypatch.setattr(module, "_upload", late)
    outcome = sharing.push(slow.path, bucket.url)
    assert [each.status for each in outcome.results] == ["failed"]
    assert "has just been pushed by somebody else" in outcome.results[0].message
    assert sharing.pull(bucket.url, tmp_path / "copy").complete
    assert FeatureStore.open(tmp_path / "copy").match("a").num_rows == 300
    assert not [key for key in bucket.paths() if key.endswith(".claim")]


def test_a_claim_is_told_taken_over_and_forgotten(
    make_maker: Any, sharing: Any, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = (make_maker(tmp_path / name) for name in ("mine", "theirs"))
    mine.match("a", num_rows=300)
    theirs.match("a", num_rows=2000, views=("identity", "hflip"))
    job = {"do": "push", "store": theirs.path, "url": bucket.url, "die_after": 20_000}
    assert sharing.processes(job)[0]["code"] == 9
    assert [key for key in bucket.paths() if key.endswith(".claim")]
    refused = sharing.push(mine.path, bucket.url).results[0]
    assert refused.status == "failed"
    assert "is being pushed by somebody else" in refused.message
    assert "--replace" in refused.message
    assert sharing.push(mine.path, bucket.url, replace=True).complete
    assert not [key for key in bucket.paths() if key.endswith(".claim") or "hflip" in key]
    claim = f"__manifest__/{'0' * 32}.claim"
    monkeypatch.setattr("bas.cache.share.places.id_hash", lambda _: "0" * 32)
    rubbish_claims = (b"", b"[]", b'{"since":1e999}', b"[" * 60_000, b"x" * 100_000, claim_since(1e30), claim_since(0))
    for number, rubbish in enumerate(rubbish_claims):
        bucket.put(claim, rubbish)
        mine.match(f"b{number}", num_rows=300)
        assert sharing.push(mine.path, bucket.url).complete, rubbish[:20]


def claim_since(since: float) -> bytes:
    return json.dumps({"manifest": "x", "by": "y", "since": int(since)}).encode()


@pytest.mark.parametrize("do", ["push", "pull"])
def test_killed_at_any_byte(make_maker: Any, sharing: Any, url: str, tree: Any, tmp_path: Path, do: str) -> None:
    maker = make_maker(tmp_path / "clone")
    maker.match("liga/a", num_rows=8_000, views=("identity", "hflip"))
    maker.match("b", num_rows=300)
    total = round(1e6 * sharing.push(maker.path, f"{url}/source").amount)
    points = [0, 5_000, total // 2, total - 2_000, total - 1]
    jobs: list[dict[str, Any]] = []
    for number, point in enumerate(points):
        place = f"{url}/{number}" if do == "push" else f"{url}/source"
        store = maker.path if do == "push" else tmp_path / f"copy{number}"
        options = {"jobs": 1} if number == len(points) - 1 else {}  # one file under way, so that one is lost at most
        jobs.append({"do": do, "store": store, "url": place, "die_after": point, "options": options})
    ends = sharing.processes(*jobs, one_by_one=True)
    assert [end["code"] for end in ends] == [9] * len(points), ends
    arrived = []
    for number, job in enumerate(jobs):
        copy = tmp_path / f"copy{number}"
        if do == "push":  # who pulls now sees whole matches only
            seen = whole_matches(sharing, job["url"], tmp_path / f"early{number}")
            assert seen <= {"b", "liga/a"}
            arrived.append(1e6 * sharing.push(maker.path, job["url"]).amount)
            assert sharing.pull(job["url"], copy).complete
        else:
            early = FeatureStore.open(copy)
            assert [finding for match_id in early.matches() for finding in check_match(early, match_id)] == []
            arrived.append(1e6 * sharing.pull(job["url"], copy).amount)
        assert tree(copy) == tree(maker.path)
    assert all(num_bytes <= total for num_bytes in arrived)
    assert arrived[-1] < total // 2, (arrived, total)  # what had arrived did not travel again


def whole_matches(sharing: Any, url: str, copy: Path) -> set[str]:
    """Ids that a pull brings now; all verified."""
    try:
        sharing.pull(url, copy)
    except InputError as error:
        if not any(said in str(error) for said in ("no store", "no match at all", "not a feature store")):
            raise
        return set()
    assert [finding for finding in verify(copy) if finding.severity == "error"] == []
    return set(FeatureStore.open(copy).matches())


def test_killed_at_any_rename_of_a_replacement(make_maker: Any, sharing: Any, tree: Any, tmp_path: Path) -> None:
    """In a folder: whoever reads then finds the old match, the new one, or none; and the same command ends it."""
    old, new = (make_maker(tmp_path / name) for name in ("old", "new"))
    old.match("liga/a", num_rows=300, views=("identity", "hflip"))
    new.match("liga/a", num_rows=301)
    sharing.push(old.path, tmp_path / "first")
    job = {"do": "push", "store": new.path, "options": {"replace": True}}
    shares = [tmp_path / f"share{number}" for number in range(16)]
    for share in shares:
        shutil.copytree(tmp_path / "first", share)
    jobs = [job | {"url": share, "die_at": number} for number, share in enumerate(shares)]
    ends = sharing.processes(*jobs, one_by_one=True)
    codes = [end["code"] for end in ends]
    assert codes == sorted(codes, reverse=True)
    assert codes[0] == 9
    assert codes[-1] == 0  # there are fewer renames than tries
    for share in shares:
        seen = FeatureStore.open(share)
        assert [finding for match_id in seen.matches() for finding in check_match(seen, match_id)] == []
        assert sharing.push(new.path, share, replace=True).complete
        assert tree(share / "liga") == tree(new.path / "liga")
        assert verify(share) == []
        assert len(list(share.glob("__manifest__/*.*.json"))) == 1


def test_a_killed_replacement_on_s3(make_maker: Any, sharing: Any, bucket: Any, tree: Any, tmp_path: Path) -> None:
    old, new = (make_maker(tmp_path / name) for name in ("old", "new"))
    old.match("a", num_rows=300, views=("identity", "hflip"))
    new.match("a", num_rows=3000)
    sharing.push(old.path, bucket.url)
    job = {"do": "push", "store": new.path, "url": bucket.url, "options": {"replace": True}}
    for point in (0, 30_000):
        assert sharing.processes(job | {"die_after": point})[0]["code"] == 9
        with pytest.raises(InputError, match="no match at all"):
            sharing.pull(bucket.url, tmp_path / "early")
    assert sharing.push(new.path, bucket.url, replace=True).complete
    assert sharing.pull(bucket.url, tmp_path / "copy").complete
    assert tree(tmp_path / "copy") == tree(new.path)
    assert not [path for path in bucket.paths() if "hflip" in path or path.endswith(".claim")]


def test_a_killed_push_shows_zarr_readers_no_match(make_maker: Any, sharing: Any, bucket: Any, tmp_path: Path) -> None:
    maker = make_maker(tmp_path / "clone")
    rows = maker.match("a", num_rows=9_000)
    total = round(1e6 * sharing.push(maker.path, f"{bucket.url}/whole").amount)
    job = {"do": "push", "store": maker.path, "url": f"{bucket.url}/cut", "die_after": total - 500}
    assert sharing.processes(job)[0]["code"] == 9
    whole, cut = (remote_group(f"{bucket.url}/{name}") for name in ("whole", "cut"))
    assert np.array_equal(whole["a/features/identity"][8_990:], rows[8_990:])
    with pytest.raises(KeyError):
        cut["a"]
    assert sharing.push(maker.path, f"{bucket.url}/cut").complete
    assert np.array_equal(remote_group(f"{bucket.url}/cut")["a/features/identity"][:5], rows[:5])


def remote_group(url: str) -> Any:
    """A store on S3 as plain Zarr sees it."""
    import obstore.store

    inner = obstore.store.from_url(url, client_options={"allow_http": True})
    return zarr.open_group(zarr.storage.ObjectStore(inner, read_only=True), mode="r")


@pytest.mark.parametrize("do", ["push", "pull"])
def test_readers_meanwhile_see_whole_matches(make_maker: Any, sharing: Any, tmp_path: Path, do: str) -> None:
    """A match is replaced again and again; whoever reads finds one content or the other, or is told."""
    makers = [make_maker(tmp_path / f"clone{number}") for number in range(2)]
    contents = []
    for number, maker in enumerate(makers):
        contents += [maker.match("a", num_rows=3000 + number), maker.match(f"b/{number}", num_rows=300)]
    seen: list[int] = []
    troubles: list[str] = []
    stop, share = threading.Event(), tmp_path / "share"

    def read() -> None:
        while not stop.is_set():
            try:
                store = FeatureStore.open(share)
                for match_id in store.matches():
                    rows = store.rows(match_id)
                    seen.append(len(rows))
                    if not any(np.array_equal(rows[:], each) for each in contents):
                        troubles.append(f"{match_id}: a mixture")
            except InputError:
                continue
            except Exception as error:
                troubles.append(repr(error))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(5):
        source = makers[number % 2].path
        end = sharing.push(source, share, replace=True) if do == "push" else sharing.pull(source, share, replace=True)
        assert end.complete
    stop.set()
    reader.join()
    assert seen
    assert troubles == []
    assert verify(share) == []


def test_push_while_another_pulls(make_maker: Any, sharing: Any, url: str, tmp_path: Path, tree: Any) -> None:
    maker = make_maker(tmp_path / "clone")
    for number in range(4):
        maker.match(f"m/{number}", num_rows=400)
    sharing.push(maker.path, url, matches=("m/0",))
    ends = sharing.processes(
        {"do": "push", "store": maker.path, "url": url}, {"do": "pull", "store": tmp_path / "copy", "url": url}
    )
    assert [end["code"] for end in ends] == [0, 0], ends
    assert "m/0" in FeatureStore.open(tmp_path / "copy").matches()
    assert sharing.pull(url, tmp_path / "copy").complete
    assert tree(tmp_path / "copy") == tree(maker.path)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_a_stop_does_not_wait() -> None:
    traffic, silent = Traffic(SILENT), threading.Event()
    timer = threading.Timer(0.1, signal.raise_signal, [signal.SIGINT])
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            traffic.each(lambda _: silent.wait(20), [1], at_once=1)
        assert not silent.is_set()
        with pytest.raises(InputError, match="stopped"):
            traffic.add(1)
    finally:
        silent.set()
