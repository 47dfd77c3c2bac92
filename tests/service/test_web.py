"""The service asked over HTTP, without sockets: what it says is what `doubtmap score` writes."""

import asyncio
import base64
import io
import json
import os
import re

import numpy as np
import pytest
import torch
from asking import png, talk
from PIL import Image

import doubtmap as dm
from doubtmap.errors import ModelError, UsageError
from doubtmap.images import write_scores
from doubtmap.service.answers import Answering
from doubtmap.service.page import page
from doubtmap.service.web import Service

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
        while not (held.begun.is_set() and service.queue.waiting == 4):
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
