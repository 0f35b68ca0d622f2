"""Servers on this machine that play the two model hubs over HTTP, each with one model."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

NAME = "org/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class HubServer:
    """A running server.

    Attributes:
        folder: Folder with the files of the model.
        address: Its address.
        requests: Method and path of every request.
        extra: Paths of files that it lists besides those of the folder.
    """

    folder: Path
    address: str = ""
    requests: list[str] = field(default_factory=list)
    extra: tuple[str, ...] = ()

    @property
    def files(self) -> dict[str, bytes]:
        """Files of the model by their paths."""
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}

    @property
    def downloaded(self) -> list[str]:
        """Requests for the content of a file."""
        return [line for line in self.requests if line.startswith("GET") and ("FilePath=" in line or "/resolve/" in line)]


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing."""

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def reply_json(self, value: object, status: int = 200) -> None:
        self.reply(status, json.dumps(value).encode(), Content_Type="application/json")

    def reply_file(self, body: bytes, **headers: str) -> None:
        """Reply with a file, or with the part of it that the request asks for."""
        wanted = self.headers.get("Range", "")
        if not wanted:
            self.reply(200, body, **headers)
            return
        start, _, end = wanted.removeprefix("bytes=").partition("-")
        part = body[int(start) : int(end) + 1 if end else None]
        self.reply(206, part, Content_Range=f"bytes {start}-{int(start) + len(part) - 1}/{len(body)}", **headers)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        self.answer(urlsplit(self.path).path, {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()})

    def answer(self, path: str, query: dict[str, str]) -> None:
        raise NotImplementedError


class _ModelScope(_Handler):
    def answer(self, path: str, query: dict[str, str]) -> None:
        files, known = self.hub.files, query.get("Revision") in ("master", "v1")
        if path == f"/api/v1/models/{NAME}/repo/files" and known:
            listed = [
                {"Path": name, "Size": len(body), "Sha256": hashlib.sha256(body).hexdigest(), "Type": "blob"}
                for name, body in files.items()
            ]
            self.reply_json(
                {"Code": 200, "Data": {"Files": [*listed, *({"Path": name, "Size": 1, "Type": "blob"} for name in self.hub.extra)]}}
            )
        elif path == f"/api/v1/models/{NAME}/repo" and known and query["FilePath"] in files:
            self.reply_file(files[query["FilePath"]])
        else:
            self.reply_json({"Code": 10010205001, "Message": "Not Found", "Success": False}, 404)


class _HuggingFace(_Handler):
    def answer(self, path: str, query: dict[str, str]) -> None:
        files = self.hub.files
        name = path.removeprefix(f"/{NAME}/resolve/").partition("/")[2]
        if path.startswith(f"/{NAME}/resolve/") and name in files:
            body = files[name]
            self.reply_file(body, ETag=f'"{hashlib.sha256(body).hexdigest()}"', X_Repo_Commit=COMMIT)
        elif path.startswith(f"/{NAME}/resolve/"):
            self.reply(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        elif path.startswith(f"/api/models/{NAME}/tree/"):
            folder = path.removeprefix(f"/api/models/{NAME}/tree/").partition("/")[2]
            found = [
                {"type": "file", "path": file, "size": len(body), "oid": COMMIT} for file, body in files.items() if file.startswith(folder)
            ]
            if found:
                self.reply_json(found)
            else:
                self.reply(404, b"", X_Error_Code="EntryNotFound")
        elif path in (f"/api/models/{NAME}", f"/api/models/{NAME}/revision/main", f"/api/models/{NAME}/revision/{COMMIT}"):
            self.reply_json({"id": NAME, "modelId": NAME, "sha": COMMIT, "tags": [], "siblings": [{"rfilename": file} for file in files]})
        else:
            self.reply(404, b"", X_Error_Code="RepoNotFound")


@contextmanager
def _served(folder: Path, handler: type[_Handler]) -> Iterator[HubServer]:
    hub = HubServer(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def modelscope_server(folder: Path) -> AbstractContextManager[HubServer]:
    """Serve a folder as the model ``org/tiny`` of ModelScope, with the revisions ``master`` and ``v1``."""
    return _served(folder, _ModelScope)


def hugging_face_server(folder: Path) -> AbstractContextManager[HubServer]:
    """Serve a folder as the model ``org/tiny`` of the Hub, with the revision ``main``."""
    return _served(folder, _HuggingFace)
