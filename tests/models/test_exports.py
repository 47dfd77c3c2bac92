"""ONNX files and exported programs predict as the module that they were made from."""

import io
import warnings
import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch
from tiny_networks import CLASSES, FEATURES, Queries, Tiny, UNet, normalised, own
from torch import nn

from doubtmap.errors import ModelError, UsageError
from doubtmap.files.archives import TRIED
from doubtmap.models import load as load_any

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

load = partial(load_any, trust=not torch.__version__.startswith(TRIED))
DYNAMIC = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}


QUERIES = ("class_queries_logits", "masks_queries_logits")


def export(network, path, shape=(2, 3, 32, 48), dynamic=True, sizes=None, names=None, dynamo=False):
    """By the exporter of today where `dynamo`, else, for ONNX, by the older, which is quick."""
    example, shapes = torch.rand(shape), (sizes or DYNAMIC,) if dynamic else None
    network.eval()
    if path.suffix == ".pt2":
        torch.export.save(torch.export.export(network, (example,), dynamic_shapes=shapes), path)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            network, (example,), path, dynamo=dynamo, verbose=False,
            output_names=[*names] if names else None,
            external_data=False, input_names=["x"], **_dynamic(shapes, dynamo),
        )  # fmt: skip


def _dynamic(shapes, dynamo):
    if dynamo:
        return {"dynamic_shapes": shapes}
    return {"dynamic_axes": {"x": {axis: f"a{axis}" for axis in shapes[0]}} if shapes else None}


@pytest.fixture(params=["onnx", "pt2"])
def path(request, tmp_path):
    torch.manual_seed(0)
    return tmp_path / f"network.{request.param}"


@pytest.mark.parametrize("align_corners", [False, True])
def test_same_prediction_as_the_module(path, align_corners):
    network = Tiny(align_corners=align_corners, auxiliary=True)
    export(network, path, dynamo=not align_corners)
    segmenter, images = load(path), torch.rand(3, 3, 40, 52)
    expected, got = load(network)(images), segmenter(images)
    for name in ("native_logits", "features", "logits"):
        torch.testing.assert_close(getattr(got, name), getattr(expected, name), atol=1e-4, rtol=0)
    assert got.align_corners is align_corners
    torch.testing.assert_close(got.logits, own(network, images), atol=1e-4, rtol=0)
    told = segmenter.description
    assert (told["features"], told["stride"], told["classes"]) == (FEATURES, 4, CLASSES)
    assert len(told["sha256"]) == 64
    if path.suffix == ".pt2":
        assert told["classifier"] == "classifier"
        load(path, classifier="classifier")(images)
    with pytest.raises(UsageError, match=r"last layer .*got 'gone'"):
        load(path, classifier="gone")


def test_fixed_sizes_become_the_input_size(path):
    network = Tiny()
    export(network, path, shape=(1, 3, 32, 48), dynamic=False)
    segmenter, images = load(path), torch.rand(3, 3, 40, 52)
    expected, got = load(network, input_size=(32, 48))(images), segmenter(images)
    torch.testing.assert_close(got.logits, expected.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(got.features, expected.features, atol=1e-4, rtol=0)
    assert segmenter.description["input_size"] == [32, 48]
    assert any("32x48" in note for note in segmenter.description["notes"])
    with pytest.raises(UsageError, match="exported"):
        load(path, input_size=(64, 64))


def test_fixed_batch_of_two_takes_three_images(path):
    network = Tiny()
    export(network, path, shape=(2, 3, 32, 48), dynamic=False)
    images = torch.rand(3, 3, 32, 48)
    expected, got = load(network)(images), load(path)(images)
    torch.testing.assert_close(got.logits, expected.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(got.features, expected.features, atol=1e-4, rtol=0)


def test_classifier_that_sees_the_image_and_makes_the_output(path):
    network = nn.Conv2d(3, CLASSES, 1)
    export(network, path)
    images = torch.rand(1, 3, 16, 16)
    got = load(path)(images)
    torch.testing.assert_close(got.features, normalised(images))
    torch.testing.assert_close(got.logits, own(network, images), atol=1e-4, rtol=0)


def test_refused_sizes_are_padded(path):
    network = UNet()
    height, width = (32 * torch.export.Dim(name, min=1, max=64) for name in ("h", "w"))
    sizes = {0: torch.export.Dim.DYNAMIC, 2: height, 3: width}
    export(network, path, shape=(2, 3, 64, 96), sizes=sizes)
    images = torch.rand(2, 3, 45, 70)
    expected, got = load(network)(images), load(path)(images)
    torch.testing.assert_close(got.logits, expected.logits, atol=1e-4, rtol=0)
    assert got.covered == expected.covered == (64, 96)


def test_external_weights(tmp_path):
    network, path = Tiny(), tmp_path / "external.onnx"
    export(network, path)
    onnx.save(onnx.load(path), path, save_as_external_data=True, size_threshold=0)
    images = torch.rand(1, 3, 32, 32)
    segmenter = load(path)
    torch.testing.assert_close(segmenter(images).logits, own(network, images), atol=1e-4, rtol=0)
    assert segmenter.description["sha256"] is None


def test_more_than_one_input_is_refused(path):
    class Two(nn.Module):
        def forward(self, x, y):
            return x + y

    examples = (torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8))
    if path.suffix == ".pt2":
        torch.export.save(torch.export.export(Two(), examples), path)
    else:
        values = [onnx.helper.make_tensor_value_info(n, 1, (1, 3, 8, 8)) for n in "xyz"]
        node = onnx.helper.make_node("Add", ["x", "y"], ["z"])
        onnx.save(
            onnx.helper.make_model(onnx.helper.make_graph([node], "g", values[:2], values[2:])),
            path,
        )
    with pytest.raises(ModelError, match="image as its only input"):
        load(path)


class Attack:
    """Makes a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def test_compiled_code_is_refused(tmp_path):
    path = tmp_path / "network.pt2"
    export(Tiny(), path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("network/data/aotinductor/model/model.so", b"")
    with pytest.raises(ModelError, match="AOTInductor"):
        load(path)


def test_pickled_code_is_not_run(tmp_path):
    path, bad, target = (tmp_path / name for name in ("good.pt2", "bad.pt2", "touched"))
    export(Tiny(), path)
    attack = io.BytesIO()
    torch.save({"x": Attack(target)}, attack)
    with zipfile.ZipFile(path) as good, zipfile.ZipFile(bad, "w") as written:
        swapped = [n for n in good.namelist() if "sample_inputs" in n]
        assert swapped
        for name in good.namelist():
            written.writestr(name, attack.getvalue() if name in swapped else good.read(name))
    with pytest.raises(ModelError, match="cannot be read"):
        load(bad)
    assert not target.exists()


@pytest.mark.parametrize("queries", [True, False])
def test_other_outputs(path, queries):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Queries() if queries else Tiny()

        def forward(self, x):
            return vars(self.inner(x)) if queries else {"out": self.inner(x), "second": x}

    network = Wrapped()
    export(network, path, names=QUERIES if queries else None)
    images = torch.rand(2, 3, 32, 32)
    expected = load(network)(images)
    got = load(path)(images)
    torch.testing.assert_close(got.logits, expected.logits, atol=1e-4, rtol=0)
