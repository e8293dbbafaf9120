"""A stand-in for the Hugging Face Hub: the part of its HTTP that pushing and pulling models goes through.

Repositories are in memory. Large files go through git LFS, as the Hub asks for where a client has no Xet.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_somebody"


@dataclass
class Repository:
    """Commits as trees of files; branches name commits."""

    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    trees: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        tree = {**self.trees.get(self.branches.get(branch, ""), {}), **files}
        said = repr((len(self.trees), branch, sorted(tree), message))
        oid = hashlib.sha1(said.encode()).hexdigest()
        self.trees[oid], self.messages[oid], self.branches[branch] = tree, message, oid
        return oid

    def find(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.trees else None)


class Hub:
    """The server's state, and what it was asked.

    Attributes:
        address: to be taken for ``https://huggingface.co``.
        repositories: by ``user/name``.
        uploads: large files by their SHA-256, before a commit names them.
        requests: method and path of each, with their tokens.
    """

    def __init__(self) -> None:
        self.address = ""
        self.repositories: dict[str, Repository] = {}
        self.uploads: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str]] = []

    def asked(self, method: str, pattern: str) -> list[str]:
        """Paths that were asked for with this method and match this pattern."""
        return [path for verb, path, _ in self.requests if verb == method and re.search(pattern, path)]


@contextmanager
def serve_hub():
    """Run the stand-in on a free port of this machine."""
    hub = Hub()

    class Bound(Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.route()

    def do_HEAD(self):
        self.route()

    def do_POST(self):
        self.route()

    def do_PUT(self):
        self.route()

    def route(self):
        body = self.body()
        path = unquote(urlsplit(self.path).path)
        self.state.requests.append((self.command, path, self.token()))
        for method, pattern, act in ROUTES:
            if method == self.command.replace("HEAD", "GET") and (match := re.fullmatch(pattern, path)):
                act(self, body, **match.groupdict())
                return
        self.refuse(404, "EntryNotFound", f"the stand-in knows no {self.command} {path}")

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def answer(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(raw)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def refuse(self, status: int, code: str, message: str) -> None:
        self.answer({"error": message}, status, {"X-Error-Code": code, "X-Error-Message": message})

    def repository(self, name: str) -> Repository | None:
        """The repository; to strangers a private one does not exist, which the Hub says with 401."""
        found = self.state.repositories.get(name)
        if found is None or (found.private and self.token() != TOKEN):
            self.refuse(401, "RepoNotFound", "Repository not found")
            return None
        return found

    def may_write(self) -> bool:
        if self.token() != TOKEN:
            self.refuse(401, "", "Invalid username or password.")
            return False
        return True


def create(self: Handler, body: bytes) -> None:
    if not self.may_write():
        return
    said = json.loads(body)
    name = f"{said['organization']}/{said['name']}" if said.get("organization") else said["name"]
    if name.startswith("stranger/"):
        self.refuse(403, "", "You don't have the rights to create a model under the namespace stranger")
    elif name in self.state.repositories:
        self.answer({"url": f"{self.state.address}/{name}", "error": "You already created this model repo"}, 409)
    else:
        repository = Repository(said.get("visibility") == "private" or bool(said.get("private")))
        repository.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        self.state.repositories[name] = repository
        self.answer({"url": f"{self.state.address}/{name}", "name": name})


def validate_card(self: Handler, body: bytes) -> None:
    import yaml  # the Hub parses the front matter too

    content = json.loads(body)["content"]
    front = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    metadata = yaml.safe_load(front[1]) if front else {}
    faults = [] if isinstance(metadata, dict) else ["metadata must be an object"]
    base = metadata.get("base_model")
    if base is not None and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", base):
        faults.append('"base_model" with value is not valid. Use a model id from https://hf.co/models.')
    found = [{"message": fault} for fault in faults]
    self.answer({"errors": found, "warnings": []}, 400 if found else 200)


def info(self: Handler, body: bytes, repo: str, revision: str = "main") -> None:
    if (found := self.repository(repo)) is None:
        return
    if (oid := found.find(revision)) is None:
        self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return
    siblings = [{"rfilename": name} for name in found.trees[oid]]
    said = {"id": repo, "modelId": repo, "sha": oid, "private": found.private, "tags": [], "downloads": 0, "likes": 0}
    self.answer({**said, "siblings": siblings})


def tree(self: Handler, body: bytes, repo: str, revision: str) -> None:
    if (found := self.repository(repo)) is None:
        return
    if (oid := found.find(revision)) is None:
        self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return
    rows = []
    for name, content in found.trees[oid].items():
        row = {"type": "file", "path": name, "size": len(content), "oid": git_blob(content)}
        if name.endswith(".safetensors"):
            row["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
        rows.append(row)
    self.answer(rows)


def resolve(self: Handler, body: bytes, repo: str, revision: str, file: str) -> None:
    if (found := self.repository(repo)) is None:
        return
    oid = found.find(revision)
    if oid is None or file not in found.trees[oid]:
        self.refuse(404, "EntryNotFound" if oid else "RevisionNotFound", f"no {file} at {revision}")
        return
    content = found.trees[oid][file]
    large = file.endswith(".safetensors")
    etag = hashlib.sha256(content).hexdigest() if large else git_blob(content)
    headers = {"ETag": f'"{etag}"', "X-Repo-Commit": oid}
    if large:
        headers |= {"X-Linked-ETag": f'"{etag}"', "X-Linked-Size": str(len(content))}
    self.answer(content, headers=headers)


def branch(self: Handler, body: bytes, repo: str, name: str) -> None:
    if not self.may_write() or (found := self.repository(repo)) is None:
        return
    if name in found.branches:
        self.refuse(409, "", "Reference already exists")
        return
    found.branches[name] = found.branches["main"]
    self.answer({})


def preupload(self: Handler, body: bytes, repo: str, revision: str) -> None:
    if not self.may_write() or (found := self.repository(repo)) is None:
        return
    files = []
    for asked in json.loads(body)["files"]:
        mode = "lfs" if asked["path"].endswith(".safetensors") else "regular"
        known = found.trees[found.branches[revision]].get(asked["path"])
        oid = None
        if known is not None:
            oid = hashlib.sha256(known).hexdigest() if mode == "lfs" else git_blob(known)
        files.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    self.answer({"files": files})


def batch(self: Handler, body: bytes, repo: str) -> None:
    if not self.may_write() or self.repository(repo) is None:
        return
    objects = []
    for asked in json.loads(body)["objects"]:
        row = {"oid": asked["oid"], "size": asked["size"]}
        if asked["oid"] not in self.state.uploads:
            row["actions"] = {"upload": {"href": f"{self.state.address}/storage/{asked['oid']}"}}
        objects.append(row)
    self.answer({"transfer": "basic", "objects": objects})


def store(self: Handler, body: bytes, oid: str) -> None:
    if hashlib.sha256(body).hexdigest() != oid:
        self.refuse(400, "", "the bytes are not those of this oid")
        return
    self.state.uploads[oid] = body
    self.answer({})


def commit(self: Handler, body: bytes, repo: str, revision: str) -> None:
    if not self.may_write() or (found := self.repository(repo)) is None:
        return
    files, message = {}, ""
    for line in map(json.loads, body.splitlines()):
        value = line["value"]
        if line["key"] == "header":
            message = value["summary"]
        elif line["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        else:
            assert line["key"] == "lfsFile", line
            files[value["path"]] = self.state.uploads[value["oid"]]
    oid = found.commit(revision, files, message)
    self.answer({"success": True, "commitOid": oid, "commitUrl": f"{self.state.address}/{repo}/commit/{oid}"})


def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


_REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("POST", r"/api/repos/create", create),
    ("POST", r"/api/validate-yaml", validate_card),
    ("GET", rf"/api/models/{_REPO}", info),
    ("GET", rf"/api/models/{_REPO}/revision/(?P<revision>.+)", info),
    ("GET", rf"/api/models/{_REPO}/tree/(?P<revision>[^/]+)", tree),
    ("POST", rf"/api/models/{_REPO}/branch/(?P<name>.+)", branch),
    ("POST", rf"/api/models/{_REPO}/preupload/(?P<revision>.+)", preupload),
    ("POST", rf"/api/models/{_REPO}/commit/(?P<revision>.+)", commit),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", batch),
    ("PUT", r"/storage/(?P<oid>[0-9a-f]{64})", store),
    ("GET", rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", resolve),
]
