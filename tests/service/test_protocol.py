"""The open inference protocol: JSON and bytes say the same, and what is wrong is refused."""

import json
import struct

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doubtmap.service import protocol
from doubtmap.service.answers import Answer
from doubtmap.service.limits import Limits, Refusal
from doubtmap.service.protocol import read_request, write_answer


class Tiny:
    """What the protocol must know of who answers."""

    name, bands, classes = "tiny", 0, 8
    scores = dict.fromkeys(("entropy", "energy"))


def body(values, kind="UINT8", **more):
    given = {"name": "images", "shape": list(values.shape), "datatype": kind}
    return {"inputs": [given | {"data": values.tolist()}], **more}


def packed(values, kind="UINT8", tail=None, **more):
    content = values.tobytes() if tail is None else tail
    about = body(values, kind, **more)
    del about["inputs"][0]["data"]
    about["inputs"][0]["parameters"] = {"binary_data_size": len(content)}
    head = json.dumps(about).encode()
    return head + content, str(len(head))


def read(content, length=None, limits=None):
    return read_request(content, length, Tiny, limits or Limits())


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 3), st.just(3), st.integers(1, 4), st.integers(1, 4)),
    seed=st.integers(0, 99),
    kind=st.sampled_from(["UINT8", "FP32"]),
    nested=st.booleans(),
)
def test_lists_and_bytes_are_the_same_images(shape, seed, kind, nested):
    generator = np.random.default_rng(seed)
    values = generator.integers(0, 256, shape, np.uint8)
    if kind == "FP32":
        values = (values / 255).astype(np.float32)
    listed = body(values, kind)
    if not nested:
        listed["inputs"][0]["data"] = values.ravel().tolist()
    for asked in (read(json.dumps(listed).encode()), read(*packed(values, kind))):
        assert asked.images.dtype == (torch.uint8 if kind == "UINT8" else torch.float32)
        assert np.array_equal(asked.images.numpy(), values)
        assert asked.outputs == {"classes": False, "entropy": False, "energy": False}


IMAGES = np.arange(24, dtype=np.uint8).reshape(1, 3, 2, 4)


def test_outputs_are_those_that_are_asked_for_each_as_it_is_wanted():
    outputs = [{"name": "energy"}, {"name": "classes", "parameters": {"binary_data": False}}]
    more = {"outputs": outputs, "parameters": {"binary_data_output": True}, "id": "7"}
    asked = read(json.dumps(body(IMAGES, **more)).encode())
    assert (asked.outputs, asked.id) == ({"energy": True, "classes": False}, "7")


def test_answers_in_lists_and_in_bytes_are_the_same():
    generator = np.random.default_rng(0)
    answers = [
        Answer(
            generator.integers(0, 8, (2, 3)).astype(np.uint8),
            {name: generator.normal(size=(2, 3)).astype(np.float32) for name in Tiny.scores},
        )
        for _ in range(2)
    ]
    wanted = {"energy": True, "classes": False, "entropy": True}
    content, length = write_answer(wanted, answers, "tiny", "a")
    said = json.loads(content[:length])
    assert (said["model_name"], said["model_version"], said["id"]) == ("tiny", "1", "a")
    energy, classes, entropy = said["outputs"]
    assert classes["data"] == np.stack([each.classes for each in answers]).ravel().tolist()
    assert [each["shape"] for each in said["outputs"]] == [[2, 2, 3]] * 3
    place = length
    for output in (energy, entropy):
        size = output["parameters"]["binary_data_size"]
        found = struct.unpack(f"<{size // 4}f", content[place : place + size])
        expected = np.stack([each.doubts[output["name"]] for each in answers])
        assert np.array_equal(np.float32(found), expected.ravel())
        place += size
    assert place == len(content)
    plain, whole = write_answer(dict.fromkeys(wanted, False), answers, "tiny")
    assert whole == len(plain)
    listed = {each["name"]: each["data"] for each in json.loads(plain)["outputs"]}
    for name in Tiny.scores:  # to the last digit
        expected = np.stack([each.doubts[name] for each in answers]).ravel()
        assert np.array_equal(np.float32(listed[name]), expected)


def changed(**more):
    about = body(IMAGES)
    about["inputs"][0] |= more
    return json.dumps(about).encode()


BAD = {
    "nothing": b"",
    "no JSON": b"\x89PNG",
    "no UTF-8": b'{"inputs": "\xff"}',
    "NaN": b'{"inputs": NaN}',
    "deep": b"[" * 100_000,
    "digits": b'{"id": ' + b"9" * 100_000 + b"}",
    "a list": b"[]",
    "no inputs": b"{}",
    "two inputs": json.dumps({"inputs": [{}, {}]}).encode(),
    "no object": json.dumps({"inputs": ["images"]}).encode(),
    "another name": changed(name="../../etc/passwd"),
    "another type": changed(datatype="BYTES"),
    "a type of no text": changed(datatype=[]),
    "no shape": changed(shape=None),
    "three axes": changed(shape=[3, 2, 4]),
    "four bands": changed(shape=[1, 4, 2, 3]),
    "an empty side": changed(shape=[1, 3, 0, 8]),
    "a negative side": changed(shape=[1, 3, -2, -4]),
    "a fraction": changed(shape=[1, 3, 2.0, 4]),
    "true": changed(shape=[True, 3, 2, 4]),
    "a huge side": changed(shape=[1, 3, 10**30, 4]),
    "too few": changed(data=[1, 2]),
    "none": changed(data=[]),
    "no list": changed(data="images.png"),
    "ragged": changed(data=[[1, 2], [3]]),
    "texts": changed(data=["1"] * 24),
    "truths": changed(data=[True] * 24),
    "nothings": changed(data=[None] * 24),
    "fractions": changed(data=[0.5] * 24),
    "below 0": changed(data=[-1] * 24),
    "above 255": changed(data=[256] * 24),
    "huge": changed(data=[10**30] * 24),
    "another order": changed(data=IMAGES.reshape(1, 2, 4, 3).tolist()),
    "floats above 1": changed(datatype="FP32", data=[2] * 24),
    "floats below 0": changed(datatype="FP32", data=[-0.1] * 24),
    "floats without end": changed(datatype="FP32").replace(b"23", b"1e999"),
    "shared memory": changed(parameters={"shared_memory_region": "/dev/shm/a"}),
    "odd parameters": changed(parameters=[]),
    "odd outputs": json.dumps(body(IMAGES, outputs=[3])).encode(),
    "unknown output": json.dumps(body(IMAGES, outputs=[{"name": "logits"}])).encode(),
    "output twice": json.dumps(body(IMAGES, outputs=[{"name": "entropy"}] * 2)).encode(),
    "output of no text": json.dumps(body(IMAGES, outputs=[{"name": {}}])).encode(),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_refused_in_one_sentence(name):
    with pytest.raises(Refusal) as refused:
        read(BAD[name])
    assert refused.value.status == 400
    said = str(refused.value)
    assert said.startswith("expected ") and len(said) < 300 and "\n" not in said


@pytest.mark.parametrize("length", ["-1", "a", "1e3", "", "99999999", "9" * 50, "٣"])
def test_a_wrong_length_of_the_json_is_refused(length):
    with pytest.raises(Refusal, match="Inference-Header-Content-Length"):
        read(packed(IMAGES)[0], length)


def test_bytes_that_do_not_fit_are_refused():
    for tail in (b"", bytes(23), bytes(25)):
        with pytest.raises(Refusal, match="expected 24 bytes"):
            read(*packed(IMAGES, tail=tail))
    with pytest.raises(Refusal, match="expected 96 bytes"):
        read(*packed(IMAGES, "FP32"))
    content, length = packed(np.full(IMAGES.shape, np.nan, np.float32), "FP32")
    with pytest.raises(Refusal, match=r"in \[0, 1\]"):
        read(content, length)
    head = changed()
    with pytest.raises(Refusal, match="binary_data_size"):
        read(head + bytes(3), str(len(head)))


def test_too_many_pixels_are_refused_before_their_numbers_are_looked_at():
    with pytest.raises(Refusal, match=r"at most 0\.001 million pixels") as refused:
        read(changed(shape=[1, 3, 40, 40], data="none"), limits=Limits(megapixels=0.001))
    assert refused.value.status == 413


def test_too_many_images_and_too_much_json_are_refused():
    images = np.zeros((65, 3, 1, 1), np.uint8)
    with pytest.raises(Refusal, match="at most 64 images") as refused:
        read(*packed(images))
    assert refused.value.status == 413
    with pytest.raises(Refusal, match="10 MB of JSON") as refused:
        read(b"[" + b"[]," * 4_000_000)
    assert refused.value.status == 413


def test_an_answer_that_is_too_long_for_json_is_refused(monkeypatch):
    monkeypatch.setattr(protocol, "_LISTED", 16)
    with pytest.raises(Refusal, match=r"numbers in JSON, got 2\.4e-05.*Ask for bytes") as refused:
        read(json.dumps(body(IMAGES)).encode())
    assert refused.value.status == 413
    some = [{"name": "energy", "parameters": {"binary_data": True}}, {"name": "classes"}]
    assert len(read(json.dumps(body(IMAGES, outputs=some)).encode()).outputs) == 2


def test_the_model_says_what_it_takes_and_gives():
    said = protocol.model(Tiny)
    assert said["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 3, -1, -1]}]
    assert [each["name"] for each in said["outputs"]] == ["classes", "entropy", "energy"]
