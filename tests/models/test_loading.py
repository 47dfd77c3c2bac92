import sys
import zipfile

import pytest
import torch
from tiny_networks import Tiny

from doubtmap.errors import ModelError, UsageError
from doubtmap.models import load
from doubtmap.names import made_distinct

FILE = """
import torch
from neighbour import CHANNELS

def network():
    return torch.nn.Conv2d(3, CHANNELS, 1)

def nothing():
    return None

def broken():
    raise KeyError("weights.safetensors")
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "neighbour.py").write_text("CHANNELS = 4\n")
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def test_python_file(file):
    segmenter = load(f"python:{file}:network", classes=list("abcd"))
    assert segmenter(torch.rand(1, 3, 9, 9)).logits.shape == (1, 4, 9, 9)
    assert segmenter.description["kind"] == "python"


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ("{file}", UsageError, "found none|FUNCTION"),
        ("gone.py:network", UsageError, "found none"),
        ("{file}:netwrk", UsageError, "network, nothing, broken"),
        ("{file}:nothing", UsageError, "NoneType"),
        ("{file}:broken", ModelError, "the function raised KeyError"),
    ],
)
def test_wrong_python_references(file, reference, error, message):
    with pytest.raises(error, match=message):
        load("python:" + reference.format(file=file))


def test_python_file_that_raises(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("1 / 0\n")
    with pytest.raises(ModelError, match="the file raised ZeroDivisionError"):
        load(f"python:{path}:network")


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("segformer", UsageError, "python:FILE.py:FUNCTION, or demo"),
        (3, UsageError, "got int"),
        ("a,b", UsageError, "demo, got 'a'"),
        ("weights.pth", UsageError, "python:FILE.py:FUNCTION"),
        ("gone.onnx", ModelError, "found none"),
        ("gone.pt2", ModelError, "found none"),
        ("very/wrong/path", UsageError, "Check the path"),
    ],
)
def test_wrong_models(model, error, message):
    with pytest.raises(error, match=message):
        load(model)


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_broken_files(tmp_path, suffix, capfd):
    path = tmp_path / f"broken.{suffix}"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match=r"cannot be read|expected PyTorch"):
        load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(ModelError, match=r"cannot be read|the member 'a'|expected PyTorch"):
        load(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "options",
    [
        {"classes": "road"},
        {"mean": (0.5,)},
        {"std": (1, 1, 0)},
        {"divisor": 0},
        {"input_size": (32,)},
        {"input_size": "32x32"},
        {"input_size": (0, 32)},
        {"classes": ["Road", "sky", "road "]},
        {"classes": ["traffic sign", "traffic_sign"]},
        {"mean": (0, float("nan"), 0)},
        {"std": (1, float("inf"), 1)},
        {"device": "foo"},
        {"device": "cuda:x"},
        {"device": "meta"},
    ],
)
def test_wrong_options(options):
    with pytest.raises(UsageError, match="load: expected"):
        load(Tiny(), **options)


def test_a_device_that_is_not_there():
    with pytest.raises(ModelError, match="expected the device cuda:99 to be there"):
        load(Tiny(), device="cuda:99")


def test_what_a_python_file_prints_goes_to_stderr(tmp_path, capsys, caplog):
    path = tmp_path / "loud.py"
    path.write_text(
        "import torch\nprint('one')\ndef f():\n print('two')\n return torch.nn.Identity()\n"
    )
    load(f"python:{path}:f")
    out, err = capsys.readouterr()
    assert (out, err[:8]) == ("", "one\ntwo\n")
    assert "ImageNet's mean and standard deviation are assumed" in caplog.text


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("a", "b"), ("a", "b")),
        (("road", "Road", "road"), ("road", "Road (2)", "road (3)")),
        (("road", "road", "road (2)"), ("road", "road (3)", "road (2)")),
    ],
)
def test_names_made_distinct(names, expected):
    assert made_distinct(names) == expected


@pytest.mark.parametrize(
    ("package", "file", "extra"),
    [("transformers", ".", "hf"), ("onnx", "x.onnx", "onnx"), ("onnxruntime", "x.onnx", "onnx")],
)
def test_missing_packages_are_named_with_their_install_line(
    monkeypatch, tmp_path, package, file, extra
):
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError, match=rf'pip install "doubtmap\[{extra}\]"'):
        load(tmp_path / file)


def test_demo():
    pytest.importorskip("doubtmap.models.demo", reason="the demo network is not there yet")
    segmenter = load("demo")
    prediction = segmenter(torch.rand(1, 3, 64, 64))
    assert prediction.class_names == segmenter.class_names
    assert segmenter.description["kind"] == "demo"
