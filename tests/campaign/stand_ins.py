"""Stand-ins on this machine for stores of others: as much of their protocols as is used."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

DATE = "Thu, 01 Jan 2026 00:00:00 GMT"


class Keeper(BaseHTTPRequestHandler):
    """Files by their paths, given whole or in ranges."""

    protocol_version = "HTTP/1.1"
    files: ClassVar[dict[str, bytes]] = {}

    def log_message(self, *_: object) -> None:
        """Be silent."""

    def body(self) -> bytes:
        """What was sent."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, code: int, content: bytes = b"", about: dict[str, str] | None = None) -> None:
        """Send an answer, without content to who asked for none."""
        self.send_response(code)
        for key, value in {"Content-Length": str(len(content)), **(about or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def give(self, content: bytes, about: dict[str, str]) -> None:
        """Send a file, or the range of it that was asked for."""
        asked = self.headers.get("x-ms-range") or self.headers.get("Range", "")
        found = re.match(r"bytes=(\d+)-(\d*)", asked)
        if not found:
            self.answer(200, content, about)
            return
        first, last = int(found[1]), min(int(found[2] or len(content)), len(content) - 1)
        about |= {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
        self.answer(206, content[first : last + 1], about)


class Hub(Keeper):
    """Repositories as Hugging Face's hub has them; all lie at `/KIND/OWNER/NAME/PATH`."""

    files: ClassVar[dict[str, bytes]] = {}

    def json(self, value: object) -> None:
        """Send JSON."""
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def do_HEAD(self) -> None:
        """As `GET`."""
        self.do_GET()

    def do_GET(self) -> None:
        """A repository, what lies in it, or a file."""
        path = unquote(self.path.partition("?")[0])
        if found := re.fullmatch(r"/api/(\w+/\w+/\w+)(/revision/\w+)?", path):
            self.json({"id": found[1].partition("/")[2], "sha": "0" * 40, "siblings": []})
        elif found := re.fullmatch(r"/api/(\w+/\w+/\w+)/tree/\w+/?(.*)", path):
            self.tree(found[1], found[2], "recursive=true" in self.path.lower())
        elif found := re.fullmatch(r"/(\w+/\w+/\w+)/resolve/\w+/(.*)", path):
            name = f"{found[1]}/{found[2]}"
            if name not in self.files:
                self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
                return
            mark = hashlib.sha1(self.files[name]).hexdigest()
            self.give(self.files[name], {"ETag": f'"{mark}"', "X-Repo-Commit": "0" * 40})
        else:
            self.answer(404, b"{}")

    def tree(self, repository: str, folder: str, deep: bool) -> None:
        """What lies in a folder."""
        start = f"{repository}/{folder}".rstrip("/") + "/"
        names = [n.removeprefix(f"{repository}/") for n in self.files if n.startswith(start)]
        if folder and not names:
            self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return
        rest = {name: name.removeprefix(folder).lstrip("/") for name in names}
        inner = {name.removesuffix(rest[name]) + rest[name].partition("/")[0] for name in names}
        shown = names if deep else [name for name in names if "/" not in rest[name]]
        folders = [] if deep else sorted(inner - set(names))
        self.json(
            [{"type": "directory", "oid": "0" * 40, "size": 0, "path": p} for p in folders]
            + [self.entry(repository, name) for name in sorted(shown)]
        )

    def entry(self, repository: str, name: str) -> dict[str, object]:
        """What is said of a file."""
        content = self.files[f"{repository}/{name}"]
        mark = hashlib.sha1(content).hexdigest()
        return {"type": "file", "oid": mark, "size": len(content), "path": name}

    def do_POST(self) -> None:
        """Facts of paths, or a commit."""
        path, body = unquote(self.path.partition("?")[0]), self.body()
        repository = "/".join(path.split("/")[2:5])
        if "/paths-info/" in path:
            sent = body.decode()
            asked = json.loads(sent)["paths"] if sent.startswith("{") else parse_qs(sent)["paths"]
            asked = [asked] if isinstance(asked, str) else asked
            there = [p for p in asked if f"{repository}/{p}" in self.files]
            start = [f"{repository}/{p}/" for p in asked]
            folders = [
                {"type": "directory", "oid": "0" * 40, "size": 0, "path": p}
                for p, begin in zip(asked, start)
                if any(name.startswith(begin) for name in self.files)
            ]
            self.json([*(self.entry(repository, p) for p in there), *folders])
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            self.json(
                {"files": [{**f, "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            )
        elif "/commit/" in path:
            self.commit(repository, [json.loads(line) for line in body.splitlines() if line])
        else:
            self.answer(404, b"{}")

    def commit(self, repository: str, lines: list[dict[str, dict[str, str]]]) -> None:
        """Take what a commit adds, and remove what it removes."""
        for line in lines:
            about = line["value"]
            if line["key"] == "file":
                self.files[f"{repository}/{about['path']}"] = base64.b64decode(about["content"])
            elif line["key"] == "deletedFile":
                self.files.pop(f"{repository}/{about['path']}", None)
        self.json({"commitUrl": f"http://127.0.0.1/{repository}/commit/0", "commitOid": "0" * 40})


class Blobs(Keeper):
    """Containers as Azure has them, at `/ACCOUNT/CONTAINER/PATH`; signatures are not looked at."""

    files: ClassVar[dict[str, bytes]] = {}
    blocks: ClassVar[dict[str, bytes]] = {}

    def place(self) -> tuple[str, dict[str, str]]:
        """The path below the account, and what was asked."""
        path, _, query = self.path.partition("?")
        asked = {key: values[0] for key, values in parse_qs(query, keep_blank_values=True).items()}
        return unquote(path).split("/", 2)[2], asked

    def about(self, content: bytes) -> dict[str, str]:
        """What is said of a blob."""
        mark = hashlib.sha1(content).hexdigest()
        return {"ETag": f'"{mark}"', "Last-Modified": DATE, "x-ms-blob-type": "BlockBlob"}

    def do_HEAD(self) -> None:
        """As `GET`."""
        self.do_GET()

    def do_GET(self) -> None:
        """A listing, or a blob."""
        name, asked = self.place()
        if asked.get("comp") == "list":
            self.listing(name, asked.get("prefix", ""), asked.get("delimiter", ""))
        elif asked.get("restype") == "container":
            self.answer(200, b"", {"ETag": '"0"', "Last-Modified": DATE})
        elif name in self.files:
            self.give(self.files[name], self.about(self.files[name]))
        else:
            self.answer(404, b"", {"x-ms-error-code": "BlobNotFound"})

    def listing(self, container: str, prefix: str, delimiter: str) -> None:
        """Blobs and folders whose names begin so."""
        names = [n.removeprefix(f"{container}/") for n in sorted(self.files)]
        names = [name for name in names if name.startswith(prefix)]
        folders: dict[str, None] = {}
        if delimiter:
            for name in names:
                head, found, _ = name.removeprefix(prefix).partition(delimiter)
                if found:
                    folders[f"{prefix}{head}{delimiter}"] = None
            names = [name for name in names if delimiter not in name.removeprefix(prefix)]
        blobs = "".join(self.told(container, name) for name in names)
        inner = "".join(f"<BlobPrefix><Name>{escape(n)}</Name></BlobPrefix>" for n in folders)
        begin = f'<EnumerationResults ContainerName="{escape(container)}">'
        whole = f"{begin}<Blobs>{blobs}{inner}</Blobs><NextMarker/></EnumerationResults>"
        self.answer(200, whole.encode(), {"Content-Type": "application/xml"})

    def told(self, container: str, name: str) -> str:
        """A blob in a listing."""
        content = self.files[f"{container}/{name}"]
        about = self.about(content)
        return (
            f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>{DATE}</Last-Modified>"
            f"<Etag>{about['ETag']}</Etag><Content-Length>{len(content)}</Content-Length>"
            f"<BlobType>BlockBlob</BlobType></Properties></Blob>"
        )

    def do_PUT(self) -> None:
        """A blob, one block of one, or the list of its blocks."""
        name, asked = self.place()
        content = self.body()
        if asked.get("comp") == "block":
            self.blocks[f"{name} {asked['blockid']}"] = content
        elif asked.get("comp") == "blocklist":
            ids = re.findall(r"<(?:Latest|Uncommitted|Committed)>([^<]+)<", content.decode())
            self.files[name] = b"".join(self.blocks.pop(f"{name} {each}") for each in ids)
        elif asked.get("restype") != "container":
            self.files[name] = content
        self.answer(201, b"", {"ETag": '"0"', "Last-Modified": DATE})

    def do_DELETE(self) -> None:
        """Remove a blob."""
        self.files.pop(self.place()[0], None)
        self.answer(202)


@contextmanager
def serving(kind: type[Keeper]) -> Iterator[str]:
    """The address of a stand-in, while the block lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
