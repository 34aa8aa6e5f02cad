"""Stores on the hub, against a server of ours that speaks its protocol, asked by the hub's own client."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from bas.cache.match import Terms
from bas.cache.share import hub as hub_module
from bas.cache.share.hub import HubPlace, parse_address
from bas.cache.share.manifest import FileEntry
from bas.cache.share.pull import Selection, pull
from bas.cache.share.push import CARD, push
from bas.cache.store import FeatureStore
from bas.errors import InputError
from bas.workers import Progress

from .hub_http import Answer, Request
from .hub_server import Blob, HubServer

URL = "hf://datasets/ann/feats"
TERMS = Terms("CC0-1.0", "made for a test")
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the hub's client, uploading by LFS


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The hub, and an environment in which its client finds it; without Xet, and waiting briefly."""
    server = HubServer(tmp_path / "hub")
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", "hf_writer00")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    yield server
    huggingface_hub.close_session()
    server.close()


def push_to(store: Path, url: str = URL, *, replace: bool = False, **chosen: Any) -> dict[str, str]:
    """`bas cache push`; how each match ended."""
    outcome = push(store, url, Selection(**chosen), replace=replace, terms=TERMS)
    return {result.match_id: result.status for result in outcome.results}


def pull_from(out: Path, url: str = URL, **options: Any) -> dict[str, str]:
    """`bas cache pull`; how each match ended, failures with their message."""
    outcome = pull(url, out, Selection(), **options)
    return {result.match_id: f"{result.status} {result.message}".strip() for result in outcome.results}


def content(store: Path) -> dict[str, bytes]:
    """Files of a store's matches by path."""
    return {
        path.relative_to(store).as_posix(): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file() and not path.relative_to(store).parts[0].startswith((".", "__"))
    }


def matches_on(hub: HubServer) -> dict[str, bytes]:
    """The same of the data set."""
    return {path: data for path, data in hub.files("ann/feats").items() if path[0] not in "._" and path != CARD}


def on(method: str, end: str, answer: Callable[[], Answer | None]) -> Callable[[Request], Answer | None]:
    """A fault of one kind of request."""
    return lambda request: answer() if request.method == method and request.path.endswith(end) else None


def times(count: int, answer: Answer) -> Callable[[], Answer | None]:
    """The first `count` times."""
    left = [answer] * count
    return lambda: left.pop() if left else None


def test_a_store_goes_there_and_comes_back_byte_for_byte(hub: HubServer, maker: Any, tmp_path: Path) -> None:
    maker.match("liga/ä - b", views=("identity", "hflip"))
    maker.match("b", num_rows=110)
    sent: list[float] = []
    progress = Progress(advanced=lambda _, done, *__: sent.append(done))
    outcome = push(maker.path, URL, Selection(), terms=TERMS, progress=progress)
    assert [result.status for result in outcome.results] == ["sent", "sent"]
    assert hub.repositories["ann/feats"].private
    assert sent[-1] == pytest.approx(1e6 * sum(float(result.columns["MB"]) for result in outcome.results))
    large = {blob.sha256 for blob in hub.blobs("ann/feats").values() if blob.is_large}
    assert len(hub.uploaded) == len(large) >= 4, "shards and time stamps travel apart from the commit"
    assert hub.repositories["ann/feats"].titles[1:] == [
        "Add zarr.json",
        "Add README.md",
        "Push 2 matches: b to liga/ä - b",
        "Write __manifest__/index.json",
    ]
    assert pull_from(tmp_path / "back") == {"b": "received", "liga/ä - b": "received"}
    assert content(tmp_path / "back") == content(maker.path)
    assert matches_on(hub) == content(maker.path)
    assert hub.leaks == []


def test_the_hub_asks_for_licence_and_origin_and_shows_them(
    bas: Callable[..., int], capsys: pytest.CaptureFixture[str], hub: HubServer, maker: Any
) -> None:
    maker.match("a")
    assert bas("cache", "push", maker.path, URL) == 2
    told = capsys.readouterr().err
    assert "nobody has said the licence and the origin" in told
    assert f"cure:   bas cache push {maker.path} {URL} --licence TEXT --origin TEXT" in told
    assert "ann/feats" not in hub.repositories
    typed = ("--licence", "CC-BY-4.0", "--origin", "our | own\ncamera")
    assert bas("cache", "push", maker.path, URL, *typed) == 0
    card = hub.files("ann/feats")[CARD].decode()
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    assert "| licence | CC-BY-4.0 |\n| origin of videos and labels | our / own camera |\n" in card
    assert FeatureStore.open(maker.path).terms == Terms("CC-BY-4.0", "our | own\ncamera"), "kept: not asked for again"
    assert bas("cache", "push", maker.path, f"{URL}/other", "--licence", "on request only") == 0
    assert hub.files("ann/feats")[f"other/{CARD}"].startswith(b"---\nlicense: other\n")


def test_a_second_push_travels_nothing(hub: HubServer, maker: Any) -> None:
    maker.match("a")
    push_to(maker.path, f"{URL}/some/folder")
    num_uploads, asked = len(hub.uploaded), len(hub.asked)
    assert push_to(maker.path, f"{URL}/some/folder") == {"a": "already there"}
    assert len(hub.uploaded) == num_uploads
    assert not [path for method, path in hub.asked[asked:] if method == "POST" and "paths-info" not in path]
    assert all(path.startswith((".", "some/folder/")) for path in hub.files("ann/feats"))


def test_a_new_view_is_added_alone(hub: HubServer, maker: Any, tmp_path: Path) -> None:
    rows = maker.match("a")
    push_to(maker.path)
    num_uploads = len(hub.uploaded)
    maker.match("a", rows=rows + 1, views=("hflip",))
    assert push_to(maker.path) == {"a": "views added"}
    assert len(hub.uploaded) == num_uploads + 1
    assert sum(path.startswith("__manifest__/") for path in hub.files("ann/feats")) == 2
    assert pull_from(tmp_path / "back") == {"a": "received"}
    assert FeatureStore.open(tmp_path / "back").views("a") == ["hflip", "identity"]


def test_other_content_is_refused_and_replaced_on_demand(hub: HubServer, maker: Any, tmp_path: Path) -> None:
    maker.match("a", views=("hflip", "identity"))
    push_to(maker.path)
    other = type(maker)(tmp_path / "other")
    other.match("a", num_rows=700)
    assert push_to(other.path) == {"a": "differs"}
    assert push_to(other.path, replace=True) == {"a": "replaced"}
    assert matches_on(hub) == content(other.path)
    assert pull_from(tmp_path / "back") == {"a": "received"}
    assert content(tmp_path / "back") == content(other.path)


@pytest.mark.usefixtures("hub")
def test_many_push_different_matches_at_once(maker: Any, tmp_path: Path) -> None:
    makers = [type(maker)(tmp_path / str(number)) for number in range(4)]
    for number, each in enumerate(makers):
        each.match(f"m{number}", num_rows=110)
    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(lambda each: push_to(each.path), makers))
    assert ends == [{f"m{number}": "sent"} for number in range(4)]
    assert pull_from(tmp_path / "back") == {f"m{number}": "received" for number in range(4)}


def test_two_who_push_one_match_with_other_content_do_not_mix(hub: HubServer, maker: Any, tmp_path: Path) -> None:
    """The second has looked before the first committed."""
    maker.match("a", num_rows=300)
    other = type(maker)(tmp_path / "other")
    other.match("a", num_rows=400)

    def first_comes(answered: list[bool] = []) -> None:  # noqa: B006 (once)
        if not answered:
            answered.append(True)
            assert push_to(other.path) == {"a": "sent"}

    hub.faults.append(on("POST", "/preupload/main", lambda: first_comes() if _is_publishing(hub) else None))
    outcome = push(maker.path, URL, Selection(), terms=TERMS)
    assert outcome.results[0].status == "failed"
    assert "just been pushed by somebody else" in outcome.results[0].message
    assert pull_from(tmp_path / "back") == {"a": "received"}
    assert content(tmp_path / "back") == content(other.path)
    assert push_to(maker.path) == {"a": "differs"}


def _is_publishing(hub: HubServer) -> bool:
    return "Add README.md" in hub.repositories["ann/feats"].titles


@pytest.mark.parametrize("answer", [Answer(412), Answer(409), Answer(503), Answer(0)])
def test_a_commit_is_tried_again(hub: HubServer, maker: Any, answer: Answer) -> None:
    maker.match("a", num_rows=110)
    hub.faults.append(on("POST", "/commit/main", times(2, answer)))
    assert push_to(maker.path) == {"a": "sent"}
    assert len(hub.repositories["ann/feats"].titles) == 5


def test_a_commit_that_came_through_unheard_is_not_made_twice(hub: HubServer, maker: Any) -> None:
    maker.match("a", num_rows=110)
    lost = times(1, Answer(0))

    def fault(request: Request) -> Answer | None:
        if request.path.endswith("/commit/main") and b"Push a" in request.body and (answer := lost()):
            hub.commit(request, repo="ann/feats", revision="main")
            return answer
        return None

    hub.faults.append(fault)
    assert push_to(maker.path) == {"a": "sent"}
    assert hub.repositories["ann/feats"].titles.count("Push a") == 1


def test_lists_in_pages_and_files_in_parts(
    hub: HubServer, maker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.page_entries, hub.chunk_bytes = 2, 1_500
    monkeypatch.setattr(hub_module, "_PATHS_AT_ONCE", 3)
    monkeypatch.setattr(HubPlace, "uploads_at_once", 1)
    for number in range(3):
        maker.match(f"m{number}", num_rows=500)
    assert push_to(maker.path) == dict.fromkeys(("m0", "m1", "m2"), "sent")
    assert max(hub.uploaded) == 1_500
    assert hub.repositories["ann/feats"].titles[3:-1] == ["Push m0", "Push m1", "Push m2"]
    assert pull_from(tmp_path / "back") == dict.fromkeys(("m0", "m1", "m2"), "received")
    assert content(tmp_path / "back") == content(maker.path)


def test_by_xet_too(hub: HubServer, maker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real Xet client, into a store of its own in a folder."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    maker.match("a", num_rows=3_000)
    assert push_to(maker.path) == {"a": "sent"}
    assert hub.uploaded == [], "nothing by LFS"
    assert any(path.endswith("/xet-write-token/main") for _, path in hub.asked)
    assert pull_from(tmp_path / "back") == {"a": "received"}
    assert content(tmp_path / "back") == content(maker.path)


def test_files_that_are_there_do_not_travel_again(hub: HubServer, maker: Any) -> None:
    """As after a push that ended before its commit, or whose manifest somebody has removed."""
    maker.match("a")
    push_to(maker.path)
    files = {path: blob for path, blob in hub.blobs("ann/feats").items() if path[:2] != "__"}
    hub.repositories["ann/feats"].add("main", files, "manifests gone")
    num_uploads = len(hub.uploaded)
    assert push_to(maker.path) == {"a": "sent"}
    assert len(hub.uploaded) == num_uploads


def test_a_push_that_is_killed_leaves_nothing_to_see(hub: HubServer, maker: Any, tmp_path: Path) -> None:
    maker.match("a")
    hub.make("ann/feats")
    seen = hub.files("ann/feats")
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(maker.path), URL],
        env=os.environ
        | {"PYTHONPATH": str(Path(__file__).parents[3] / ".typing"), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
        | {"HF_HUB_DISABLE_TELEMETRY": "1"},
    )

    def kill_before_commit(request: Request) -> Answer | None:
        if request.path.endswith("/commit/main") and b"Push a" in request.body:
            child.send_signal(signal.SIGKILL)
            return Answer(0)
        return None

    hub.faults.append(kill_before_commit)
    assert child.wait(timeout=60) == -signal.SIGKILL
    assert hub.files("ann/feats").keys() - seen.keys() == {"zarr.json", CARD}
    assert len(hub.uploaded) > 0
    with pytest.raises(InputError, match="no match to take"):
        pull_from(tmp_path / "back")
    hub.faults.clear()
    num_uploads = len(hub.uploaded)
    assert push_to(maker.path) == {"a": "sent"}
    assert len(hub.uploaded) == num_uploads, "what had arrived did not travel again"


_CHILD = """
import sys
from pathlib import Path
from bas.cache.match import Terms
from bas.cache.share.pull import Selection
from bas.cache.share.push import push
push(Path(sys.argv[1]), sys.argv[2], Selection(), terms=Terms("CC0-1.0", "made here"))
"""


def test_what_comes_damaged_is_refused_by_name(hub: HubServer, maker: Any, tmp_path: Path) -> None:
    maker.match("a")
    maker.match("b", num_rows=110)
    push_to(maker.path)
    found = hub.repositories["ann/feats"]
    files = dict(hub.blobs("ann/feats"))
    path = "a/features/identity/c/0/0"
    files[path] = Blob(files[path].data[:-1] + b"!", True)
    found.add("main", files, "damage")
    hub.large[files[path].sha256] = files[path].data
    ends = pull_from(tmp_path / "back")
    assert ends["b"] == "received"
    assert ends["a"].startswith("failed")
    assert f"{path} is not what its manifest says" in ends["a"]
    assert FeatureStore.open(tmp_path / "back").matches() == ["b"]
    files[path] = Blob(files[path].data[:500], True)
    found.add("main", files, "truncated")
    hub.large[files[path].sha256] = files[path].data
    assert "500 bytes" in pull_from(tmp_path / "back")["a"]


def test_a_line_that_breaks_is_taken_up_where_it_broke(hub: HubServer, maker: Any, tmp_path: Path) -> None:
    maker.match("a", num_rows=4_000)
    push_to(maker.path)
    asked: list[str] = []

    def break_after_half(request: Request) -> Answer | None:
        if not request.path.startswith("/get/"):
            return None
        asked.append(request.headers.get("Range", "") or request.headers.get("range", ""))
        data = hub.large[request.path.rpartition("/")[2]]
        if len(data) < 40_000 or not asked[-1].startswith("bytes=0-"):
            return None
        head = {"Content-Length": str(len(data)), "Content-Range": f"bytes 0-{len(data) - 1}/{len(data)}"}
        return Answer(206, data[: len(data) // 2], head)

    hub.faults.append(break_after_half)
    assert pull_from(tmp_path / "back", jobs=1) == {"a": "received"}
    assert content(tmp_path / "back") == content(maker.path)
    assert any(not each.startswith("bytes=0-") for each in asked)


def entry_of(data: bytes) -> FileEntry:
    return FileEntry(len(data), hashlib.sha256(data).hexdigest())


def test_files(hub: HubServer, tmp_path: Path) -> None:
    found, target = hub.make("ann/feats"), tmp_path / "file"
    data = bytes(range(256)) * 20
    hub.large[Blob(data, True).sha256] = data
    found.add("main", {"large": Blob(data, True), "small": Blob(data, False)}, "files")
    place = HubPlace(URL)
    place.manifests()
    for path in ("large", "small"):
        got: list[int] = []
        place.fetch(path, target, entry_of(data), got.append)
        assert target.read_bytes() == data
        assert sum(got) == len(data)
        assert place.read(path, max_bytes=len(data)) == data
        with pytest.raises(InputError, match="too large"):
            place.read(path, max_bytes=len(data) - 1)
        for wrong in (data[:-1], data + b"x", b"y" + data[1:]):
            with pytest.raises(InputError, match=f"{path} is not what its manifest says"):
                place.fetch(path, target, entry_of(wrong), lambda _: None)
    assert place.read("none", max_bytes=9) is None
    with pytest.raises(InputError, match="no such file"):
        place.fetch("none", target, entry_of(b""), lambda _: None)


@pytest.mark.usefixtures("hub")
def test_a_pull_sees_the_matches_that_it_has_listed(maker: Any, tmp_path: Path) -> None:
    """Somebody replaces a match between the listing and the files."""
    maker.match("a")
    push_to(maker.path)
    place = HubPlace(URL)
    place.manifests()
    other = type(maker)(tmp_path / "other")
    other.match("a", num_rows=700)
    push_to(other.path, replace=True)
    wanted = maker.shard.read_bytes()
    place.fetch("a/features/identity/c/0/0", tmp_path / "file", entry_of(wanted), lambda _: None)
    assert (tmp_path / "file").read_bytes() == wanted


def test_a_branch_and_a_commit(hub: HubServer, maker: Any, tmp_path: Path) -> None:
    found = hub.make("ann/feats")
    found.branches["team/two"] = found.branches["main"]
    maker.match("a", num_rows=110)
    push_to(maker.path, f"{URL}@team%2Ftwo/x")
    assert set(hub.files("ann/feats")) == {".gitattributes"}
    oid = found.branches["team/two"]
    assert pull_from(tmp_path / "back", f"{URL}@{oid}/x") == {"a": "received"}
    with pytest.raises(InputError, match="no such branch"):
        push_to(maker.path, f"{URL}@other")


REFUSALS = [
    ("", "none/feats", "push", "hf auth login"),
    ("", "ann/private", "pull", "hf auth login"),
    ("", "ann/public", "push", "hf auth login"),
    ("hf_wrong000", "ann/public", "pull", "hf auth login"),
    ("hf_reader00", "ann/public", "push", "your token may"),
    ("hf_reader00", "ann/private", "pull", "check the address"),
    ("hf_reader00", "ann/gated", "pull", "ask for access"),
    ("hf_reader00", "eve/new", "push", "your token may"),
    ("hf_second00", "ann/new", "push", "your token may"),
]


@pytest.mark.parametrize(("token", "name", "action", "cure"), REFUSALS)
def test_refusals_have_a_cure_and_hold_no_token(
    hub: HubServer,
    maker: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    token: str,
    name: str,
    action: str,
    cure: str,
) -> None:
    for each in ("public", "private", "gated"):
        hub.make(f"ann/{each}", private=each == "private")
    hub.repositories["ann/gated"].gated = True
    maker.match("a", num_rows=110)
    monkeypatch.setenv("HF_TOKEN", token)
    act, store = (push_to, maker.path) if action == "push" else (pull_from, tmp_path / "back")
    with pytest.raises(InputError) as caught:
        act(store, f"hf://datasets/{name}")
    assert cure in caught.value.cure
    assert name in str(caught.value)
    assert "hf_" not in str(caught.value).replace("hf://", "")


def test_passing_trouble_and_limits(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.make("ann/feats")
    place = HubPlace(URL)
    hub.faults.append(on("GET", "/resolve/main/x", times(2, Answer(502))))
    assert place.read("x", max_bytes=9) is None
    limited = Answer(429, b'{"error": "hourly quota of hf_writer00"}', {"RateLimit": '"api";r=0;t=4000'})
    hub.faults[:] = [on("GET", "/revision/main", lambda: limited)]
    with pytest.raises(InputError, match="limit") as caught:
        place.manifests()
    assert "hf_writer" not in str(caught.value)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="unset HF_HUB_OFFLINE"):
        place.read("x", max_bytes=9)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="cannot be reached"):
        HubPlace(URL).read("x", max_bytes=9)


def test_a_gitignore_that_leaves_files_out_is_noticed(hub: HubServer, maker: Any) -> None:
    hub.make("ann/feats").add("main", {".gitignore": Blob(b"pts", False)}, "ignore")
    maker.match("a", num_rows=110)
    outcome = push(maker.path, URL, Selection(), terms=TERMS)
    assert outcome.results[0].status == "failed"
    assert ".gitignore" in outcome.results[0].message


def test_a_file_that_changes_on_its_way_is_not_committed(
    hub: HubServer, maker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker.match("a")
    real = HubPlace._send

    def changed(self: HubPlace, upload: Any, on_bytes: Any) -> Any:
        maker.shard.write_bytes(maker.shard.read_bytes()[:-1] + b"!")
        return real(self, upload, on_bytes)

    monkeypatch.setattr(HubPlace, "_send", changed)
    outcome = push(maker.path, URL, Selection(), terms=TERMS)
    assert "changed while it was read" in outcome.results[0].message
    assert not any(path.startswith("a/") for path in hub.files("ann/feats"))


def test_the_hubs_own_tools_see_a_plain_data_set(hub: HubServer, maker: Any, tmp_path: Path) -> None:
    """What `hf download` does with the same server: the server is not only right for us."""
    maker.match("liga/a")
    push_to(maker.path)
    api = huggingface_hub.HfApi(endpoint=hub.url)
    got = Path(api.snapshot_download("ann/feats", repo_type="dataset", local_dir=tmp_path / "got", max_workers=2))
    assert {path: data for path, data in content(got).items() if path not in (CARD, ".gitattributes")} == content(
        maker.path
    )
    api.upload_file(path_or_fileobj=b"x" * 3_000, path_in_repo="notes.bin", repo_id="ann/feats", repo_type="dataset")
    assert hub.files("ann/feats")["notes.bin"] == b"x" * 3_000
    assert pull_from(tmp_path / "back") == {"liga/a": "received"}


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("hf://datasets/u/n", ("u/n", "main", "")),
        ("hf://datasets/u/n/", ("u/n", "main", "")),
        ("hf://datasets/u-1/n.x@v1/a b/ä.zarr", ("u-1/n.x", "v1", "a b/ä.zarr")),
        ("hf://datasets/u/n@refs/pr/3/x", ("u/n", "refs/pr/3", "x")),
        ("hf://datasets/u/n@refs%2Fpr%2F3", ("u/n", "refs/pr/3", "")),
    ],
)
def test_addresses(url: str, parsed: tuple[str, str, str]) -> None:
    assert parse_address(url) == parsed


NO_ADDRESSES = """
u/n datasets/u models/u/n datasets/../n datasets/u/n/../x datasets/u/n//x datasets/u/n/.git/x datasets/u/n?x=1
datasets/u/n@ datasets/u/n@a@b
"""


@pytest.mark.parametrize("url", NO_ADDRESSES.split())
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(InputError, match="hf://datasets/USER/NAME"):
        HubPlace(f"hf://{url}")
