"""A stand-in for the Hugging Face hub on this machine: the three answers that a download asks for, with the
headers that the hub gives.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY, GATED = "acme/tiny", "acme/gated"
_INFO = re.compile(r"/api/models/([\w-]+/[\w-]+)/revision/([^?]+)")
_FILE = re.compile(r"/([\w-]+/[\w-]+)/resolve/([^/]+)/(.+)")


class StandIn(ThreadingHTTPServer):
    """Serves the files of a folder as a repository, whose branch main and tag v1 are its only commit."""

    daemon_threads = True

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), _Answers)
        self.folder = folder
        self.cut_after = 0  # bytes after which a file's connection breaks off, once; 0: never
        self.status = 0  # of every answer, if not 0
        self.asked: list[tuple[str, str, str]] = []  # method, path, range

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def got(self) -> list[str]:
        """The files that were sent, in the order of their beginning."""
        return [
            _FILE.fullmatch(path)[3]
            for method, path, _ in self.asked
            if method == "GET" and "resolve" in path
        ]


class _Answers(BaseHTTPRequestHandler):
    server: StandIn

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append((self.command, self.path, self.headers.get("Range", "")))
        if self.server.status:
            return self._answer(self.server.status)
        if found := _INFO.match(self.path):
            return self._refused(found[1], found[2]) or self._info(found[1])
        found = _FILE.fullmatch(self.path)
        assert found, self.path
        if not self._refused(found[1], found[2], files=True):
            self._file(self.server.folder / found[3])
        return None

    def _refused(self, name: str, revision: str, files: bool = False) -> bool:
        if name not in (REPOSITORY, GATED):
            self._answer(401, {"X-Error-Code": "RepoNotFound"})
        elif name == GATED and files:
            self._answer(401, {"X-Error-Code": "GatedRepo"})
        elif revision not in ("main", "v1", COMMIT):
            self._answer(404, {"X-Error-Code": "RevisionNotFound"})
        else:
            return False
        return True

    def _info(self, name: str) -> None:
        files = sorted(path for path in self.server.folder.rglob("*") if path.is_file())
        siblings = [
            {"rfilename": str(path.relative_to(self.server.folder)), "size": path.stat().st_size}
            for path in files
        ]
        said = {
            "id": name,
            "modelId": name,
            "sha": COMMIT,
            "siblings": siblings,
            "tags": [],
            "private": False,
        }
        self._answer(200, {"Content-Type": "application/json"}, json.dumps(said).encode())

    def _file(self, path: Path) -> None:
        content = path.read_bytes()
        etag = hashlib.sha256(content).hexdigest()
        first = int((self.headers.get("Range") or "bytes=0-").split("=")[1].split("-")[0])
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        self._answer(206 if first else 200, headers, content[first:])

    def _answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET" and 0 < self.server.cut_after < len(body):
            self.wfile.write(body[: self.server.cut_after])
            self.server.cut_after = 0
        elif self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def stand_in(folder: Path) -> Iterator[StandIn]:
    """A hub that serves this folder until the end of the block."""
    with StandIn(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
