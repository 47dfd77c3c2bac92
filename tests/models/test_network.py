"""What is found in a network: its output, its classifier, its features, its corners."""

import pytest
import torch
import torch.nn.functional as F
from tiny_networks import CLASSES, FEATURES, Queries, Tiny, normalised, own
from torch import nn

from doubtmap.errors import ModelError
from doubtmap.models import NetworkSegmenter, load
from doubtmap.prediction import Segmenter

pytestmark = pytest.mark.usefixtures("seed")


def test_native_output_is_its_own_classifier():
    segmenter, images = load(Tiny(resize=False)), torch.rand(1, 3, 32, 32)
    prediction = segmenter(images)
    assert segmenter.description["classifier"] == "classifier"
    assert segmenter.description["stride"] == 4
    assert not prediction.align_corners
    network = segmenter.source.backend.module
    torch.testing.assert_close(prediction.logits, own(network, images), atol=1e-4, rtol=0)


def test_features_are_what_the_classifier_sees():
    network, images = Tiny(), torch.rand(2, 3, 32, 40)
    prediction = load(network)(images)
    with torch.no_grad():
        features = network.features(normalised(images))
    torch.testing.assert_close(prediction.features, features)
    assert prediction.native_logits.shape == (2, CLASSES, 8, 10)


@pytest.mark.parametrize("align_corners", [False, True])
def test_output_between_native_and_image_keeps_features(align_corners):
    segmenter = load(Tiny(resize="half", align_corners=align_corners))
    images = torch.rand(1, 3, 32, 48)
    prediction, network = segmenter(images), segmenter.source.backend.module
    assert prediction.native_logits.shape[-2:] == (16, 24)
    with torch.no_grad():
        again = network.classifier(prediction.features)
    torch.testing.assert_close(again, prediction.native_logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(prediction.logits, own(network, images), atol=1e-4, rtol=0)


def test_auxiliary_head_called_last_is_not_taken():
    segmenter = load(Tiny(auxiliary=True))
    segmenter(torch.rand(1, 3, 32, 32))
    assert segmenter.description["classifier"] == "classifier"


def test_no_fitting_convolution_falls_back_to_the_output():
    segmenter, images = load(Tiny(resize="scaled")), torch.rand(1, 3, 32, 32)
    prediction = segmenter(images)
    network = segmenter.source.backend.module
    torch.testing.assert_close(prediction.logits, own(network, images), atol=1e-4, rtol=0)
    assert "no last layer" in segmenter.description["features_missing"]
    with pytest.raises(ModelError, match="x: needs the network's features, but no last layer"):
        prediction.require_features("x")


def test_constant_output_gives_align_corners_false():
    network = Tiny(align_corners=True)
    nn.init.zeros_(network.classifier.weight)
    assert load(network)(torch.rand(1, 3, 32, 32)).align_corners is False


def test_an_image_that_cannot_tell_is_followed_by_another_search():
    segmenter, images = load(Tiny(align_corners=True)), torch.rand(1, 3, 32, 32)
    assert segmenter(torch.rand(1, 3, 4, 4)).align_corners is False  # one native pixel
    assert segmenter(images).align_corners is True
    assert segmenter(torch.rand(1, 3, 4, 4)).align_corners is True
    torch.testing.assert_close(
        segmenter(images).logits, own(segmenter.source.backend.module, images), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("resize", [True, False])
def test_a_decided_image_is_searched_once(resize, monkeypatch):
    segmenter = load(Tiny(resize=resize))
    segmenter(torch.rand(1, 3, 32, 32))
    monkeypatch.setattr("doubtmap.models.network.study", None)
    segmenter(torch.rand(1, 3, 32, 32))


def test_layer_called_twice_uses_the_last_call():
    class Twice(Tiny):
        def forward(self, x):
            super().forward(x.flip(-1))
            return super().forward(x)

    network, images = Twice(), torch.rand(2, 3, 32, 32)
    prediction = load(network)(images)
    torch.testing.assert_close(prediction.features, network.features(normalised(images)).detach())


def test_queries_become_the_logarithm_of_the_semantic_score():
    network, images = Queries(), torch.rand(2, 3, 32, 32)
    prediction = load(network)(images)
    with torch.no_grad():
        output = network(normalised(images))
    classes = output.class_queries_logits.softmax(-1)[..., :-1]
    masks = F.interpolate(output.masks_queries_logits, (32, 32), mode="bilinear").sigmoid()
    scores = (classes[..., None, None] * masks[:, :, None]).sum(1)
    torch.testing.assert_close(prediction.native_logits, scores.log())
    share = scores / scores.sum(1, keepdim=True)
    torch.testing.assert_close(prediction.native_logits.softmax(1), share)
    accepted = (classes.amax(2)[..., None, None] * masks).sum(1)
    torch.testing.assert_close(prediction.queries.accepted, accepted)
    with pytest.raises(ModelError, match="queries"):
        prediction.require_features("x")


def test_what_a_network_prints_goes_to_stderr(capsys):
    load(Tiny(lambda x: print("hello") or x))(torch.rand(1, 3, 32, 32))
    out, err = capsys.readouterr()
    assert (out, "hello" in err) == ("", True)


def test_uint8_and_float_give_the_same():
    segmenter = load(Tiny())
    images = torch.randint(0, 256, (2, 3, 24, 24), dtype=torch.uint8)
    assert torch.equal(segmenter(images).logits, segmenter(images.float() / 255).logits)


def test_is_a_segmenter_that_leaves_no_hooks_and_runs_in_evaluation_mode():
    network = nn.Sequential(nn.Dropout(0.5), Tiny())
    segmenter, images = load(network), torch.rand(1, 3, 32, 32)
    assert isinstance(segmenter, Segmenter)
    assert isinstance(segmenter, NetworkSegmenter)
    first = segmenter(images)
    network.train()
    assert torch.equal(first.logits, segmenter(images).logits)
    assert not first.logits.requires_grad
    assert not any(layer._forward_hooks for layer in network.modules())


def test_description_tells_what_was_found():
    segmenter = load(Tiny(), input_size=(32, 32), mean=(0, 0, 0), std=(1, 1, 1))
    assert segmenter.description["classes"] is None
    segmenter(torch.rand(1, 3, 50, 60))
    assert segmenter.description == {
        "source": "Tiny",
        "kind": "module",
        "classes": CLASSES,
        "asked": dict.fromkeys(("activation", "classifier", "divisor", "output", "resize")),
        "output": None,
        "form": "logits",
        "classifier": "classifier",
        "features": FEATURES,
        "features_missing": None,
        "stride": 4,
        "align_corners": False,
        "input_size": [32, 32],
        "divisor": None,
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
        "normalisation": "given",
        "channels": "rgb",
        "bands": None,
        "notes": [],
        "sha256": None,
    }
