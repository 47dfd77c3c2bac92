"""The service asked over HTTP, without sockets: what it says is what `doubtmap score` writes."""

import asyncio
import base64
import io
import json
import os
import re
import struct
import time
import zlib

import numpy as np
import pytest
import torch
from asking import png, talk
from PIL import Image

import doubtmap as dm
from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.images import write_scores
from doubtmap.service import pictures
from doubtmap.service.answers import Answering
from doubtmap.service.page import page
from doubtmap.service.web import Service, _Answer

SCORES = {"entropy": dm.scores.entropy, "energy": dm.scores.energy}


def tensors(response):
    """The arrays of a response of the protocol."""
    length = int(response.headers.get("Inference-Header-Content-Length", len(response.content)))
    said, place, found = json.loads(response.content[:length]), length, {}
    for output in said["outputs"]:
        kind = {"UINT8": np.uint8, "INT32": np.int32, "FP32": np.float32}[output["datatype"]]
        if "data" in output:
            values = np.array(output["data"], kind)
        else:
            size = output["parameters"]["binary_data_size"]
            values = np.frombuffer(response.content[place : place + size], kind)
            place += size
        found[output["name"]] = values.reshape(output["shape"])
    return found


@pytest.fixture
def scored(segmenter, tmp_path):
    """What `doubtmap score` writes of the image `png()`, in a format."""

    def write(format, content=None):
        (tmp_path / "a.png").write_bytes(content or png())
        out = tmp_path / format
        write_scores(segmenter, [tmp_path / "a.png"], SCORES, out, format=format)
        return out

    return write


def pixels_of(data):
    image = Image.open(io.BytesIO(data))
    return (
        image.mode,
        image.size,
        image.getpalette(),
        image.info["doubtmap:classes"],
        image.tobytes(),
    )


@pytest.mark.parametrize("sent", ["body", "form"])
def test_pictures_are_the_files_of_score(ask, scored, sent):
    out = scored("png")
    more = {"content": png()} if sent == "body" else {"files": {"image": ("../a", png())}}
    for query, file in (
        ("?answer=classes", "classes/a.png"),
        ("?answer=doubt", "entropy/a.png"),
        ("?answer=doubt&score=energy", "energy/a.png"),
    ):
        response = ask("POST", f"/doubt{query}", **more)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "image/png"
        written = (out / file).read_bytes()
        if file.startswith("classes"):  # the file also carries figures of its image
            assert pixels_of(response.content) == pixels_of(written)
        else:
            assert response.content == written


def test_numbers_are_those_of_score_to_the_last_digit(ask, scored):
    out = scored("npy")
    expected = {name: np.load(out / name / "a.npy") for name in SCORES}
    expected["classes"] = np.asarray(Image.open(out / "classes/a.png"))
    pixels = np.asarray(Image.open(io.BytesIO(png()))).transpose(2, 0, 1)[None]
    given = {"name": "images", "shape": list(pixels.shape), "datatype": "UINT8"}
    listed = {"inputs": [given | {"data": pixels.ravel().tolist()}]}
    header = {"parameters": {"binary_data_size": pixels.size}}
    head = json.dumps(
        {"inputs": [given | header], "parameters": {"binary_data_output": True}}
    ).encode()
    responses = [
        ask("POST", "/doubt?answer=tensors", content=png()),
        ask("POST", "/v2/models/tiny/infer", json=listed),
        ask(
            *("POST", "/v2/models/tiny/versions/1/infer"),
            content=head + pixels.tobytes(),
            headers={"Inference-Header-Content-Length": str(len(head))},
        ),
    ]
    for response in responses:
        assert response.status_code == 200, response.text
        found = tensors(response)
        assert set(found) == set(expected)
        for name, values in expected.items():
            assert found[name].shape == (1, 24, 40)
            assert np.array_equal(found[name][0], values), name


def test_json_says_what_the_maps_say(ask, scored):
    out = scored("npy")
    classes = np.asarray(Image.open(out / "classes/a.png"))
    entropy, energy = (np.load(out / name / "a.npy") for name in SCORES)
    limit = float(np.median(entropy))
    said = ask("POST", f"/doubt?threshold={limit!r}&maps=png", content=png()).json()
    assert said["size"] == [24, 40] and said["model"] == "tiny"
    runs = np.array(said["classes"]["runs"])
    assert np.array_equal(np.repeat(runs[:, 0], runs[:, 1]), classes.ravel())
    names = said["class_names"]
    assert said["shares"] == {names[k]: (classes == k).mean() for k in np.unique(classes)}
    about = said["scores"]["entropy"]
    assert about["mean"] == pytest.approx(entropy.mean(dtype=np.float64), rel=1e-12)
    assert (about["lowest"], about["highest"]) == (entropy.min(), entropy.max())
    assert (about["threshold"], about["above"]) == (limit, (entropy > np.float32(limit)).mean())
    assert said["scores"]["energy"]["threshold"] is said["scores"]["energy"]["above"] is None
    assert said["scores"]["energy"]["mean"] == pytest.approx(energy.mean(dtype=np.float64))
    picture = base64.b64decode(about["png"])
    assert picture == (scored("png") / "entropy/a.png").read_bytes()
    short = ask("POST", "/doubt?classes=none", content=png()).json()
    assert "classes" not in short
    coded = ask("POST", "/doubt?classes=png", content=png()).json()["classes"]["png"]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(coded)))), classes)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("image/png", "image/png"),
        ("text/html, image/png;q=0.5", "image/png"),
        ("application/octet-stream", "application/octet-stream"),
        ("application/json, image/png", "application/json"),
    ],
)
def test_the_form_is_that_which_the_client_accepts(ask, accept, kind):
    response = ask("POST", "/doubt", content=png(), headers={"Accept": accept})
    assert response.headers["content-type"] == kind


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_images_of_other_formats_are_read_as_score_reads_them(ask, scored, form):
    content = png(form=form)
    response = ask("POST", "/doubt?answer=doubt", content=content)
    assert response.status_code == 200, response.text
    assert response.content == (scored("png", content) / "entropy/a.png").read_bytes()


def test_images_too_large_for_memory_go_through_windows_as_in_score(
    segmenter, served, ask, tmp_path, monkeypatch
):
    from doubtmap.windows import automatic

    monkeypatch.setattr(automatic, "memory_of", lambda device: 2 * 2048.0 * 40_000)
    about = Answering("tiny", segmenter, SCORES)
    content = png(40, 1100)
    (tmp_path / "a.png").write_bytes(content)
    through, note = automatic.for_images(segmenter, [(40, 1100)])
    assert note is not None
    write_scores(through, [tmp_path / "a.png"], SCORES, tmp_path / "out")
    service = Service(about, served().limits)
    pictures = ask("POST", "/doubt?answer=doubt", service, content=content)
    assert pictures.content == (tmp_path / "out/entropy/a.png").read_bytes()
    said = ask("POST", "/doubt", service, content=content).json()["notes"]
    assert note in said
    monkeypatch.setattr(automatic, "memory_of", lambda device: float("inf"))
    assert pictures.content != ask("POST", "/doubt?answer=doubt", content=content).content
    assert service.join(10)


def test_photographs_are_turned_upright(ask):
    turned = Image.Exif()
    turned[0x0112] = 6
    said = ask("POST", "/doubt", content=png(exif=turned, form="JPEG")).json()
    assert said["size"] == [40, 24]


def test_a_batch_says_what_images_alone_say(served, ask, gate):
    contents = [png(seed=seed) for seed in range(4)]
    alone = [tensors(ask("POST", "/doubt?answer=tensors", content=each)) for each in contents]
    service = served(batch=4)
    service.queue._work = held = gate(service.queue._work)

    async def together():
        requests = [("POST", "/doubt?answer=tensors", {"content": each}) for each in contents]
        first = asyncio.create_task(talk(service, ("POST", "/doubt", {"content": png(9, 9)})))
        rest = asyncio.create_task(talk(service, *requests))
        while service.queue.waiting < 4:
            await asyncio.sleep(0.005)
        held.open.set()
        await first
        return await rest

    found = [tensors(each) for each in asyncio.run(together())]
    assert [shape[0] for shape in held.batches] == [1, 4]
    for one, other in zip(alone, found):
        assert np.array_equal(one["classes"], other["classes"])
        for name in SCORES:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=1e-6)
    images = np.stack([np.asarray(Image.open(io.BytesIO(each))) for each in contents])
    given = {"name": "images", "shape": [4, 3, 24, 40], "datatype": "UINT8"}
    given["data"] = images.transpose(0, 3, 1, 2).ravel().tolist()
    several = tensors(ask("POST", "/v2/models/tiny/infer", json={"inputs": [given]}))
    for name in SCORES:  # asked one by one where the batch is 1: to the last digit
        assert np.array_equal(several[name], np.concatenate([one[name] for one in alone]))


def test_the_protocol_says_who_is_there(ask):
    assert ask("GET", "/v2").json()["extensions"] == ["binary_tensor_data"]
    assert ask("GET", "/v2/health/live").json() == {"live": True}
    assert ask("GET", "/v2/health/ready").json() == {"ready": True}
    assert ask("GET", "/v2/models/tiny").json()["outputs"][1]["name"] == "entropy"
    assert ask("GET", "/v2/models/tiny/ready").json() == {"name": "tiny", "ready": True}
    for path in ("other", "tiny/versions/2", "..%2f..%2fetc%2fpasswd", "tiny%00"):
        for method, end in (("GET", ""), ("GET", "/ready"), ("POST", "/infer")):
            response = ask(method, f"/v2/models/{path}{end}")
            assert response.status_code == 404 and "expected" in response.json()["error"], path
    assert ask("GET", "/../../etc/passwd").status_code == 404
    assert ask("GET", "/doubt").status_code == 405


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


def test_figures_for_prometheus_count_what_was_asked(ask):
    for content in (png(), png(), b"no image"):
        ask("POST", "/doubt", content=content)
    text = ask("GET", "/metrics").text
    assert 'doubtmap_requests_total{status="200",way="doubt"} 2.0' in text
    assert 'doubtmap_requests_total{status="400",way="doubt"} 1.0' in text
    assert 'doubtmap_request_seconds_count{way="doubt"} 3.0' in text
    assert f"doubtmap_pixels_total {2 * 24 * 40}.0" in text
    assert "doubtmap_waiting_images 0.0" in text and "doubtmap_requests_inside 0.0" in text
    assert "doubtmap_batch_images_count 2.0" in text


def test_the_page_runs_one_script_and_loads_nothing(ask, service):
    response = ask("GET", "/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy and "connect-src 'self'" in policy
    assert re.findall(r"(?:src|href)=", response.text) == []
    assert not re.findall(r"https?://(?!HOST)", response.text)
    assert response.headers["x-content-type-options"] == "nosniff"


def test_names_in_the_page_are_escaped(segmenter, served):
    class Named:
        class_names = ('"><script>alert(1)</script>', *segmenter.class_names[1:])
        description = segmenter.description

        def __call__(self, images):
            return segmenter(images)

    about = Answering("tiny", Named(), SCORES | {"<b>": dm.scores.margin})
    content = page(about, served().limits)[0].decode()
    assert content.count("<script>") == 1 and ", <b>:" not in content


def test_nothing_that_was_sent_is_written(ask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    opened, real = [], os.open
    monkeypatch.setattr(
        os, "open", lambda *given, **more: opened.append(given) or real(*given, **more)
    )
    large = png(700, 900, form="BMP")
    assert len(large) > 1_500_000  # more than readers of forms keep in memory
    assert ask("POST", "/doubt", files={"image": ("a.bmp", large)}).status_code == 200
    assert list(tmp_path.iterdir()) == [] and opened == []


def test_a_threshold_belongs_to_its_score(segmenter, streets, served):
    from doubtmap.decisions import choose_threshold

    chosen = choose_threshold(segmenter, streets, "entropy", of="wrong", by="f1")
    about = Answering("tiny", segmenter, SCORES, chosen)
    assert about.thresholds == {"entropy": chosen.threshold}
    for name in ("a/b", "", "..", "a b"):
        with pytest.raises(UsageError, match="expected --name of letters"):
            Answering(name, segmenter, SCORES)
    with pytest.raises(UsageError, match="expected entropy among the scores"):
        Answering("tiny", segmenter, {"energy": dm.scores.energy}, chosen)
    torch.manual_seed(5)
    other = dm.load(torch.nn.Conv2d(3, 8, 1), classes=segmenter.class_names)
    with pytest.raises(ModelError, match="expected the network that it was chosen for"):
        Answering("tiny", other, SCORES, chosen)
