"""What `doubtmap score` holds on to while the network works."""

import json
import types
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from doubtmap.datasets.reading import Rendering
from doubtmap.datasets.survey import survey
from doubtmap.prediction import Prediction
from doubtmap.reports.scales import natural_scale
from doubtmap.scores import divergence, entropy, gradient, margin, max_softmax
from doubtmap.scoring import write_scores
from doubtmap.segments.page import _card, write_segments


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


@pytest.mark.parametrize(
    ("score", "surest", "most_doubtful"),
    [
        (max_softmax, 0.0, 2 / 3),
        (margin, 0.0, 1.0),
        (entropy, 0.0, 1.0986123),
        (divergence, -0.6931472, 0.0),
    ],
    ids=["max_softmax", "margin", "entropy", "divergence"],
)
def test_the_overlay_of_a_bounded_score_goes_from_its_least_to_its_most(
    score, surest, most_doubtful
):
    """The bounds are the formula's: a sure pixel has the least, three equal logits the most."""
    low, high = natural_scale(score.__name__, 3)
    assert (low, high) == pytest.approx((surest, most_doubtful), abs=1e-6)
    logits = torch.tensor([[0.0, 0.0, 0.0], [8.0, 8.0, -8.0], [2.0, 1.0, 0.0], [40.0, 0.0, 0.0]])
    doubt = score(Prediction(logits.T[None, :, :, None], (4, 1)))
    assert doubt.min() >= low - 1e-6
    assert doubt.max() <= high + 1e-6
    assert float(doubt[0, 0, 0]) == pytest.approx(high, abs=1e-6)


def test_scores_without_bounds_have_no_natural_scale():
    assert natural_scale("max_logit", 3) is None


def test_a_range_is_asked_for_and_told(run, tmp_path):
    """The same numbers are darker where white is asked to be brighter; notes are on stderr."""
    values = np.arange(32 * 48, dtype=np.uint16).reshape(32, 48)
    Image.fromarray(values).save(tmp_path / "a.png")
    line = ("score", "demo", tmp_path / "a.png", "--scores", "entropy")
    code, _, told = run(*line, "--out", tmp_path / "bits")
    assert code == 0 and "0 to 2047 was taken as black to white" in told
    code, _, told = run(*line, "--out", tmp_path / "asked", "--range", "0,4000")
    assert code == 0 and "0 to 4000 is black to white" in told
    code, _, told = run(*line, "--out", tmp_path / "no", "--range", "5")
    assert code == 2 and "--range: expected LOW,HIGH" in told


@pytest.fixture
def deep(tmp_path):
    """Images of 12 of 16 bits, one of them dark."""
    paths = []
    for top in (4000, 200):
        values = np.linspace(0, top, 64 * 48).reshape(48, 64).astype(np.uint16)
        paths.append(tmp_path / f"{top}.png")
        Image.fromarray(values).save(paths[-1])
    return paths


def test_deep_images_have_one_range_in_objects_and_info(deep, tmp_path, run):
    line = ("objects", "demo", *map(str, deep), "--threshold", "0.5", "--out", str(tmp_path / "o"))
    code, _, error = run(*line)
    assert code == 0 and "so 0 to 4095 was taken as black to white in all of them" in error
    info = json.loads((tmp_path / "o/objects.json").read_text())["info"]
    assert info["range"] == [0, 4095]
    code, said, _ = run("info", "demo", str(deep[1]))
    assert code == 0 and "so 0 to 255 was taken" in said
    code, said, _ = run("info", "demo", str(deep[1]), "--range", "0,4095")
    assert code == 0 and "0 to 4095 is black to white" in said
    code, _, error = run("info", "demo", str(deep[1]), "--range", "9,3")
    assert code == 2 and "--range: expected LOW,HIGH" in error


def test_cards_of_a_review_show_images_as_the_run_read_them(deep, tmp_path):
    """The dark image stays dark, though by itself it would be stretched to white."""
    review = types.SimpleNamespace(
        names=[str(path) for path in deep],
        card=lambda index, pixels, labels, name: pixels,
    )
    (tmp_path / "segments").mkdir()
    write_segments(tmp_path / "segments/200.png", np.zeros((48, 64), np.int32))
    names = {path: path.stem for path in deep}
    rendering = survey([(path, None) for path in deep], Rendering()).rendering
    pixels = _card(tmp_path, review, 1, names, rendering)
    assert pixels.max() == round(200 * 255 / 4095)
