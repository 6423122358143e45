"""A stand-in of the Hugging Face hub on this machine, as far as `huggingface_hub` and `datasets` need it.

It serves ROOT/models/OWNER/NAME and ROOT/datasets/OWNER/NAME, each at one commit. Weights and tables are handed out as
the hub does it: `resolve` tells hash and size and sends on to another host, which gives the bytes.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".parquet")
API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+)(?:/(.+))?)?$")
RESOLVE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)$")


@dataclass
class Hub:
    """What is served, what is wrong with it, and what was asked for.

    Attributes:
        commits: "OWNER/NAME" → its only commit, which "main" names, too.
        gated: "OWNER/NAME" → 401 (who asks is unknown) or 403 (known, and has not accepted the licence).
        breaks: The connection ends in the middle of every large file.
        requests: "METHOD PATH" of each request so far.
    """

    root: Path
    commits: dict[str, str]
    gated: dict[str, int] = field(default_factory=dict)
    breaks: bool = False
    requests: list[str] = field(default_factory=list)
    port: int = 0

    @contextmanager
    def serve(self) -> Iterator["Hub"]:
        """Answers requests on a free port within the `with` block."""
        handler = type("BoundHandler", (_Handler,), {"hub": self})
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            self.port = server.server_address[1]
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            try:
                yield self
            finally:
                server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if path.startswith("/cdn/"):
            self._bytes(self.hub.root / path.removeprefix("/cdn/"))
        elif found := API.match(path):
            self._api(*found.groups())
        elif found := RESOLVE.match(path):
            self._resolve(*found.groups())
        else:
            self._answer(404)

    do_HEAD = do_GET

    def _api(self, kind: str, name: str, what: str | None, revision: str | None, below: str | None) -> None:
        """Facts on a repository, or the files of a folder; a gated one tells them, too."""
        if (folder := self._checked(kind, name, revision or "main")) is None:
            return
        facts: Any = {"id": name, "sha": self.hub.commits[name], "private": False, "tags": [], "downloads": 0}
        if what == "tree":
            if below and not (folder / below).is_dir():
                return self._refuse("EntryNotFound")
            found = (folder / (below or "")).glob("**/*" if "recursive=true" in self.path.lower() else "*")
            facts = [_entry(p, folder) for p in sorted(found)]
        self._answer(200, json.dumps(facts).encode(), {"Content-Type": "application/json"})

    def _resolve(self, datasets: str | None, name: str, revision: str, file: str) -> None:
        """A small file itself; of a large one its hash and size, and where it is."""
        if (folder := self._checked("datasets" if datasets else "models", name, revision)) is None:
            return
        commit, path = {"X-Repo-Commit": self.hub.commits[name]}, folder / file
        if name in self.hub.gated:
            self._refuse("GatedRepo", self.hub.gated[name])
        elif not path.is_file():
            self._refuse("EntryNotFound", headers=commit)
        elif path.suffix in LARGE:
            there = f"http://localhost:{self.hub.port}/cdn/{path.relative_to(self.hub.root)}"
            linked = {"X-Linked-Size": str(path.stat().st_size), "X-Linked-Etag": f'"{_hash(path)}"'}
            self._answer(302, headers=commit | linked | {"Location": there})
        else:
            self._bytes(path, commit | {"ETag": f'"{_hash(path)}"'})

    def _checked(self, kind: str, name: str, revision: str) -> Path | None:
        """The folder of a repository; None, and refused, where there is none or not this revision of it."""
        folder = self.hub.root / kind / name
        if not folder.is_dir():
            return self._refuse("RepoNotFound")
        if revision not in ("main", self.hub.commits[name]):
            return self._refuse("RevisionNotFound")
        return folder

    def _refuse(self, code: str, status: int = 404, headers: dict[str, str] | None = None) -> None:
        self._answer(status, headers={"X-Error-Code": code} | (headers or {}))

    def _bytes(self, path: Path, headers: dict[str, str] | None = None) -> None:
        content, headers = path.read_bytes(), {"Accept-Ranges": "bytes"} | (headers or {})
        span = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span is None:
            return self._answer(200, content, headers)
        start, end = int(span[1]), min(int(span[2] or len(content) - 1), len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        self._answer(206, content[start : end + 1], headers)

    def _answer(self, status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(content))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.breaks and self.path.startswith("/cdn/"):
            content, self.close_connection = content[: len(content) // 2], True
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None: ...  # nothing on stderr; `Hub.requests` is the log


def _entry(path: Path, folder: Path) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": hashlib.sha1(name.encode()).hexdigest(), "size": 0}
    size = path.stat().st_size
    linked = {"lfs": {"oid": _hash(path), "size": size, "pointerSize": 134}} if path.suffix in LARGE else {}
    return {"type": "file", "path": name, "oid": _hash(path), "size": size} | linked


def _hash(path: Path) -> str:
    """SHA-256 of a large file, as the hub has it; Git's hash of a small one."""
    content = path.read_bytes()
    blob = b"blob %d\0" % len(content) + content
    return (hashlib.sha256(content) if path.suffix in LARGE else hashlib.sha1(blob)).hexdigest()
