"""The page over a run, for one person at this machine.

The standard library's threaded server is enough: one browser asks, decoding images takes the time,
and nothing is installed. It listens on 127.0.0.1 alone. Every address starts with a secret that
was drawn for this call, so that other pages in the browser and other people of the machine find
nothing, and the host that a request names must be this one, so that no foreign name leads here.
"""

from __future__ import annotations

import gzip
import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from doubtmap.errors import DataError, DoubtmapError
from doubtmap.files import utf8
from doubtmap.viewer.contents import KINDS, POLICY, index_content, page_files, readable
from doubtmap.viewer.gathering import Gathered
from doubtmap.viewer.verdicts import Verdicts

HOST = "127.0.0.1"
KEPT_THUMBNAILS = 4000
"""Thumbnails in memory, about 10 kB each."""
LONGEST = 100_000
"""Bytes of a request."""


@dataclass
class Answers:
    """What the server says, by address.

    Args:
        gathered: the runs.
        verdicts: on their images.
    """

    gathered: Gathered
    verdicts: Verdicts
    files: dict[str, bytes] = field(default_factory=page_files)
    _thumbs: OrderedDict[str, bytes] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.files["index.json"] = gzip.compress(index_content(self.gathered, "server"), 5)

    def get(self, address: str) -> bytes | str:
        """A content, or the sentence why there is none."""
        address = address or "index.html"
        if address in self.files:
            return self.files[address]
        if address == "verdicts.json":
            return json.dumps(self.verdicts.held).encode()
        if address == "verdicts.csv":
            return utf8(self.verdicts.table(self.gathered))
        return self._thumb(address) if address.startswith("thumbs/") else self._read(address)

    def _read(self, address: str) -> bytes | str:
        return readable(self.gathered, address)

    def _thumb(self, address: str) -> bytes | str:
        with self._lock:
            if address in self._thumbs:
                self._thumbs.move_to_end(address)
                return self._thumbs[address]
        content = self._read(address)
        if isinstance(content, bytes):
            with self._lock:
                self._thumbs[address] = content
                while len(self._thumbs) > KEPT_THUMBNAILS:
                    self._thumbs.popitem(last=False)
        return content

    def judge(self, content: bytes) -> None:
        """Take `{"image": number, "verdict": ..., "note": ...}`.

        Raises:
            DoubtmapError: for what cannot be meant, or a file that cannot be written.
        """
        try:
            said = json.loads(content)
            image = said["image"]
            if type(image) is not int or not 0 <= image < len(self.gathered.names):
                raise ValueError("no such image")
            self.verdicts.judge(self.gathered.names[image], said)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"verdict: expected an image and a verdict, got {error}.") from error


def make_server(gathered: Gathered, port: int = 0) -> tuple[ThreadingHTTPServer, str]:
    """A server that is bound and does not serve yet, and the address of its page.

    Args:
        gathered: the runs.
        port: to listen on; 0: any that is free.

    Raises:
        DataError: for a port that is taken, or verdicts that cannot be read.
    """
    answers, secret = Answers(gathered, Verdicts.of(gathered)), secrets.token_urlsafe(16)
    try:
        server = _Server((HOST, port), _handler(answers, secret))
    except OSError as error:
        raise DataError(
            f"{HOST}:{port}: cannot be listened on ({error.strerror or error}). Choose another "
            f"--port, or leave it out."
        ) from error
    return server, f"http://{HOST}:{server.server_address[1]}/{secret}/"


def serve(gathered: Gathered, port: int, ready: Callable[[str], None]) -> None:
    """Serve until the process is stopped.

    Args:
        gathered: the runs.
        port: to listen on; 0: any that is free.
        ready: told the address of the page.

    Raises:
        DataError: as `make_server`.
    """
    server, address = make_server(gathered, port)
    with server:
        ready(address)
        server.serve_forever()


class _Server(ThreadingHTTPServer):
    """Lets go of requests that are under way when the process ends."""

    daemon_threads = True
    block_on_close = False


def _handler(answers: Answers, secret: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = "doubtmap"
        sys_version = ""

        def do_GET(self) -> None:
            address = self._address()
            if address is None:
                return self._say(404, b"There is nothing here.", "text/plain")
            content = answers.get(address)
            if isinstance(content, str):
                return self._say(404, utf8(content), "text/plain; charset=utf-8")
            kind = KINDS[(address or "index.html").rsplit(".", 1)[-1]]
            return self._say(200, content, kind, address)

        do_HEAD = do_GET

        def do_POST(self) -> None:
            size = self.headers.get("Content-Length", "")
            content = (
                self.rfile.read(int(size)) if size.isdecimal() and int(size) <= LONGEST else b""
            )
            if self._address() != "verdicts.json" or not content:
                self.close_connection = True
                return self._say(404, b"There is nothing here.", "text/plain")
            try:
                answers.judge(content)
            except DoubtmapError as error:
                return self._say(400, utf8(str(error)), "text/plain; charset=utf-8")
            return self._say(200, b"{}", KINDS["json"])

        def _address(self) -> str | None:
            """What is asked for below the secret; None where that, or the host, is not ours."""
            port = self.server.server_address[1]  # type: ignore[index]
            if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
                return None
            start, _, address = self.path.partition("?")[0].removeprefix("/").partition("/")
            same = secrets.compare_digest(start.encode(), secret.encode())
            return address if same else None

        def _say(self, status: int, content: bytes, kind: str, address: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Security-Policy", POLICY)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Referrer-Policy", "no-referrer")
            self.send_header("Cross-Origin-Resource-Policy", "same-origin")
            lasting = address.startswith(("thumbs/", "images/", "maps/"))
            self.send_header("Cache-Control", "private, max-age=3600" if lasting else "no-store")
            if address == "index.json":
                self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:
                self.close_connection = True  # the browser went on to something else

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: the terminal is for sentences."""

    return Handler
