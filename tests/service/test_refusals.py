"""What a service refuses, how it says so, and that nothing is left of who asked."""

import asyncio
import io
import struct
import time
import zlib

import pytest
from asking import png, talk
from PIL import Image

from doubtmap.errors import DataError, ModelError
from doubtmap.service import pictures
from doubtmap.service.web import _Answer


def huge_png(side):
    """A PNG that says it is large, and holds nothing."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def pages():
    stream = io.BytesIO()
    frame = Image.new("RGB", (8, 8))
    frame.save(stream, "TIFF", save_all=True, append_images=[frame])
    return stream.getvalue()


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
FORM = {"Content-Type": "multipart/form-data; boundary=x"}
BAD = {
    "nothing": (400, b"", {}),
    "truncated": (400, png()[:-400], {}),
    "zeros": (400, bytes(10_000_000), {}),
    "a vector drawing": (400, SVG, {}),
    "a vector drawing that says so": (415, SVG, {"Content-Type": "image/svg+xml"}),
    "JSON": (415, b"{}", {"Content-Type": "application/json"}),
    "a program": (400, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", {}),
    "an array": (400, b"\x93NUMPY\x01\x00", {}),
    "a huge header": (413, huge_png(50_000), {}),
    "a large header": (413, huge_png(5_000), {}),
    "pages": (400, pages(), {}),
    "a form without a boundary": (400, b"--x", {"Content-Type": "multipart/form-data"}),
    "a form without an end": (
        400,
        b"--x\r\nContent-Disposition: form-data; filename=a\r\n\r\n",
        FORM,
    ),
    "a form without a file": (
        400,
        b'--x\r\nContent-Disposition: form-data; name="path"\r\n\r\n/etc/passwd\r\n--x--\r\n',
        FORM,
    ),
    "no form": (400, png(), FORM),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_refused_in_one_sentence(ask, service, name):
    status, content, headers = BAD[name]
    response = ask("POST", "/doubt", content=content, headers=headers)
    assert response.status_code == status, response.text
    said = response.json()["error"]
    assert "expected" in said and "\n" not in said and len(said) < 400
    assert "/etc/passwd" not in said
    assert (service.queue.inside, service._received) == (0, 0)
    assert ask("POST", "/doubt", content=png()).status_code == 200


def test_what_is_compressed_is_refused_and_not_unpacked(ask):
    packed = zlib.compress(bytes(50_000_000))
    for path in ("/doubt", "/v2/models/tiny/infer"):
        response = ask("POST", path, content=packed, headers={"Content-Encoding": "deflate"})
        assert response.status_code == 415 and "compressed" in response.json()["error"]


def test_classes_in_too_many_runs_are_refused(ask, monkeypatch):
    monkeypatch.setattr(pictures, "_RUNS", 9)
    response = ask("POST", "/doubt", content=png())
    assert response.status_code == 413 and "Ask for classes=png" in response.json()["error"]
    assert ask("POST", "/doubt?classes=none", content=png()).status_code == 200


def test_two_files_are_refused(ask):
    files = [("a", ("a.png", png())), ("b", ("b.png", png()))]
    response = ask("POST", "/doubt", files=files)
    assert response.status_code == 400 and "one file in the form, got 2" in response.text


@pytest.mark.parametrize(
    "query",
    ["path=/etc/passwd", "answer=html", "score=logits", "threshold=nan", "threshold=a", "maps=x"],
)
def test_queries_that_are_not_known_are_refused(ask, query):
    response = ask("POST", f"/doubt?{query}", content=png())
    assert response.status_code == 400 and "expected" in response.json()["error"]


def test_narrow_images_count_as_networks_pad_them(served, ask):
    response = ask("POST", "/doubt", served(megapixels=0.1), content=png(1, 5000))
    assert response.status_code == 413 and "1 x 5000 x 1" in response.json()["error"]


def test_more_bytes_than_may_be_are_refused(served, ask):
    service = served(megabytes=0.001)
    response = ask("POST", "/doubt", service, content=png())
    assert response.status_code == 413 and "at most 0.001 MB" in response.json()["error"]

    async def parts():
        for start in range(0, len(png()), 100):
            yield png()[start : start + 100]

    response = ask("POST", "/doubt", service, content=parts())  # its length is not said
    assert response.status_code == 413
    assert service._received == 0


def test_all_that_is_being_received_has_a_bound(served, monkeypatch):
    service = served(megabytes=0.001)

    async def slowly():
        yield bytes(900)
        await asyncio.sleep(0.2)

    statuses = [
        response.status_code
        for response in asyncio.run(
            talk(service, *(("POST", "/doubt", {"content": slowly()}) for _ in range(12)))
        )
    ]
    assert statuses.count(503) == 4 and statuses.count(400) == 8
    assert service._received == 0


def test_who_sends_too_slowly_is_refused(served, ask):
    async def slowly():
        yield png()[:50]
        await asyncio.sleep(5)
        yield png()[50:]

    begun = time.monotonic()
    response = ask("POST", "/doubt", served(seconds=0.1), content=slowly())
    assert response.status_code == 408 and "within 0.1 s" in response.json()["error"]
    assert time.monotonic() - begun < 2


def test_who_goes_away_leaves_nothing_behind(service):
    messages = iter(
        [
            {"type": "http.request", "body": png()[:80], "more_body": True},
            {"type": "http.disconnect"},
        ]
    )
    scope = {
        **{"type": "http", "http_version": "1.1", "method": "POST", "path": "/doubt"},
        **{"raw_path": b"/doubt", "query_string": b"", "headers": [], "root_path": ""},
        **{"scheme": "http", "server": ("service", 80), "client": ("somebody", 1)},
    }
    sent = []

    async def receive():
        return next(messages)

    async def send(message):
        sent.append(message)

    asyncio.run(service.app(scope, receive, send))
    assert sent[0]["status"] == 400
    assert (service.queue.inside, service._received) == (0, 0)


def test_who_does_not_read_the_answer_is_let_go():
    parts = []

    async def send(message):
        parts.append(message)
        if len(parts) > 2:  # as a socket whose client reads no more
            await asyncio.sleep(60)

    response = _Answer(bytes(5_000_000), 200, {}, seconds=0.05)
    begun = time.monotonic()
    asyncio.run(response({"type": "http"}, None, send))
    assert time.monotonic() - begun < 5
    assert [part["type"] for part in parts] == ["http.response.start"] + ["http.response.body"] * 2
    assert all(len(part["body"]) <= 1_000_000 for part in parts[1:])


@pytest.fixture
def held(served, gate):
    """Makes services whose network waits at a gate."""
    gates = []

    def make(**limits):
        service = served(**limits)
        gates.append(gate(service.queue._work))
        service.queue._work = gates[-1]
        return service, gates[-1]

    yield make
    for each in gates:
        each.open.set()


def test_what_is_not_answered_in_time_is_refused(held, ask):
    service, gate = held(seconds=0.1)
    response = ask("POST", "/doubt", service, content=png())
    assert response.status_code == 503 and "within 0.1 s" in response.json()["error"]
    assert int(response.headers["retry-after"]) >= 1
    assert service.queue.inside == 0
    gate.open.set()
    assert ask("POST", "/doubt", service, content=png()).status_code == 200


def test_who_comes_when_the_queue_is_full_is_told_to_come_again(held):
    service, gate = held(queue=3)

    async def crowd():
        requests = [("POST", "/doubt", {"content": png(seed=seed)}) for seed in range(12)]
        asked = [asyncio.create_task(talk(service, request)) for request in requests]
        while sum(each.done() for each in asked) < 9:
            await asyncio.sleep(0.005)
        live = (await talk(service, ("GET", "/v2/health/live", {})))[0]
        assert live.status_code == 200  # while the network works, all else answers
        gate.open.set()
        return [(await each)[0] for each in asked]

    responses = asyncio.run(crowd())
    statuses = [response.status_code for response in responses]
    assert statuses.count(200) == 3 and statuses.count(429) == 9
    assert all("retry-after" in r.headers for r in responses if r.status_code == 429)


def test_a_service_that_stops_answers_who_waits_and_nobody_else(held):
    service, gate = held()

    async def end():
        waiting = asyncio.create_task(talk(service, ("POST", "/doubt", {"content": png()})))
        while not gate.begun.is_set():
            await asyncio.sleep(0.005)
        service.queue.stop()
        late, ready, live = await talk(
            *(service, ("POST", "/doubt", {"content": png()})),
            *(("GET", "/v2/health/ready", {}), ("GET", "/v2/health/live", {})),
        )
        gate.open.set()
        return (await waiting)[0], late, ready, live

    answered, late, ready, live = asyncio.run(end())
    assert [each.status_code for each in (answered, late, ready, live)] == [200, 503, 503, 200]
    assert "stopping" in late.json()["error"] and "retry-after" in late.headers


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (DataError("the image is odd"), 422, "the image is odd"),
        (ModelError("the network takes no such image"), 422, "takes no such image"),
        (RuntimeError("secret /home/somebody"), 500, "the service failed; its log says why."),
    ],
)
def test_what_fails_says_so_and_the_next_is_answered(service, ask, error, status, said):
    work, service.queue._work = service.queue._work, lambda images: (_ for _ in ()).throw(error)
    response = ask("POST", "/doubt", content=png())
    assert response.status_code == status
    assert said in response.json()["error"] and "secret" not in response.text
    service.queue._work = work
    assert ask("POST", "/doubt", content=png()).status_code == 200


def test_memory_that_ends_is_a_matter_of_time(service, ask):
    def work(images):
        raise DataError("out of memory on an image") from MemoryError()

    service.queue._work = work
    response = ask("POST", "/doubt", content=png())
    assert response.status_code == 503 and "retry-after" in response.headers
