"""Every door: what files, folders and objects say of themselves, and what is refused."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from tiny_networks import CLASSES, Tiny, own
from torch import nn
from typer.testing import CliRunner

from doubtmap.cli import app
from doubtmap.errors import ModelError, UsageError
from doubtmap.models import load
from doubtmap.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD

pytestmark = pytest.mark.usefixtures("seed")
NONE = {"mean": (0, 0, 0), "std": (1, 1, 1)}


def plain(network, images):
    with torch.no_grad():
        return network.eval()(images)


def test_an_assumed_normalisation_is_a_note_and_a_line(caplog):
    segmenter = load(Tiny())
    assert "assumed" in segmenter.description["notes"][0]
    assert "assumed" in caplog.text
    caplog.clear()
    segmenter = load(Tiny(), **NONE)
    assert segmenter.description["notes"] == []
    assert caplog.text == ""


@pytest.mark.parametrize(("options", "times"), [((), 1), (("--quiet",), 0)], ids=str)
def test_the_command_line_says_once_what_is_assumed(tmp_path, options, times):
    path = tmp_path / "network.py"
    path.write_text("import torch\ndef f():\n return torch.nn.Conv2d(3, 4, 1)\n")
    ran = CliRunner().invoke(app, ["info", f"python:{path}:f", *options])
    assert (ran.exit_code, ran.stderr.count("are assumed")) == (0, times)


def test_values_of_0_to_255_are_refused_with_the_line_to_type():
    with pytest.raises(UsageError, match=r"--mean 0\.485,0\.456,0\.406 --std 0\.229,0\.224,0\.225"):
        load(Tiny(), mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))


def test_bgr():
    network, images = Tiny(), torch.rand(1, 3, 32, 32)
    got = load(network, channels="bgr", **NONE)(images)
    torch.testing.assert_close(got.logits, plain(network, images.flip(1)), atol=1e-4, rtol=0)
    with pytest.raises(UsageError, match="rgb or bgr"):
        load(network, channels="rbg")


@pytest.mark.parametrize("count", [1, 2, 4, 12])
def test_any_number_of_bands(count):
    network, images = nn.Conv2d(count, CLASSES, 1), torch.rand(2, count, 16, 20)
    segmenter = load(network, mean=[0.5] * count, std=[0.25] * count)
    expected = plain(network, (images - 0.5) / 0.25)
    torch.testing.assert_close(segmenter(images).logits, expected, atol=1e-4, rtol=0)


def test_bands_pick_and_order():
    network, images = nn.Conv2d(4, CLASSES, 1), torch.rand(1, 8, 16, 20)
    segmenter = load(network, bands=(1, 3, 2, 8), mean=[0] * 4, std=[1] * 4)
    expected = plain(network, images[:, [0, 2, 1, 7]])
    torch.testing.assert_close(segmenter(images).logits, expected, atol=1e-4, rtol=0)
    with pytest.raises(UsageError, match="with band 8, got 5"):
        segmenter(images[:, :5])
    with pytest.raises(UsageError, match="3 numbers from 1"):
        load(network, bands=(1, 2, 3, 8))


def test_a_network_of_one_band_gets_the_grey_of_rgb():
    network, images = nn.Conv2d(1, CLASSES, 1), torch.rand(1, 3, 16, 20)
    grey = (images * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    got = load(network, mean=[0], std=[1])(images)
    torch.testing.assert_close(got.logits, plain(network, grey), atol=1e-4, rtol=0)


class Named(Tiny):
    def __init__(self, **carried):
        super().__init__()
        for name, value in carried.items():
            setattr(self, name, value)


NAMES = ("sky", "road", "car", "tree", "pole")
CARRIED = {
    "class_names": {"class_names": list(NAMES)},
    "names": {"names": dict(enumerate(NAMES))},
    "dataset_meta": {"dataset_meta": {"classes": NAMES}},
    "id2label": {"config": SimpleNamespace(id2label=dict(enumerate(NAMES)))},
}


@pytest.mark.parametrize("carried", CARRIED.values(), ids=CARRIED)
def test_names_that_a_network_carries(carried):
    segmenter = load(Named(**carried))
    assert segmenter.class_names == NAMES
    assert load(Named(**carried), classes=list("abcde")).class_names == tuple("abcde")
    assert load(Named(names=3)).class_names == ()


class Processor(nn.Module):
    """As mmseg's SegDataPreProcessor."""

    def __init__(self, conversion):
        super().__init__()
        self.channel_conversion = conversion
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, 255 * torch.tensor(values).view(3, 1, 1))


def test_normalisation_that_a_network_carries():
    how = load(Named(data_preprocessor=Processor(True))).source.preprocessing
    assert how.mean == pytest.approx(IMAGENET_MEAN) and how.std == pytest.approx(IMAGENET_STD)
    assert (how.bgr, how.origin) == (False, "data_preprocessor")
    assert load(Named(data_preprocessor=Processor(False))).source.preprocessing.bgr
    how = load(Named(pretrained_cfg={"mean": (0.5,) * 3, "std": (0.4,) * 3})).source.preprocessing
    assert (how.mean, how.std, how.origin) == ((0.5,) * 3, (0.4,) * 3, "pretrained_cfg")


@pytest.mark.parametrize("suffix", [".pt", ".torchscript"])
def test_torchscript(tmp_path, suffix):
    network, path = Tiny().eval(), tmp_path / f"network{suffix}"
    images = torch.rand(2, 3, 32, 40)
    jit = torch.jit
    with warnings.catch_warnings():  # newer PyTorch calls it deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        jit.save(jit.trace(network, images), str(path))
    segmenter = opened(path)
    torch.testing.assert_close(segmenter(images).logits, own(network, images), atol=1e-4, rtol=0)
    assert segmenter.description["kind"] == "torchscript"


def opened(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return load(path)


def test_a_state_dict_with_the_function_that_builds_its_network(tmp_path):
    network, images = nn.Conv2d(3, 4, 1), torch.rand(1, 3, 16, 16)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "net.py").write_text(
        "import torch\nfrom safetensors.torch import load_file\n"
        "def network(weights, classes=2):\n"
        "    net = torch.nn.Conv2d(3, classes, 1)\n"
        "    net.load_state_dict(load_file(weights))\n    return net\n"
    )
    (tmp_path / "doubtmap.toml").write_text(
        'classes = ["a", "b", "c", "d"]\nmean = [0, 0, 0]\nstd = [1, 1, 1]\n'
    )
    reference = f"python:{tmp_path}/net.py:network(weights={tmp_path}/w.safetensors,classes=4)"
    segmenter = load(reference)
    assert segmenter.class_names == tuple("abcd")
    assert segmenter.description["normalisation"] == "doubtmap.toml"
    torch.testing.assert_close(segmenter(images).logits, plain(network, images), atol=1e-5, rtol=0)
    with pytest.raises(UsageError, match="got 'weights'"):
        load(f"python:{tmp_path}/net.py:network(weights)")
    (tmp_path / "doubtmap.toml").write_text("classes = 3")
    with pytest.raises(ModelError, match=r"doubtmap\.toml.*cannot be used"):
        load(reference)


@pytest.mark.parametrize("name", ["a.onnx", "a.pt2", "folder/model.safetensors"])
def test_pointers_of_git_lfs(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ModelError, match="git lfs pull"):
        load(tmp_path / name.partition("/model")[0])


def test_ultralytics_objects_of_other_tasks():
    yolo = type("YOLO", (), {"__module__": "ultralytics.models"})()
    yolo.model, yolo.task = Tiny(), "segment"
    with pytest.raises(UsageError, match="boxes or instances"):
        load(yolo)
    yolo.task = "semantic"
    assert load(yolo).description["kind"] == "module"
