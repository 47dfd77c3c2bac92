"""A store on this machine, for tests: buckets as S3 has them, and files as a web server has."""

import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest


class Store(BaseHTTPRequestHandler):
    """As much of S3 and of a web server as is used: ranges, listings, writing, and refusals."""

    protocol_version = "HTTP/1.1"
    files: ClassVar = {}
    asked: ClassVar = []
    refused: ClassVar = set()

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        path, _, query = self.path.partition("?")
        self.asked.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
        if path.startswith("/closed/"):
            return self.answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        if path.startswith("/nobucket"):
            return self.answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
        if "list-type" in query or "prefix" in query:
            return self.answer(200, self.listing(path, query))
        if path not in self.files:
            return self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        content = self.files[path]
        found = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        about = {"ETag": f'"{hash(content)}"', "Accept-Ranges": "bytes"}
        if not found:
            return self.answer(200, content, about, body, cut="torn" in path)
        first, last = int(found[1]), min(int(found[2] or len(content)), len(content) - 1)
        about["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return self.answer(206, content[first : last + 1], about, body, cut="torn" in path)

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.partition("?")[0]
        self.asked.append(f"PUT {path}")
        if "aws-chunked" in self.headers.get("Content-Encoding", ""):
            content = unchunked(content)
        if path.startswith(("/closed/", "/readonly/")) or path in self.refused:
            return self.answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        self.files[path] = content
        return self.answer(200, b"", {"ETag": f'"{hash(content)}"'})

    def do_DELETE(self):
        self.files.pop(self.path.partition("?")[0], None)
        return self.answer(204, b"")

    def answer(self, code, content, about=None, body=True, cut=False):
        self.send_response(code)
        for key, value in ({"Content-Type": "application/xml"} | (about or {})).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self.close_connection = True

    def listing(self, path, query):
        prefix = re.search(r"prefix=([^&]*)", query)
        start = f"{path.rstrip('/')}/{prefix[1].replace('%2F', '/') if prefix else ''}"
        names = [name for name in sorted(self.files) if name.startswith(start)]
        folders = set()
        if "delimiter=%2F" in query or "delimiter=/" in query:
            rest = {name: name.removeprefix(start) for name in names}
            folders = {f"{start}{rest[n].split('/')[0]}/" for n in names if "/" in rest[n]}
            names = [name for name in names if "/" not in rest[name]]
        keys = "".join(
            f"<Contents><Key>{name.split('/', 2)[2]}</Key><Size>{len(self.files[name])}</Size>"
            f"<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>1</ETag></Contents>"
            for name in names
        )
        count = f"<KeyCount>{len(names)}</KeyCount><IsTruncated>false</IsTruncated>"
        keys += "".join(
            f"<CommonPrefixes><Prefix>{folder.split('/', 2)[2]}</Prefix></CommonPrefixes>"
            for folder in sorted(folders)
        )
        return f"<ListBucketResult>{count}{keys}</ListBucketResult>".encode()


def unchunked(content):
    """The content of a body that is sent in chunks, each after its size."""
    whole = b""
    while content:
        size, _, rest = content.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        if length == 0:
            break
        whole, content = whole + rest[:length], rest[length + 2 :]
    return whole


@contextmanager
def serving():
    """The address of a server, while the block lasts; what was opened at another is forgotten."""
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    s3fs.S3FileSystem.clear_instance_cache()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def as_buckets(address, monkeypatch):
    """Let libraries take a server for S3."""
    for name in ("AWS_S3_ENDPOINT", "AWS_HTTPS", "AWS_VIRTUAL_HOSTING"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
