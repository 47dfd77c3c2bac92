"""What `doubtmap score` holds on to while the network works."""

import weakref

import pytest
import torch
from PIL import Image

from doubtmap.prediction import Prediction
from doubtmap.scores import entropy, gradient
from doubtmap.scoring import write_scores


class Forgetful:
    """A segmenter that notices when features of an earlier image are still there."""

    class_names = ("a", "b", "c")

    def __init__(self):
        self.description = {"source": "test"}
        self.features = []

    def __call__(self, images):
        assert not any(features() is not None for features in self.features)
        features = torch.rand(1, 8, 4, 4)
        self.features.append(weakref.ref(features))
        return Prediction(torch.randn(1, 3, 4, 4), tuple(images.shape[-2:]), features=features)


@pytest.mark.parametrize("format", ["png", "npy"])
def test_features_are_gone_before_the_next_image(tmp_path, format):
    paths = [tmp_path / f"{name}.png" for name in "abcd"]
    for path in paths:
        Image.new("RGB", (16, 12), "red").save(path)
    segmenter = Forgetful()
    scores = {"entropy": entropy, "gradient": gradient}
    write_scores(segmenter, paths, scores, tmp_path / "out", format=format)
    assert len(segmenter.features) == 4
    assert all((tmp_path / "out" / name / f"d.{format}").exists() for name in scores)
