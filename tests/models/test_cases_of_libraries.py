"""Networks of other libraries, each held to its own forward pass; what is not installed is skipped.

`benchmarks/networks.py` has the table, and measures the same at a larger size.
"""

import importlib
import sys
from pathlib import Path

import pytest
import torch

from doubtmap.errors import DoubtmapError
from doubtmap.models import load

NAMES = importlib.import_module("networks").NETWORKS


@pytest.fixture(scope="module")
def networks():
    """The benchmark as a module."""
    yield importlib.import_module("networks")
    sys.modules.pop("networks", None)


@pytest.fixture
def library(networks):
    """Imports a package, or skips with the reason."""

    def get(name):
        try:
            return networks.library(name)
        except ImportError as error:
            pytest.skip(f"{name} cannot be used here: {error}")

    return get


@pytest.mark.filterwarnings("ignore")  # of the libraries
@pytest.mark.parametrize("name", NAMES)
def test_network(name, networks, library):
    network = networks.NETWORKS[name]
    library(network.library)
    row, _, _ = networks.compared(network, network.size, 4)
    assert row["labels"] > 1, "a network that always says one class shows little"
    assert row["largest_difference"] < 1e-5
    assert row["labels_equal"] > 0.9999
    assert bool(row["features"]) == network.features
    assert row["scores"] == (9 if network.features else 8), "of those without fitting"


@pytest.mark.filterwarnings("ignore")
def test_a_folder_of_segmentation_models_pytorch(tmp_path, networks, library):
    library("segmentation_models_pytorch")
    made = networks.made(networks.NETWORKS["smp.FPN"], torch.randn(4, 3, 64, 96))
    made.save_pretrained(tmp_path)
    images = torch.rand(2, 3, 64, 96)
    segmenter = load(tmp_path, mean=networks.IMAGENET_MEAN)
    with torch.no_grad():
        expected = made(
            networks.normalised(images, *(segmenter.description[k] for k in ("mean", "std")))
        )
    torch.testing.assert_close(segmenter(images).logits, expected, atol=1e-4, rtol=0)
    assert segmenter.description["kind"] == "smp"


@pytest.mark.filterwarnings("ignore")
def test_an_encoder_is_asked_nothing_of_a_server(networks, library, monkeypatch):
    library("segmentation_models_pytorch")
    import huggingface_hub

    def refuse(*given, **more):
        raise AssertionError("asked a server")

    monkeypatch.setattr(huggingface_hub.file_download, "http_get", refuse)
    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", refuse)
    segmenter = load(networks.smp("Unet"))
    assert segmenter.description["normalisation"] == "assumed"
    assert "assumed" in segmenter.description["notes"][0]


@pytest.mark.filterwarnings("ignore")
def test_ultralytics_objects(networks, library):
    found = library("ultralytics")
    inner = networks.ultralytics("yolo26-sem.yaml").eval()
    yolo = found.YOLO(next(configurations(found, "yolo26-sem.yaml")))
    yolo.model = inner
    images = torch.rand(1, 3, 64, 96)
    torch.testing.assert_close(load(yolo)(images).logits, load(inner)(images).logits)
    assert load(yolo).class_names == tuple(inner.names.values())
    instances = found.YOLO(next(configurations(found, "yolo26-seg.yaml")))
    with pytest.raises(DoubtmapError, match="boxes or instances"):
        load(instances)
    with pytest.raises(DoubtmapError, match=r"instance|expected"):
        load(instances.model)(images)


def configurations(package, name):
    """Those of a name that a package carries."""
    return map(str, Path(package.__path__[0]).rglob(name))


@pytest.mark.filterwarnings("ignore")
def test_networks_of_timm_that_are_not_for_segmentation(library):
    timm = library("timm")
    with pytest.raises(DoubtmapError, match=r"expected an output \(B, C, H, W\)"):
        load(timm.create_model("resnet10t", num_classes=6))(torch.rand(1, 3, 64, 96))
    with pytest.raises(DoubtmapError, match="--output"):
        load(timm.create_model("resnet10t", features_only=True))(torch.rand(1, 3, 64, 96))


def test_an_oneformer_folder_is_refused(tmp_path, networks, library):
    transformers = library("transformers")
    transformers.OneFormerConfig().save_pretrained(tmp_path)
    with pytest.raises(DoubtmapError, match="needs more than the image"):
        load(tmp_path)
