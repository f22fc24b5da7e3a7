"""The Hugging Face Hub in one thread on this machine: what huggingface_hub asks for, answered from memory.

with FakeHub(token="hf_secret") as hub:
    api = HfApi(endpoint=hub.url, token=hub.token)
    api.create_repo("me/model")
    api.upload_file(...)
    hub.faults.append(Fault("POST", r"/commit/", after_bytes=100))   # the next commit breaks off after 100 bytes

Repositories are lists of commits, and a commit is a whole mapping of names to contents: it is there or it is not.
Models and datasets share their names here, which they do not on the Hub.
Weights go through LFS, everything else inside the commit, as on the Hub; Xet is not spoken (HF_HUB_DISABLE_XET=1).
"""

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import transformers.utils.hub
import yaml
from huggingface_hub import close_session, constants

LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".parquet")
OWNER = "me"
"The one namespace that the token may write to."


@dataclass
class Repository:
    """What one repository holds."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    "Commit -> its files, oldest first."
    refs: dict[str, str] = field(default_factory=dict)
    "Branch or tag -> commit."

    def commit(self, files: dict[str, bytes]) -> str:
        """Add a commit on main and return its hash."""
        parent = self.refs.get("main", "")
        listing = "".join(f"{name} {git_hash(content)}\n" for name, content in sorted(files.items()))
        name = hashlib.sha1(f"{len(self.commits)} {parent}\n{listing}".encode()).hexdigest()
        self.commits[name] = files
        self.refs["main"] = name
        return name

    @property
    def files(self) -> dict[str, bytes]:
        """What main holds."""
        return self.commits[self.refs["main"]]


@dataclass
class Fault:
    """The connection breaks off: inside the request's body (POST, PUT) or the answer's (GET)."""

    method: str
    path: str
    "Regular expression that the path contains."
    after_bytes: int = 0
    times: int = 1
    stalls: bool = False
    "Keep the connection and say nothing more, as a dead network does."


class FakeHub:
    """A Hub with one user, `me`."""

    def __init__(self, token: str = "hf_not_a_secret"):
        self.token = token
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        "LFS contents by SHA-256."
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        "Method, path and Range of every request."
        self.before_commit: Callable[[], object] = lambda: None
        "What happens between a client's look at a repository and its next commit there; once."
        self.stalled, self.released = threading.Event(), threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Close; a second call changes nothing."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, repo_id: str, files: dict[str, bytes], *, private: bool = False) -> str:
        """Put a commit there without the client, as anybody's other tools might, and return its hash."""
        repository = self.repositories.setdefault(repo_id, Repository(private))
        return repository.commit(files)

    def environment(self, home: Path) -> dict[str, str]:
        """Return the variables with which another process talks to this Hub, logged in."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "cache"),
            "HF_TOKEN": self.token,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }

    def find_fault(self, method: str, path: str) -> Fault | None:
        """Return the fault that this request meets, if any, and count it."""
        for fault in self.faults:
            if fault.method == method and re.search(fault.path, path):
                fault.times -= 1
                if fault.times <= 0:
                    self.faults.remove(fault)
                return fault
        return None


def git_hash(content: bytes) -> str:
    """Return the name git gives a file, which is its ETag on the Hub."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_lfs(name: str) -> bool:
    """True for files that the Hub keeps apart from git."""
    return name.endswith(LFS_SUFFIXES)


def entity_tag(name: str, content: bytes) -> str:
    """Return the ETag of a file."""
    return hashlib.sha256(content).hexdigest() if is_lfs(name) else git_hash(content)


class _BrokenError(Exception):
    """The connection is gone on purpose."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: FakeHub

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that is killed is part of the tests."""


class _AnswerError(Exception):
    """An error for the client: status, `X-Error-Code`, message."""

    def __init__(self, status: int, code: str = "", message: str = ""):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    fault: Fault | None

    ROUTES = (
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate_yaml"),
        ("GET", r"/api/(?:models|datasets)/(?P<repo>[^/]+/[^/]+)", "info"),
        ("GET", r"/api/(?:models|datasets)/(?P<repo>[^/]+/[^/]+)/revision/(?P<revision>[^/]+)", "info"),
        ("GET", r"/api/(?:models|datasets)/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)(?P<folder>/.*)?", "tree"),
        ("POST", r"/api/(?:models|datasets)/(?P<repo>[^/]+/[^/]+)/paths-info/(?P<revision>[^/]+)", "paths_info"),
        ("POST", r"/api/(?:models|datasets)/(?P<repo>[^/]+/[^/]+)/preupload/(?P<revision>[^/]+)", "preupload"),
        ("POST", r"/api/(?:models|datasets)/(?P<repo>[^/]+/[^/]+)/commit/(?P<revision>[^/]+)", "commit"),
        ("POST", r"/api/(?:models|datasets)/(?P<repo>[^/]+/[^/]+)/tag/(?P<revision>[^/]+)", "tag"),
        ("POST", r"/(?:datasets/)?(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "lfs_batch"),
        ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "lfs_upload"),
        ("GET", r"/(?:datasets/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)", "resolve"),
    )
    "Method, path, and the method below that answers. HEAD goes where GET does."

    # What the server base class calls.

    def do_GET(self) -> None:
        self._dispatch()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - names of the base class

    def log_message(self, format: str, *args: Any) -> None:
        """Keep requests in the hub instead of printing them."""
        self.server.hub.requests.append(f"{self.command} {self.path} {self.headers.get('Range') or ''}".strip())

    def _dispatch(self) -> None:
        path = urlsplit(self.path).path
        self.fault = self.server.hub.find_fault(self.command, path)
        try:
            body = self._read_body()
            self._send_json(200, self._find(path, body))
        except _AnswerError as answer:
            headers = {"X-Error-Code": answer.code} if answer.code else {}
            self._send_json(answer.status, {"error": answer.message}, headers)
        except (_BrokenError, ConnectionError):
            self.close_connection = True

    def _find(self, path: str, body: bytes) -> Any:
        method = "GET" if self.command == "HEAD" else self.command
        for verb, pattern, name in self.ROUTES:
            found = re.fullmatch(pattern, path)
            if verb == method and found:
                given = {key: unquote(value) for key, value in found.groupdict().items() if value is not None}
                return getattr(self, f"answer_{name}")(body=body, **given)
        raise _AnswerError(404, message=f"the fake Hub has no {self.command} {path}")

    # Answers.

    def answer_whoami(self, body: bytes) -> Any:
        self._need_token()
        return {"type": "user", "name": OWNER, "orgs": []}

    def answer_create(self, body: bytes) -> Any:
        self._need_token()
        asked = json.loads(body)
        owner = asked.get("organization") or OWNER
        repo_id = f"{owner}/{asked['name']}"
        if owner != OWNER:
            raise _AnswerError(
                403, message=f"You don't have the rights to create a model under the namespace {owner!r}"
            )
        url = f"{self.server.hub.url}/{repo_id}"
        if repo_id in self.server.hub.repositories:
            self._send_json(409, {"error": "You already created this model repo", "url": url})
            return None
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.server.hub.add(repo_id, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=private)
        return {"url": url, "name": repo_id}

    def answer_validate_yaml(self, body: bytes) -> Any:
        found = re.match(r"---\n(.*?)\n---", json.loads(body)["content"], flags=re.DOTALL)
        try:
            yaml.safe_load(found[1] if found else "")
        except yaml.YAMLError as error:
            self._send_json(400, {"errors": [{"message": str(error)}], "warnings": []})
            return None
        return {"errors": [], "warnings": []}

    def answer_info(self, body: bytes, repo: str, revision: str = "main") -> Any:
        repository, commit = self._readable(repo, revision)
        names = [{"rfilename": name} for name in sorted(repository.commits[commit])]
        return {
            "id": repo,
            "modelId": repo,
            "sha": commit,
            "private": repository.private,
            "siblings": names,
            "tags": [],
        }

    def answer_tree(self, body: bytes, repo: str, revision: str, folder: str = "") -> Any:
        repository, commit = self._readable(repo, revision)
        start = f"{folder.strip('/')}/" if folder.strip("/") else ""
        files = {name: content for name, content in repository.commits[commit].items() if name.startswith(start)}
        if start and not files:
            raise _AnswerError(404, "EntryNotFound", "Entry not found")
        inner = {start + part for name in files if (part := name.removeprefix(start).rpartition("/")[0])}
        folders = {name[:i] for name in inner for i in range(len(start) + 1, len(name) + 1) if name[i : i + 1] in "/"}
        if "true" not in parse_qs(urlsplit(self.path).query).get("recursive", []):
            files = {name: content for name, content in files.items() if "/" not in name.removeprefix(start)}
            folders = {name for name in folders if "/" not in name.removeprefix(start)}
        listed = [{"type": "directory", "path": name, "size": 0, "oid": git_hash(name.encode())} for name in folders]
        listed += [_entry(name, content) for name, content in files.items()]
        return sorted(listed, key=lambda entry: entry["path"])

    def answer_paths_info(self, body: bytes, repo: str, revision: str) -> Any:
        repository, commit = self._readable(repo, revision)
        json_body = self.headers.get("Content-Type", "").startswith("application/json")
        paths = json.loads(body)["paths"] if json_body else parse_qs(body.decode())["paths"]
        files = repository.commits[commit]
        return [_entry(name, files[name]) for name in paths if name in files]

    def answer_preupload(self, body: bytes, repo: str, revision: str) -> Any:
        repository, commit = self._writable(repo, revision)
        files = repository.commits[commit]
        return {
            "files": [
                {
                    "path": (name := asked["path"]),
                    "uploadMode": "lfs" if is_lfs(name) else "regular",
                    "shouldIgnore": False,
                    "oid": entity_tag(name, files[name]) if name in files else None,
                }
                for asked in json.loads(body)["files"]
            ]
        }

    def answer_commit(self, body: bytes, repo: str, revision: str) -> Any:
        happens, self.server.hub.before_commit = self.server.hub.before_commit, lambda: None
        happens()
        repository, commit = self._writable(repo, revision)
        files = dict(repository.commits[commit])
        for line in body.splitlines():
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "header" and value.get("parentCommit", commit) != commit:
                raise _AnswerError(412, message="A commit has happened since. Please refresh and try again.")
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.server.hub.objects:
                    raise _AnswerError(400, message=f"LFS object {value['oid']} was never uploaded")
                files[value["path"]] = self.server.hub.objects[value["oid"]]
            elif key == "deletedFile" and files.pop(value["path"], None) is None:
                raise _AnswerError(404, "EntryNotFound", "A file with this name doesn't exist")
        name = repository.commit(files)
        return {"success": True, "commitOid": name, "commitUrl": f"{self.server.hub.url}/{repo}/commit/{name}"}

    def answer_tag(self, body: bytes, repo: str, revision: str) -> Any:
        repository, commit = self._writable(repo, revision)
        repository.refs[json.loads(body)["tag"]] = commit
        return {}

    def answer_lfs_batch(self, body: bytes, repo: str) -> Any:
        self._writable(repo, "main")
        found = []
        for asked in json.loads(body)["objects"]:
            upload = {"upload": {"href": f"{self.server.hub.url}/lfs/{asked['oid']}"}}
            there = asked["oid"] in self.server.hub.objects
            found.append({**asked, **({} if there else {"actions": upload})})
        return {"transfer": "basic", "objects": found}

    def answer_lfs_upload(self, body: bytes, oid: str) -> Any:
        if hashlib.sha256(body).hexdigest() != oid:
            raise _AnswerError(400, message="the content is not what its name says")
        self.server.hub.objects[oid] = body
        return {}

    def answer_resolve(self, body: bytes, repo: str, revision: str, name: str) -> Any:
        repository, commit = self._readable(repo, revision)
        files = repository.commits[commit]
        if name not in files:
            raise _AnswerError(404, "EntryNotFound", "Entry not found")
        content, status = files[name], 200
        headers = {"ETag": f'"{entity_tag(name, content)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked:
            start, stop = int(asked[1]), int(asked[2]) + 1 if asked[2] else len(content)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            content, status = content[start:stop], 206
        self._send(status, content, {"Content-Type": "application/octet-stream", **headers})

    # Who may do what.

    def _need_token(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {self.server.hub.token}":
            raise _AnswerError(401, message="Invalid username or password.")

    def _readable(self, repo: str, revision: str) -> tuple[Repository, str]:
        repository = self.server.hub.repositories.get(repo)
        known = self.headers.get("Authorization") == f"Bearer {self.server.hub.token}"
        if repository is None or (repository.private and not known):
            # The Hub does not say which of the two it is.
            raise _AnswerError(404 if known else 401, "RepoNotFound", "Repository not found")
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            raise _AnswerError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository, commit

    def _writable(self, repo: str, revision: str) -> tuple[Repository, str]:
        self._need_token()
        return self._readable(repo, revision)

    # Bytes.

    def _read_body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        length = int(self.headers.get("Content-Length") or 0)
        if self.fault and self.command in ("POST", "PUT"):
            self.rfile.read(min(length, self.fault.after_bytes))
            self._break_off(self.fault)
        return self.rfile.read(length)

    def _send_json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        # None: the answer has gone out already.
        if value is not None:
            self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault and self.command == "GET":
            self.wfile.write(content[: self.fault.after_bytes])
            self._break_off(self.fault)
        self.wfile.write(content)

    def _break_off(self, fault: Fault) -> None:
        if fault.stalls:
            self.server.hub.stalled.set()
            self.server.hub.released.wait(60)
        self.connection.shutdown(socket.SHUT_RDWR)
        raise _BrokenError


def _entry(name: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": git_hash(content)}
    if is_lfs(name):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return entry


@contextmanager
def connected_hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """Start a Hub that the client in this process talks to, logged in, with an empty cache in `home`."""
    with FakeHub() as hub:
        for name, value in hub.environment(home).items():
            monkeypatch.setenv(name, value)
        # The client read its environment when it was imported.
        for name, value in {
            "ENDPOINT": hub.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(home / "cache"),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_OFFLINE": False,
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(transformers.utils.hub, "_hf_api", None, raising=False)
        try:
            yield hub
        finally:
            close_session()
