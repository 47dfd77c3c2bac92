"""`doubtmap serve` as it is run: a socket of 127.0.0.1, SIGTERM, a browser."""

import os
import shutil
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from asking import httpx, png

from doubtmap.cli.serve import _to_the_world, name_of
from doubtmap.service.answers import Answering


@pytest.fixture
def address():
    """A free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def until(found, seconds=20):
    """Wait for something to be true."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return value


def is_there(address):
    try:
        return httpx.get(f"{address}/v2/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def test_sigterm_lets_who_waits_be_answered(run, address, gate, monkeypatch):
    held, real = gate(lambda images: images), Answering.__call__
    monkeypatch.setattr(Answering, "__call__", lambda self, images: real(self, held(images)))
    said = {}

    def talk():
        try:
            until(lambda: is_there(address))
            said["page"] = httpx.get(address).status_code
            with ThreadPoolExecutor(2) as pool, httpx.Client() as kept:
                said["live"] = kept.get(f"{address}/v2/health/live").json()
                asked = [
                    pool.submit(httpx.post, f"{address}/doubt", content=png(48, 64), timeout=30)
                    for _ in range(2)
                ]
                until(lambda: "requests_inside 2.0" in httpx.get(f"{address}/metrics").text)
                os.kill(os.getpid(), signal.SIGTERM)
                until(lambda: not is_there(address))
                late = httpx.post(f"{address}/doubt", content=png())  # on a connection of its own
                said["late"] = (late.status_code, "retry-after" in late.headers)
                held.open.set()
                said["answered"] = [each.result().status_code for each in asked]
        finally:
            held.open.set()
            if "answered" not in said:
                os.kill(os.getpid(), signal.SIGTERM)

    talking = threading.Thread(target=talk)
    talking.start()
    port = address.rpartition(":")[2]
    code, out, err = run("serve", "demo", "--scores", "entropy", "--port", port)
    talking.join(20)
    assert said == {
        "page": 200,
        "live": {"live": True},
        "late": (503, True),
        "answered": [200, 200],
    }
    assert (code, out) == (0, "2 requests answered, 1 refused\n")
    assert f"demo at {address}: a page at /" in err and "note:" not in err
    with pytest.raises(httpx.TransportError):
        httpx.get(address)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("demo", "--port", "TAKEN"), 2, "Give another with --host and --port"),
        (("demo", "--host", "no host", "--port", "0"), 2, "serve: expected an address"),
        (("demo", "--queue", "0"), 2, "expected --queue to be above 0, got 0"),
        (("demo", "--scores", "logits"), 2, "logits"),
        (("nothing.onnx",), 1, "nothing.onnx"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_sentence(run, address, words, code, said):
    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))) as taken:
        port = str(taken.getsockname()[1])
        found = run("serve", *(port if word == "TAKEN" else word for word in words))
    assert found[0] == code and said in found[2]
    assert "Traceback" not in found[2]


def test_without_the_packages_the_line_to_install_them_is_said(run, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "doubtmap.service.web", None)
    monkeypatch.delattr("doubtmap.service.web")
    code, _, err = run("serve", "demo")
    assert code == 2 and "pip install 'doubtmap[serve]'" in err


def test_who_listens_to_the_world_is_told_so():
    assert _to_the_world("127.0.0.1") == _to_the_world("localhost") == _to_the_world("::1") == []
    (note,) = _to_the_world("0.0.0.0")
    assert "every machine" in note and "proxy" in note


def test_models_are_named_so_that_addresses_hold_them():
    assert name_of("nvidia/segformer-b0") == "segformer-b0"
    assert name_of("a/net.v2.onnx,b") == "net.v2.onnx-b"
    assert name_of("../..") == "model"


CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


@pytest.fixture
def browser():
    """A headless browser, or a skip."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def listening(service):
    """The address of a service in this process."""
    from doubtmap.service import web

    found = []
    stop = threading.Event()
    thread = threading.Thread(
        target=web.serve, args=(service, "127.0.0.1", 0, found.append, stop.is_set)
    )
    thread.start()
    yield until(lambda: found)[0]
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def test_the_page_shows_what_the_service_says(browser, listening, tmp_path):
    (tmp_path / "a.png").write_bytes(png(48, 64))
    told = httpx.post(f"{listening}/doubt?threshold=1.5", content=png(48, 64)).json()
    page = browser.new_page(viewport={"width": 420, "height": 800})
    errors = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(listening)
    assert page.is_hidden("#stage")
    page.set_input_files("#file", tmp_path / "a.png")
    until(lambda: "answered" in page.inner_text("#status"))
    assert "64 \u00d7 48 pixels" in page.inner_text("#status")
    assert page.evaluate("[canvas.width, canvas.height]") == [64, 48]
    assert page.evaluate("document.documentElement.scrollWidth") == 420
    page.set_viewport_size({"width": 320, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    mean = told["scores"]["entropy"]["mean"]
    assert float(page.inner_text("#figures dd >> nth=0")) == pytest.approx(mean, rel=1e-3)
    slide = "e => { e.value = 1500 / Math.log(8); e.dispatchEvent(new Event('input')) }"
    page.eval_on_selector("#threshold", slide)
    until(lambda: "%" in page.inner_text("#figures dd >> nth=1"))
    above = float(page.inner_text("#figures dd >> nth=1").split()[0]) / 100
    assert above == pytest.approx(told["scores"]["entropy"]["above"], abs=0.01)
    before = page.evaluate("canvas.toDataURL()")
    page.check("input[value=classes]")
    until(lambda: page.evaluate("canvas.toDataURL()") != before)
    page.focus("#canvas")
    page.keyboard.press("ArrowRight")
    runs = [k for k, count in told["classes"]["runs"] for _ in range(count)]
    name = told["class_names"][runs[24 * 64 + 33]]
    assert f"row 24, column 33: {name}, entropy" in page.inner_text("#readout")
    (tmp_path / "b.png").write_bytes(b"no image")
    assert errors == []
    page.set_input_files("#file", tmp_path / "b.png")
    page.wait_for_selector("#status.failed")
    assert "expected a readable image" in page.inner_text("#status")
    assert all("400" in error for error in errors)
