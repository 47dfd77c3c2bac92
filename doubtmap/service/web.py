"""The service as a web application; this is the one place that knows FastAPI and uvicorn."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import FrameType
from typing import Any, TypeVar

import torch
import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from doubtmap.errors import DoubtmapError, UsageError, is_out_of_memory
from doubtmap.service.answers import Answer, Answering
from doubtmap.service.limits import Limits, Refusal, too_many_bytes
from doubtmap.service.metrics import FORM, Metrics
from doubtmap.service.page import page
from doubtmap.service.pictures import read_wanted, written
from doubtmap.service.protocol import HEADER, VERSION, model, read_request, server, write_answer
from doubtmap.service.queue import Queue, too_late
from doubtmap.service.uploads import file_in, image_of

log = logging.getLogger("doubtmap")
T = TypeVar("T")
_READERS = 2
"""Threads that decode images and encode answers, so that the event loop never does."""
_RECEIVED = 8
"""Times the bytes of a request, that all requests being received may have."""
_LINGER = 2.0
"""Seconds in which a client that is refused may finish what it sends."""
_PART, _SENDING = 1_000_000, 60.0
"""Bytes of an answer that are sent at a time, and seconds in which all of it must be read."""
_CONNECTIONS = 512
"""Connections at a time; more hear 503."""
_STRAY = {
    404: "expected a path of this service, such as /doubt or /v2, got another.",
    405: "expected POST for /doubt and infer, GET for all else, got another method.",
}
_SAFE = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class _Answer(Response):
    """Sent in parts, so that a client which does not read holds neither memory nor a task.

    Args:
        content: the body.
        status: of HTTP.
        headers: all of them.
        seconds: until it must have been read.
    """

    def __init__(
        self, content: bytes, status: int, headers: dict[str, str], seconds: float = _SENDING
    ) -> None:
        super().__init__(content, status, headers)
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; what is not read in time is dropped, and the connection with it."""
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        try:
            async with asyncio.timeout(self.seconds):
                for at in range(0, len(self.body), _PART):
                    part = self.body[at : at + _PART]
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            log.info("an answer was not read within %g s", self.seconds)


class Service:
    """One network behind one address: what is asked for, from the request to the response.

    Args:
        answering: the network and its scores.
        limits: on requests.
    """

    def __init__(self, answering: Answering, limits: Limits) -> None:
        self.answering, self.limits = answering, limits
        self.metrics = Metrics()
        self.queue: Queue[Answer] = Queue(answering, limits, self.metrics.ran)
        self.metrics.watch(lambda: self.queue.waiting, lambda: self.queue.inside)
        self._pool = ThreadPoolExecutor(_READERS, thread_name_prefix="doubtmap-serve")
        self._received = 0
        self.app = self._app()

    def join(self, seconds: float | None = None) -> bool:
        """Stop, and wait until all are answered and the threads have ended; whether they have."""
        ended = self.queue.join(seconds)
        self._pool.shutdown(wait=ended, cancel_futures=True)
        return ended

    def _app(self) -> FastAPI:
        app = FastAPI(title="doubtmap", docs_url=None, redoc_url=None, openapi_url=None)
        for path, answer in (
            ("/", self._page),
            ("/metrics", self._metrics),
            ("/v2", self._server),
            ("/v2/health/live", self._live),
            ("/v2/health/ready", self._ready),
        ):
            app.add_api_route(path, answer, methods=["GET", "HEAD"])
        for of_version in ("", "/versions/{version}"):
            start = "/v2/models/{name}" + of_version
            app.add_api_route(start, self._model, methods=["GET"])
            app.add_api_route(f"{start}/ready", self._model_ready, methods=["GET"])
            app.add_api_route(f"{start}/infer", self._infer, methods=["POST"])
        app.add_api_route("/doubt", self._doubt, methods=["POST"])
        for status, sentence in _STRAY.items():
            app.add_exception_handler(status, _always(status, sentence))
        return app

    async def _page(self, request: Request) -> Response:
        content, policy = page(self.answering, self.limits)
        return _response(content, "text/html; charset=utf-8", {"Content-Security-Policy": policy})

    async def _metrics(self, request: Request) -> Response:
        return _response(self.metrics.text(), FORM)

    async def _server(self, request: Request) -> Response:
        return _json(server())

    async def _live(self, request: Request) -> Response:
        return _json({"live": True})

    async def _ready(self, request: Request) -> Response:
        ready = not self.queue.stopping
        return _json({"ready": ready}, 200 if ready else 503)

    async def _model(self, request: Request) -> Response:
        return self._stray(request) or _json(model(self.answering))

    async def _model_ready(self, request: Request) -> Response:
        ready = not self.queue.stopping
        said = {"name": self.answering.name, "ready": ready}
        return self._stray(request) or _json(said, 200 if ready else 503)

    def _stray(self, request: Request) -> Response | None:
        """The answer to who asks for a model that is not served."""
        name, version = (request.path_params.get(key) for key in ("name", "version"))
        if name == self.answering.name and version in (None, VERSION):
            return None
        return _refused(Refusal(404, f"expected the model {self.answering.name}, got another."))

    async def _infer(self, request: Request) -> Response:
        async def answer(content: bytes) -> Response:
            length = request.headers.get(HEADER)
            asked = await self._run(
                lambda: read_request(content, length, self.answering, self.limits)
            )
            answers = await self._answers(asked.images)
            name = self.answering.name
            body, head = await self._run(
                lambda: write_answer(asked.outputs, answers, name, asked.id)
            )
            if not any(asked.outputs.values()):
                return _response(body, "application/json")
            return _response(body, "application/octet-stream", {HEADER: str(head)})

        return self._stray(request) or await self._handled("v2", request, answer)

    async def _doubt(self, request: Request) -> Response:
        async def answer(content: bytes) -> Response:
            headers, about = request.headers, self.answering
            wanted = read_wanted(request.query_params, headers.get("accept", ""), about)
            kind = headers.get("content-type", "")
            image = await self._run(
                lambda: image_of(file_in(content, kind), about.rendering, self.limits)
            )
            (found,) = await self._answers(image[None])
            return _response(*await self._run(lambda: written(found, wanted, about)))

        return await self._handled("doubt", request, answer)

    async def _handled(
        self, way: str, request: Request, answer: Callable[[bytes], Awaitable[Response]]
    ) -> Response:
        """A request taken in, let in and answered, or refused; counted in any case."""
        begun = time.monotonic()
        try:
            content = await self._body(request)
            begun = time.monotonic()
            with self.queue.admitted():
                async with asyncio.timeout(self.limits.seconds):
                    response = await answer(content)
        except TimeoutError:
            response = _refused(too_late(self.limits, self.queue.again))
        except Refusal as refusal:
            response = _refused(refusal)
        except DoubtmapError as error:
            lacking = error.__cause__ is not None and is_out_of_memory(error.__cause__)
            again = self.queue.again if lacking else None
            response = _refused(Refusal(503 if lacking else 422, str(error), again))
        except Exception:
            log.exception("a request to /%s failed", way)
            response = _refused(Refusal(500, "the service failed; its log says why."))
        self.metrics.answered(way, response.status_code, time.monotonic() - begun)
        return response

    async def _answers(self, images: torch.Tensor) -> list[Answer]:
        """What the network says, once it is their turn."""
        waiting = [asyncio.wrap_future(each) for each in self.queue.put(images)]
        answers = await asyncio.gather(*waiting)
        self.metrics.seen(images.shape[0] * images.shape[-2] * images.shape[-1])
        return answers

    async def _run(self, work: Callable[[], T]) -> T:
        """Do what takes time where the event loop does not wait for it."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def _body(self, request: Request) -> bytes:
        """The bytes of a request, as far as they are few and come in time.

        Raises:
            Refusal: 408, 413, 415, 429 or 503.
        """
        said = request.headers.get("content-length", "")
        try:
            self.queue.check_room()
            if request.headers.get("content-encoding", "identity").lower() != "identity":
                raise Refusal(415, "expected a body as it is, got a compressed one. Send it plain.")
            if said.isdecimal() and int(said[:20]) > self.limits.bytes:
                raise too_many_bytes(self.limits)
        except Refusal:
            await self._let_go(request)
            raise
        kept = bytearray()
        try:
            async with asyncio.timeout(self.limits.seconds):
                async for chunk in request.stream():
                    kept += chunk
                    self._received += len(chunk)
                    if len(kept) > self.limits.bytes:
                        raise too_many_bytes(self.limits)
                    if self._received > _RECEIVED * self.limits.bytes:
                        raise Refusal(503, "too much is being received. Try again.", 1)
        except TimeoutError as error:
            sentence = f"expected all of the request within {self.limits.seconds:g} s, got a part."
            raise Refusal(408, f"{sentence} Send it faster, or a smaller one.") from error
        except ClientDisconnect as error:
            raise Refusal(400, "expected a whole request, got a part.") from error
        finally:
            self._received -= len(kept)
        return bytes(kept)

    async def _let_go(self, request: Request) -> None:
        """Read past what is refused, within bounds: who is still sending hears no answer."""
        if "expect" in request.headers:
            return
        left = self.limits.bytes
        with suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(min(self.limits.seconds, _LINGER)):
                async for chunk in request.stream():
                    left -= len(chunk)
                    if left < 0:
                        return


def _response(
    content: bytes, kind: str, headers: dict[str, str] | None = None, status: int = 200
) -> Response:
    every = {"Content-Type": kind, **_SAFE, **(headers or {})}
    return _Answer(content, status, every)


def _json(
    said: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    return _response(json.dumps(said).encode(), "application/json", headers, status)


def _refused(refusal: Refusal) -> Response:
    again = {} if refusal.again is None else {"Retry-After": str(refusal.again)}
    return _json({"error": str(refusal)}, refusal.status, again)


def _always(status: int, sentence: str) -> Callable[[Request, Exception], Awaitable[Response]]:
    """What answers stray requests."""

    async def answer(request: Request, error: Exception) -> Response:
        return _refused(Refusal(status, sentence))

    return answer


class _Server(uvicorn.Server):
    """Stops when it is told to: who is inside is answered, who comes hears 503 until then."""

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        ready: Callable[[], None],
        stop: Callable[[], bool],
    ) -> None:
        super().__init__(config)
        self._service, self._ready, self._stop = service, ready, stop
        self._told = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Of a signal: the second ends it at once."""
        self.should_exit = self.force_exit = self._told
        self._told = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and say so."""
        await super().startup(sockets)
        self._ready()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether all is done."""
        if self._told or self._stop():
            self._service.queue.stop()
            self.should_exit = self.should_exit or not self._service.queue.inside
        return await super().on_tick(counter)


def serve(
    service: Service,
    host: str,
    port: int,
    ready: Callable[[str], None],
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Listen until SIGTERM or SIGINT; then answer who is inside, and return.

    Args:
        service: what is served.
        host: address to listen at.
        port: of it; 0 takes a free one.
        ready: told the address, once requests are taken.
        stop: asked ten times a second whether to end as on SIGTERM, which the main thread hears.

    Raises:
        UsageError: for an address that cannot be listened at.
    """
    try:
        with _listening(host, port) as listening:
            name = f"[{host}]" if ":" in host else host
            address = f"http://{name}:{listening.getsockname()[1]}"
            server = _Server(_config(service), service, lambda: ready(address), stop)
            asyncio.run(server.serve([listening]))
    finally:
        service.join(service.limits.seconds)


def _config(service: Service) -> uvicorn.Config:
    """Of uvicorn."""
    return uvicorn.Config(
        service.app,
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        lifespan="off",
        ws="none",
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=max(1, round(service.limits.seconds)),
    )


def _listening(host: str, port: int) -> socket.socket:
    """A socket of the first kind that the host's name stands for."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return socket.create_server(found[0][4][:2], family=found[0][0])
    except (OSError, OverflowError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(
            f"serve: expected an address to listen at, got {host}, port {port} ({why}). Give "
            f"another with --host and --port."
        ) from error
