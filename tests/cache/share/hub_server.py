"""A small server on this machine that speaks the Hugging Face hub's protocol, as far as data sets need it.

Written from the hub's documents (API, LFS batch, Xet shards, rate limits) and its clients; `huggingface_hub` 2.4 and,
by hand, `@huggingface/hub` 2.17 (JavaScript) make data sets, push, list, fetch and delete here. What it does like the
hub, and tests rely on: a commit is atomic, and refused (412) where its `parentCommit` is not the newest; large files
have to arrive, by LFS or Xet, before a commit may name them; lists come in pages; files come by a redirect, large ones
from another host, where a token would leak; private data sets look missing to who may not read them. It has no quota,
and its users and their rights are fixed.
"""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode

from .hub_http import Answer, Request, Server, as_json, ranged
from .hub_xet import from_xet

REGULAR_BYTES = 10_000_000
"""Larger files within a commit are refused."""


@dataclass(frozen=True)
class Blob:
    """A file at a commit."""

    data: bytes
    is_large: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def oid(self) -> str:
        """As git names it: large files are pointers there."""
        data = self.data
        if self.is_large:
            data = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (
                self.sha256.encode(),
                len(data),
            )
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repository:
    """A data set: its commits, oldest first."""

    private: bool
    gated: bool = False
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    """Commit -> files by path."""
    titles: list[str] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)

    def add(self, branch: str, files: dict[str, Blob], title: str) -> str:
        """The new commit's name."""
        parent = self.branches.get(branch, "")
        oid = hashlib.sha1(f"{parent} {len(self.commits)} {title}".encode()).hexdigest()
        self.commits[oid], self.branches[branch] = files, oid
        self.titles.append(title)
        return oid


class Refused(Exception):  # noqa: N818 (the hub's word)
    """An error as the hub gives it."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        headers = {"X-Error-Message": message, "Content-Type": "application/json"}
        headers |= {"X-Error-Code": code} if code else {}
        self.answer = Answer(status, json.dumps({"error": message}).encode(), headers)


class HubServer:
    """The hub and the host of its large files, until `close`."""

    def __init__(self, folder: Path) -> None:
        self.tokens = {"hf_writer00": ("ann", "write"), "hf_second00": ("bob", "write"), "hf_reader00": ("eve", "read")}
        """Token -> user, and what it may do in every data set of `ann` or `team`; `eve` reads public ones only."""
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.large_from_bytes, self.chunk_bytes, self.page_entries = 2_000, 0, 1_000
        """Smallest large file; bytes of a part of a multipart upload (0: none); entries of a page."""
        self.cas = folder / "cas"
        self.asked: list[tuple[str, str]] = []
        """Method and path of every request to the hub itself."""
        self.uploaded: list[int] = []
        """Bytes of every upload of a large file."""
        self.leaks: list[str] = []
        """Requests to the other host that held a token."""
        self.faults: list[Callable[[Request], Answer | None]] = []
        """Each may answer in place of the hub; an answer of status 0 breaks the line."""
        self._lock, self._parts = threading.RLock(), dict[str, dict[int, bytes]]()
        self._hub, self._store = Server(self._at_hub), Server(self._at_store)
        self.url, self.store_url = self._hub.url, self._store.url

    def close(self) -> None:
        """Stop answering."""
        self._hub.close()
        self._store.close()

    def blobs(self, repository: str, branch: str = "main") -> dict[str, Blob]:
        """What is seen now."""
        found = self.repositories[repository]
        return found.commits[found.branches[branch]]

    def files(self, repository: str, branch: str = "main") -> dict[str, bytes]:
        """The same as bytes."""
        return {path: blob.data for path, blob in self.blobs(repository, branch).items()}

    def make(self, name: str, *, private: bool = False) -> Repository:
        """A data set with its first commit."""
        made = self.repositories[name] = Repository(private)
        made.add("main", {".gitattributes": Blob(b"*.bin filter=lfs\n", False)}, "initial commit")
        return made

    def _at_hub(self, request: Request) -> Answer:
        self.asked.append((request.method, request.path))
        for fault in self.faults:
            if (answer := fault(request)) is not None:
                return answer
        for pattern, act in _ROUTES:
            found = re.fullmatch(pattern, f"{request.method} {request.path}")
            if found:
                try:
                    with self._lock:
                        return act(
                            self, request, **{key: unquote(value) for key, value in found.groupdict().items() if value}
                        )
                except Refused as refused:
                    return refused.answer
        return Answer(404, b"no such page")

    def _at_store(self, request: Request) -> Answer:
        """The other host: addresses that are signed, and no token."""
        if any(key.lower() == "authorization" for key in request.headers):
            self.leaks.append(request.path)
        if request.query.get("X-Signature") != "s1gned":
            return Answer(403)
        _, kind, name, *part = request.path.split("/")
        if kind == "get":
            for fault in self.faults:
                if (answer := fault(request)) is not None:
                    return answer
            answered = ranged(self.large[name], request)
            answered.headers["ETag"] = f'"{name}"'
            return answered
        self.uploaded.append(len(request.body))
        if part:
            self._parts.setdefault(name, {})[int(part[0])] = request.body
        elif hashlib.sha256(request.body).hexdigest() == name:
            self.large[name] = request.body
        return Answer(headers={"ETag": f'"{hashlib.md5(request.body).hexdigest()}"'})

    def _user(self, request: Request) -> tuple[str, str]:
        """Who asks, and what the token may do."""
        authorization = next((value for key, value in request.headers.items() if key.lower() == "authorization"), "")
        if not authorization:
            return "", ""
        if authorization.removeprefix("Bearer ") not in self.tokens:
            raise Refused(401, "Invalid credentials in Authorization header")
        return self.tokens[authorization.removeprefix("Bearer ")]

    def _repository(self, request: Request, name: str, *, writing: bool = False) -> Repository:
        user, role = self._user(request)
        found = self.repositories.get(name)
        if found is None or (found.private and user in ("", "eve")):
            raise (
                Refused(404, "Repository not found", "RepoNotFound")
                if user
                else Refused(401, "Invalid username or password.")
            )
        if found.gated and user not in ("ann", "bob"):
            raise Refused(403 if user else 401, f"Access to dataset {name} is restricted.", "GatedRepo")
        if writing and not user:
            raise Refused(401, "Invalid username or password.")
        if writing and role != "write":
            raise Refused(403, "You must use a write token to upload to a repository.")
        return found

    def _files(self, request: Request, name: str, revision: str) -> tuple[str, dict[str, Blob]]:
        found = self._repository(request, name)
        oid = found.branches.get(revision, revision)
        if oid not in found.commits:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid, found.commits[oid]

    def create(self, request: Request) -> Answer:
        asked = json.loads(request.body)
        user, role = self._user(request)
        assert asked["type"] == "dataset"
        name = f"{asked['organization']}/{asked['name']}"
        if role != "write" or asked["organization"] not in (user, "team"):
            raise Refused(403, f"You don't have the rights to create a dataset under the namespace {name}")
        if name in self.repositories:
            return as_json(
                {"error": "You already created this dataset repo", "url": f"{self.url}/datasets/{name}"}, 409
            )
        self.make(name, private=asked.get("visibility") == "private")
        return as_json({"url": f"{self.url}/datasets/{name}", "name": name})

    def validate(self, request: Request) -> Answer:
        """The head of a data card; the hub refuses licences that it does not know."""
        is_known = re.match(r"---\nlicense: (other|mit|cc0-1\.0|cc-by-4\.0)\n", json.loads(request.body)["content"])
        errors = [] if is_known else [{"message": '"license" must be one of ...'}]
        return as_json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def info(self, request: Request, repo: str, revision: str = "main") -> Answer:
        oid, _ = self._files(request, repo, revision)
        return as_json({"_id": "0", "id": repo, "sha": oid, "private": self.repositories[repo].private})

    def tree(self, request: Request, repo: str, revision: str, folder: str = "") -> Answer:
        oid, files = self._files(request, repo, revision)
        inside = {path: blob for path, blob in files.items() if not folder or path.startswith(f"{folder}/")}
        if folder and not inside:
            raise Refused(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        start = len(folder) + 1 if folder else 0
        entries: dict[str, Any] = {}
        for path, blob in sorted(inside.items()):
            parts = path[start:].split("/")
            if request.query.get("recursive", "").lower() == "true" or len(parts) == 1:
                entries[path] = self._entry(path, blob)
            else:
                entries[path[:start] + parts[0]] = {"type": "directory", "oid": "0" * 40, "size": 0} | {
                    "path": path[:start] + parts[0]
                }
        at = int(request.query.get("cursor", "0"))
        answer = as_json(list(entries.values())[at : at + self.page_entries])
        if at + self.page_entries < len(entries):
            query = urlencode(request.query | {"cursor": at + self.page_entries})
            answer.headers["Link"] = f'<{self.url}{request.path}?{query}>; rel="next"'
        answer.headers["X-Repo-Commit"] = oid
        return answer

    def paths(self, request: Request, repo: str, revision: str) -> Answer:
        _, files = self._files(request, repo, revision)
        is_json = request.body.startswith(b"{")  # as the JavaScript client has it
        asked = (json.loads(request.body) if is_json else parse_qs(request.body.decode())).get("paths", [])
        if len(asked) > 1000:
            raise Refused(413, "too many parameters")
        return as_json([self._entry(path, files[path]) for path in asked if path in files])

    def preupload(self, request: Request, repo: str, revision: str) -> Answer:
        self._repository(request, repo, writing=True)
        _, files = self._files(request, repo, revision)
        ignored = files.get(".gitignore", Blob(b"", False)).data.decode().split()
        told = []
        for each in json.loads(request.body)["files"]:
            assert len(base64.b64decode(each["sample"])) == min(512, each["size"])
            blob = files.get(each["path"])
            told.append(
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if each["size"] >= self.large_from_bytes else "regular",
                    "shouldIgnore": any(name in each["path"].split("/") for name in ignored),
                    "oid": blob and (blob.sha256 if blob.is_large else blob.oid),
                }
            )
        return as_json({"files": told})

    def batch(self, request: Request, repo: str) -> Answer:
        self._repository(request, repo, writing=True)
        asked = json.loads(request.body)
        assert asked["operation"] == "upload"
        assert asked.get("hash_algo", "sha256") in ("sha256", "sha_256"), "optional, and the clients differ"
        return as_json({"transfer": "basic", "objects": [self._action(each) for each in asked["objects"]]})

    def _action(self, wanted: dict[str, Any]) -> dict[str, Any]:
        oid, size = wanted["oid"], wanted["size"]
        if oid in self.large:
            return {"oid": oid, "size": size}
        href = f"{self.store_url}/put/{oid}"
        upload: dict[str, Any] = {"href": f"{href}?X-Signature=s1gned"}
        if self.chunk_bytes:
            numbers = range(1, -(-size // self.chunk_bytes) + 1)
            header = {f"{number:05}": f"{href}/{number}?X-Signature=s1gned" for number in numbers}
            upload = {"href": f"{self.url}/complete", "header": {"chunk_size": str(self.chunk_bytes), **header}}
        return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": {"href": f"{self.url}/verify"}}}

    def complete(self, request: Request) -> Answer:
        asked = json.loads(request.body)
        parts = self._parts.pop(asked["oid"])
        assert [each["partNumber"] for each in asked["parts"]] == sorted(parts)
        data = b"".join(parts[number] for number in sorted(parts))
        if hashlib.sha256(data).hexdigest() != asked["oid"]:
            raise Refused(400, "the parts are not the whole")
        self.large[asked["oid"]] = data
        return as_json({})

    def verify(self, request: Request) -> Answer:
        asked = json.loads(request.body)
        if len(self.large.get(asked["oid"], b"")) != asked["size"]:
            raise Refused(404, "no such object")
        return as_json({})

    def commit(self, request: Request, repo: str, revision: str) -> Answer:
        found = self._repository(request, repo, writing=True)
        if revision not in found.branches:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        lines = [json.loads(line) for line in request.body.splitlines()]
        assert lines[0]["key"] == "header"
        head, header = found.branches[revision], lines[0]["value"]
        if header.get("parentCommit", head) != head:
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        unknown = {line["value"]["oid"] for line in lines[1:] if line["key"] == "lfsFile"} - self.large.keys()
        self.large |= from_xet(self.cas, unknown) if unknown and self.cas.is_dir() else {}
        files = dict(found.commits[head])
        for line in lines[1:]:
            self._apply(files, line["key"], line["value"])
        oid = found.add(revision, files, header["summary"])
        return as_json({"success": True, "commitOid": oid, "commitUrl": f"{self.url}/datasets/{repo}/commit/{oid}"})

    def _apply(self, files: dict[str, Blob], key: str, value: dict[str, Any]) -> None:
        path = value["path"]
        if key == "deletedFile":
            if path not in files:
                raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
            del files[path]
        elif key == "file":
            data = base64.b64decode(value["content"], validate=True)
            if len(data) > REGULAR_BYTES:
                raise Refused(400, "files over 10 MB have to go by LFS")
            files[path] = Blob(data, False)
        else:
            assert (key, value["algo"]) == ("lfsFile", "sha256")
            if len(self.large.get(value["oid"], b"")) != value["size"]:
                raise Refused(400, f"Your push was rejected: {path} points to a file that does not exist")
            files[path] = Blob(self.large[value["oid"]], True)

    def resolve(self, request: Request, repo: str, revision: str, path: str) -> Answer:
        oid, files = self._files(request, repo, revision)
        if path not in files:
            raise Refused(404, "Entry not found", "EntryNotFound")
        blob = files[path]
        headers = {"X-Repo-Commit": oid, "ETag": f'"{blob.oid}"'}
        if blob.is_large:
            headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.data))}
            return Answer(302, headers=headers | {"Location": f"{self.store_url}/get/{blob.sha256}?X-Signature=s1gned"})
        place = f"/api/resolve-cache/datasets/{repo}/{oid}/{quote(path)}"
        return Answer(307, headers=headers | {"Location": place})

    def cached(self, request: Request, repo: str, revision: str, path: str) -> Answer:
        oid, files = self._files(request, repo, revision)
        answer = ranged(files[path].data, request)
        answer.headers.update({"X-Repo-Commit": oid, "ETag": f'"{files[path].oid}"'})
        return answer

    def xet_token(self, request: Request, repo: str, kind: str) -> Answer:
        self._repository(request, repo, writing=kind == "write")
        self.cas.mkdir(parents=True, exist_ok=True)
        until = int(time.time()) + 3600
        answer = as_json({"casUrl": f"local://{self.cas}", "exp": until, "accessToken": "xet"})
        answer.headers.update(
            {
                "X-Xet-Cas-Url": f"local://{self.cas}",
                "X-Xet-Access-Token": "xet",
                "X-Xet-Token-Expiration": str(until),
            }
        )
        return answer

    def _entry(self, path: str, blob: Blob) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "oid": blob.oid, "size": len(blob.data), "path": path}
        if blob.is_large:
            entry["lfs"] = {"oid": blob.sha256, "size": len(blob.data), "pointerSize": 130}
        return entry


_REPO = r"(?P<repo>[^/]+/[^/]+)"
_ROUTES: list[tuple[str, Callable[..., Answer]]] = [
    (r"POST /api/repos/create", HubServer.create),
    (r"POST /api/validate-yaml", HubServer.validate),
    (rf"GET /api/datasets/{_REPO}", HubServer.info),
    (rf"GET /api/datasets/{_REPO}/revision/(?P<revision>[^/]+)", HubServer.info),
    (rf"GET /api/datasets/{_REPO}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?", HubServer.tree),
    (rf"POST /api/datasets/{_REPO}/paths-info/(?P<revision>[^/]+)", HubServer.paths),
    (rf"POST /api/datasets/{_REPO}/preupload/(?P<revision>[^/]+)", HubServer.preupload),
    (rf"POST /api/datasets/{_REPO}/commit/(?P<revision>[^/]+)", HubServer.commit),
    (rf"POST /datasets/{_REPO}\.git/info/lfs/objects/batch", HubServer.batch),
    (r"POST /complete", HubServer.complete),
    (r"POST /verify", HubServer.verify),
    (rf"(?:GET|HEAD) /datasets/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", HubServer.resolve),
    (rf"(?:GET|HEAD) /api/resolve-cache/datasets/{_REPO}/(?P<revision>[^/]+)/(?P<path>.+)", HubServer.cached),
    (rf"GET /api/datasets/{_REPO}/xet-(?P<kind>read|write)-token/[^/]+", HubServer.xet_token),
]
