"""A Hugging Face hub on loopback: real HTTP, repositories with commits, downloads, and uploads by Git LFS."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import huggingface_hub
import pytest
import yaml

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LFS_SUFFIXES = (".safetensors", ".png")

Files = dict[str, bytes]


@dataclass
class Repository:
    """Branches with their commits, each a digest and all files, the newest last."""

    is_private: bool = False
    is_gated: bool = False
    branches: dict[str, list[tuple[str, Files]]] = field(default_factory=dict)

    def commit(self, branch: str, files: Files) -> str:
        content = repr((branch, len(self.branches.get(branch, [])), sorted(files.items()))).encode()
        digest = hashlib.sha1(content).hexdigest()
        self.branches.setdefault(branch, []).append((digest, files))
        return digest

    def find(self, revision: str) -> tuple[str, Files] | None:
        """Return the commit of a branch, or of a digest."""
        if revision in self.branches:
            return self.branches[revision][-1]
        return next((each for commits in self.branches.values() for each in commits if each[0] == revision), None)


class LoopbackHub:
    """The hub's endpoints: `files` by ``repository/name`` are downloads only, `repositories` have all of it.

    `token` is the only one that is accepted for repositories. `failure` is the answer to every request;
    `failures` are answers to the requests whose method and path contain a text. `stalled` texts get none.
    """

    def __init__(self) -> None:
        self.files: Files = {}
        self.repositories: dict[str, Repository] = {}
        self.token = "hf_of_a_test"
        self.failure: tuple[int, dict[str, str]] | None = None
        self.failures: dict[str, int] = {}
        self.stalled: set[str] = set()
        self.cut_bodies_to: int | None = None
        self.tampered: dict[str, bytes] = {}  # content of files that are sent instead of the ones that were pushed
        self.objects: dict[str, bytes] = {}  # of Git LFS, by SHA-256
        self.requests: list[tuple[str, str, str | None]] = []
        self.stopping = threading.Event()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                hub.answer(self, with_body=False)

            def do_GET(self) -> None:
                hub.answer(self)

            def do_POST(self) -> None:
                hub.answer(self)

            def do_PUT(self) -> None:
                hub.answer(self)

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def head_of(self, repo: str, branch: str = "main") -> Files:
        """Return the files of a branch, without the one that the hub itself makes."""
        found = self.repositories[repo].find(branch)
        assert found is not None
        return {name: content for name, content in found[1].items() if name != ".gitattributes"}

    def answer(self, handler: BaseHTTPRequestHandler, with_body: bool = True) -> None:
        self.requests.append((handler.command, handler.path, handler.headers.get("Authorization")))
        length = int(handler.headers.get("Content-Length") or 0)
        chunked = handler.headers.get("Transfer-Encoding") == "chunked"
        given = _read_chunks(handler) if chunked else handler.rfile.read(length)
        asked = f"{handler.command} {unquote(handler.path)}"
        if any(text in asked for text in self.stalled):
            self.stopping.wait(60)
            handler.close_connection = True
            return
        failed = next((status for text, status in self.failures.items() if text in asked), None)
        if failed is not None:
            self.send(handler, failed, json.dumps({"error": "made to fail"}).encode())
        elif self.failure is not None:
            self.send(handler, self.failure[0], b"", self.failure[1])
        else:
            path = unquote(urlsplit(handler.path).path)
            self.send(handler, *self.respond(handler, path, given), with_body=with_body)

    def send(
        self,
        handler: BaseHTTPRequestHandler,
        status: int,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        with_body: bool = True,
    ) -> None:
        handler.send_response(status)
        for header, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            handler.send_header(header, value)
        handler.end_headers()
        if with_body and body:
            handler.wfile.write(body[: self.cut_bodies_to])
            handler.close_connection = self.cut_bodies_to is not None

    def respond(  # noqa: C901  (one branch for each endpoint)
        self, handler: BaseHTTPRequestHandler, path: str, given: bytes
    ) -> tuple[int, bytes] | tuple[int, bytes, dict[str, str]]:
        """Return status, body and headers."""
        if (body := self.files.get(path.replace("/resolve/main/", "/").strip("/"))) is not None:
            return 200, body, {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": COMMIT}
        has_token = handler.headers.get("Authorization") == f"Bearer {self.token}"
        writes = handler.command in ("POST", "PUT")
        if path.startswith("/lfs/"):  # its addresses are signed, in place of a token
            self.objects[path.removeprefix("/lfs/")] = given
            return 200, b""
        if writes and not has_token:
            return 401, json.dumps({"error": "Invalid credentials in Authorization header"}).encode()
        if path == "/api/validate-yaml":
            text = json.loads(given)["content"]
            try:
                yaml.safe_load(text.split("---\n")[1])
            except (yaml.YAMLError, IndexError) as error:
                return 400, json.dumps({"errors": [{"message": str(error)}]}).encode()
            return 200, json.dumps({"errors": [], "warnings": []}).encode()
        if path == "/api/repos/create":
            return self.create(json.loads(given))
        if path.endswith(".git/info/lfs/objects/batch"):
            wanted = [(each["oid"], each["size"]) for each in json.loads(given)["objects"]]
            objects = [
                {"oid": oid, "size": size, "actions": {"upload": {"href": f"{self.url}/lfs/{oid}"}}}
                for oid, size in wanted
                if oid not in self.objects
            ]
            objects += [{"oid": oid, "size": size} for oid, size in wanted if oid in self.objects]
            return 200, json.dumps({"transfer": "basic", "objects": objects}).encode()
        parts = path.strip("/").split("/")
        name = "/".join(parts[2:4] if parts[:2] == ["api", "models"] else parts[:2])
        repo = self.repositories.get(name)
        if repo is None or (repo.is_private and not has_token):
            return 401 if not has_token else 404, b"{}", {"X-Error-Code": "RepoNotFound"}
        rest = parts[4:] if parts[0] == "api" else parts[2:]
        if repo.is_gated and rest[:1] == ["resolve"] and not has_token:
            return 403, b"{}", {"X-Error-Code": "GatedRepo"}
        if rest[:1] == ["branch"]:
            if rest[1] in repo.branches:
                return 409, json.dumps({"error": "Reference already exists"}).encode()
            repo.branches[rest[1]] = list(repo.branches["main"])
            return 200, b"{}"
        found = repo.find(rest[1] if len(rest) > 1 else "main")
        if found is None:
            return 404, b"{}", {"X-Error-Code": "RevisionNotFound"}
        if rest[:1] in ([], ["revision"]):
            has_details = "blobs" in parse_qs(urlsplit(handler.path).query)
            return 200, json.dumps(self.described(name, repo, *found, has_details)).encode()
        if rest[0] == "preupload":
            files = [
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if each["path"].endswith(LFS_SUFFIXES) else "regular",
                    "shouldIgnore": False,
                }
                for each in json.loads(given)["files"]
            ]
            return 200, json.dumps({"files": files}).encode()
        if rest[0] == "commit":
            return self.commit(name, repo, rest[1], found, [json.loads(line) for line in given.splitlines()])
        if rest[0] == "resolve" and (body := found[1].get("/".join(rest[2:]))) is not None:
            etag = _digests("/".join(rest[2:]), body)[1]
            return 200, self.tampered.get("/".join(rest[2:]), body), {"ETag": f'"{etag}"', "X-Repo-Commit": found[0]}
        return 404, b"", {"X-Error-Code": "EntryNotFound"}

    def create(self, asked: dict[str, Any]) -> tuple[int, bytes]:
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if name in self.repositories:
            return 409, json.dumps({"error": "You already created this model repo", "url": name}).encode()
        self.repositories[name] = Repository(
            is_private=asked.get("visibility") == "private" or bool(asked.get("private"))
        )
        self.repositories[name].commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})
        return 200, json.dumps({"url": f"{self.url}/{name}", "id": name}).encode()

    def described(self, name: str, repo: Repository, sha: str, files: Files, has_details: bool) -> dict[str, Any]:
        siblings = []
        for file, content in sorted(files.items()):
            one: dict[str, Any] = {"rfilename": file}
            if has_details:
                one |= {"size": len(content), "blobId": _digests(file, content)[0]}
                if file.endswith(LFS_SUFFIXES):
                    one["lfs"] = {"size": len(content), "sha256": _digests(file, content)[1], "pointerSize": 130}
            siblings.append(one)
        gated = "manual" if repo.is_gated else False
        return {
            "id": name,
            "modelId": name,
            "sha": sha,
            "private": repo.is_private,
            "gated": gated,
            "siblings": siblings,
        }

    def commit(
        self, name: str, repo: Repository, branch: str, head: tuple[str, Files], lines: list[dict[str, Any]]
    ) -> tuple[int, bytes]:
        header, files = lines[0]["value"], dict(head[1])
        if header.get("parentCommit") not in (None, head[0]):
            return 412, json.dumps({"error": "A commit has happened since. Please refresh and try again."}).encode()
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                content = self.objects.get(value["oid"], b"")
                if hashlib.sha256(content).hexdigest() != value["oid"] or len(content) != value["size"]:
                    return 400, json.dumps({"error": f"LFS object {value['path']} was not uploaded"}).encode()
                files[value["path"]] = content
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        sha = repo.commit(branch, files)
        return 200, json.dumps({"commitUrl": f"{self.url}/{name}/commit/{sha}", "commitOid": sha}).encode()

    def stop(self) -> None:
        self.stopping.set()
        if self.thread.is_alive():
            self.server.shutdown()
            self.thread.join()
            self.server.server_close()


def _digests(name: str, content: bytes) -> tuple[str, str]:
    """Return the digest of Git's object, and the one in the header ETag."""
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return git, hashlib.sha256(content).hexdigest() if name.endswith(LFS_SUFFIXES) else git


def _read_chunks(handler: BaseHTTPRequestHandler) -> bytes:
    body = b""
    while num := int(handler.rfile.readline().split(b";")[0], 16):
        body += handler.rfile.read(num)
        handler.rfile.readline()
    handler.rfile.readline()
    return body


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep each test away from this machine's cache and settings and from the real hub."""
    for variable in ("SACCADE_WEIGHTS", "HF_HUB_OFFLINE", "HF_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody answers


@pytest.fixture
def hub(no_hub: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """Start a hub without files, and let HF_ENDPOINT say where it is."""
    server = LoopbackHub()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    yield server
    server.stop()
    huggingface_hub.close_session()  # else its connections outlive the server
