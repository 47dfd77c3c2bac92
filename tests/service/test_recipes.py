"""The recipes of docs/service.md: run where they can be, compiled where not."""

import io
import re
import shlex
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from asking import httpx, png
from PIL import Image

import doubtmap as dm
from doubtmap.scores.parsing import parse_scores
from doubtmap.service.answers import Answering
from doubtmap.service.limits import Limits
from doubtmap.service.web import Service, serve

PAGE = (Path(__file__).parents[2] / "docs" / "service.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)
CODES = [code for kind, code in BLOCKS if kind == "py"]


def recipe(*words):
    """The one recipe that has these words."""
    (found,) = [code for kind, code in BLOCKS if all(word in code for word in words)]
    return found


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.splitlines()[0][2:])
def test_recipes_are_python(code):
    compile(code, "recipe", "exec")


@pytest.fixture(scope="module")
def demo():
    return Answering("demo", dm.load("demo"), parse_scores("entropy,max_softmax"))


@pytest.fixture
def address(demo):
    """Where the demo network is served."""
    import threading
    import time

    found, stop, service = [], threading.Event(), Service(demo, Limits())
    thread = threading.Thread(
        target=serve, args=(service, "127.0.0.1", 0, found.append, stop.is_set)
    )
    thread.start()
    while not found:
        time.sleep(0.01)
    yield found[0]
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "street.png").write_bytes(png(48, 64))
    return tmp_path


def test_clients_say_what_the_library_says(demo, address, place, capsys):
    image = torch.from_numpy(np.array(Image.open("street.png"))).permute(2, 0, 1)[None]
    entropy = dm.scores.entropy(demo.segmenter(image))[0].numpy()
    here = address.removeprefix("http://")
    known = {}
    for words in (("def doubts",), ('"shape": [1, 3, 2, 2]',)):
        exec(recipe(*words).replace("127.0.0.1:8000", here), known)
    first, second = capsys.readouterr().out.splitlines()
    assert np.array_equal(known["maps"]["entropy"], entropy)
    assert first == f"(48, 64) {entropy.mean():.4f}"
    assert second.startswith("[1, 2, 2] [")


def test_triton_s_client_speaks_to_the_service(demo, address, place, capsys):
    pytest.importorskip("tritonclient.http", reason="needs Triton's client")
    exec(recipe("tritonclient").replace("127.0.0.1:8000", address.removeprefix("http://")), {})
    assert capsys.readouterr().out.startswith("(1, 48, 64) ")


def test_lines_of_curl_run(address, place):
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    lines = recipe("curl --data-binary").replace("http://127.0.0.1:8000", address).splitlines()
    assert len(lines) == 4
    for line in lines:
        ran = subprocess.run([*shlex.split(line), "--fail", "--silent"], check=True, timeout=60)
        assert ran.returncode == 0
    with Image.open("doubt.png") as doubt, Image.open("classes.png") as classes:
        assert (doubt.mode, doubt.size) == ("I;16", (64, 48)) and classes.size == (64, 48)


def test_the_camera_s_loop_runs(place, capsys):
    av = pytest.importorskip("av", reason="needs PyAV")
    with av.open("street.mp4", "w") as film:
        stream = film.add_stream("mpeg4", 8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for seed in range(3):
            pixels = np.asarray(Image.open(io.BytesIO(png(48, 64, seed))))
            film.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        film.mux(stream.encode())
    exec(recipe("def newest"), {})
    said = capsys.readouterr().out.splitlines()
    assert 1 <= len(said) <= 3 and said[-1].endswith("of the pixels are as good as guessed")


def test_the_application_of_ray_says_what_the_service_says(address, place, monkeypatch):
    """Ray itself is not here: its decorator is stood in for, all else is run."""
    import asyncio

    from starlette.requests import Request

    bound = types.SimpleNamespace(made=None)

    def deployment(**given):
        def decorate(kind):
            kind.bind = classmethod(lambda cls, *words: setattr(bound, "made", cls(*words)))
            return kind

        return decorate

    ray = types.ModuleType("ray")
    ray.serve = types.SimpleNamespace(deployment=deployment)
    monkeypatch.setitem(sys.modules, "ray", ray)
    exec(recipe("from ray import serve"), {})

    async def receive():
        return {"type": "http.request", "body": png(48, 64), "more_body": False}

    scope = {"type": "http", "headers": [], "query_string": b"answer=doubt"}
    response = asyncio.run(bound.made(Request(scope, receive)))
    asked = httpx.post(f"{address}/doubt?answer=doubt", content=png(48, 64))
    assert response.body == asked.content and response.headers["content-type"] == "image/png"


def test_the_node_of_ros_publishes_classes_and_confidence(demo, monkeypatch):
    """ROS is not here: what the node does with a message is run on stand-ins."""

    class Message(types.SimpleNamespace):
        def __init__(self, **given):
            super().__init__(class_map=[], **given)

    class Node:
        def __init__(self, name):
            self.sent = {}

        def declare_parameter(self, name, value):
            return types.SimpleNamespace(value=value)

        def create_publisher(self, kind, topic, qos):
            send = self.sent.setdefault(topic, []).append
            return types.SimpleNamespace(publish=send)

        def create_subscription(self, kind, topic, call, qos):
            self.call = call

    qos = {"DurabilityPolicy": types.SimpleNamespace(TRANSIENT_LOCAL=1), "QoSProfile": Message}
    stands = {
        **{"rclpy": {}, "rclpy.node": {"Node": Node}, "sensor_msgs": {}, "vision_msgs": {}},
        "rclpy.qos": qos | {"qos_profile_sensor_data": None},
        "sensor_msgs.msg": {"Image": Message},
        "vision_msgs.msg": {"LabelInfo": Message, "VisionClass": Message},
    }
    for name, holds in stands.items():
        module = types.ModuleType(name)
        vars(module).update(holds)
        monkeypatch.setitem(sys.modules, name, module)
    known = {"__name__": "doubt_node"}
    exec(recipe("rclpy"), known)
    node = known["DoubtNode"]()
    pixels = np.array(Image.open(io.BytesIO(png(48, 64))))
    padded = np.pad(pixels[..., ::-1].reshape(48, -1), ((0, 0), (0, 8)))
    node.call(
        Message(
            **{"encoding": "bgr8", "height": 48, "width": 64, "step": 200, "header": "now"},
            data=padded.tobytes(),
        )
    )
    (info,), (classes,), (confidence,) = (
        node.sent[topic] for topic in ("label_info", "classes", "confidence")
    )
    assert [each.class_name for each in info.class_map] == list(demo.class_names)
    (answer,) = demo(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    certain = np.rint(255 * (1 - answer.doubts["max_softmax"])).astype(np.uint8)
    for message, values in ((classes, answer.classes), (confidence, certain)):
        assert (message.header, message.encoding, message.step) == ("now", "mono8", 64)
        found = np.frombuffer(message.data, np.uint8).reshape(48, 64)
        assert np.array_equal(found, values)


def test_the_service_of_kserve_is_asked_for_what_is_there():
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    (container,) = yaml.safe_load(recipe("InferenceService"))["spec"]["predictor"]["containers"]
    from doubtmap.cli.serve import command

    words = [*container["command"][2:], *map(str, container["args"])]
    options = {flag for each in command.params for flag in each.opts}
    assert {word for word in words if word.startswith("--")} <= options
    paths = {container[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")}
    assert paths == {"/v2/health/ready", "/v2/health/live"}
