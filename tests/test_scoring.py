"""What `doubtmap score` holds on to while the network works."""

import dataclasses
import json
import types
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import doubtmap as dm
from doubtmap.datasets.reading import Rendering
from doubtmap.datasets.survey import survey
from doubtmap.fitting import fit_score
from doubtmap.images import score_images, write_scores
from doubtmap.objects import ObjectRule
from doubtmap.objects.writing import write_objects
from doubtmap.prediction import Prediction
from doubtmap.reports.scales import natural_scale
from doubtmap.scores import divergence, entropy, gradient, margin, max_softmax
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


class GivesNaN(nn.Module):
    """Divides by an image's contrast, which black images lack."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.classifier((x - x.mean()) / x.std())


@pytest.fixture
def one_black(tmp_path):
    """Three photographs, the second of them black."""
    (folder := tmp_path / "photographs").mkdir()
    for number, high in enumerate((255, 0, 255)):
        pixels = torch.randint(0, high + 1, (24, 32, 3), dtype=torch.uint8).numpy()
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


def nan_segmenter():
    return dm.load(GivesNaN(), mean=(0, 0, 0), std=(1, 1, 1), classes=["a", "b", "c", "d"])


def test_an_image_that_gives_nan_is_named_in_every_pass_over_files(one_black, tmp_path):
    entropy = {"entropy": dm.scores.entropy}
    with pytest.raises(dm.DataError, match=r"1\.png: network: expected finite logits"):
        list(score_images(nan_segmenter(), one_black, entropy))
    said = write_scores(nan_segmenter(), one_black, entropy, tmp_path / "s", skip_bad=True)
    assert "2 of 3 images scored, 1 could not be used, such as 1.png" in said
    assert not (tmp_path / "s" / "entropy" / "1.png").exists()
    found = write_objects(
        nan_segmenter(),
        one_black,
        ("entropy", dm.scores.entropy),
        ObjectRule(1.3, 1),
        tmp_path / "o",
        skip_bad=True,
    )
    assert found["images"] == 2 and [Path(path).name for path in found["skipped"]] == ["1.png"]


def test_no_image_left_gives_the_reason(one_black, tmp_path):
    with pytest.raises(dm.DataError, match=r"none of the 1 .* used: .*1\.png: network: expected f"):
        write_scores(
            nan_segmenter(), one_black[1:2], {"entropy": entropy}, tmp_path / "out", skip_bad=True
        )


def test_a_score_that_gives_nan_for_one_image_is_counted(one_black, fresh_segmenter):
    def dark(prediction):
        values = dm.scores.entropy(prediction)
        return values / 0 * 0 if calls.append(1) or len(calls) == 2 else values

    calls: list[int] = []
    skipped: dict[Path, str] = {}
    kept = list(score_images(fresh_segmenter(), one_black, {"dark": dark}, skipped))
    assert [scored.path.name for scored in kept] == ["0.png", "2.png"]
    assert "1.png: dark: expected finite scores" in skipped[one_black[1]]


def test_evaluation_counts_an_image_that_gives_nan_and_says_why(one_black):
    pairs = [(str(path), torch.zeros(24, 32, dtype=torch.int64)) for path in one_black]
    with pytest.raises(dm.DataError, match=r"^000001: network: expected finite logits"):
        dm.evaluate(nan_segmenter(), pairs, scores=["entropy"], replicates=20)
    found = dm.evaluate(nan_segmenter(), pairs, scores=["entropy"], replicates=20, skip_bad=True)
    assert [*found.figures["data"]["skipped"]] == ["000001"]
    notes = " ".join(found.figures["notes"])
    assert "1 images could not be used, and were skipped: 000001: network: expected f" in notes


def test_a_fit_names_an_image_that_gives_nan(one_black, tmp_path):
    pairs = [(str(path), torch.zeros(24, 32, dtype=torch.int64)) for path in one_black]
    data = dm.open_dataset(pairs, classes=["a", "b", "c", "d"])
    for score in ("doubt(layer=classifier)", "density"):
        with pytest.raises(dm.DataError, match=r"^000001: network: expected finite logits"):
            fit_score(score, nan_segmenter(), data)


def test_arrays_in_place_of_logits_are_refused_in_a_sentence():
    with pytest.raises(dm.UsageError, match=r"got ndarray\. Convert an array with torch.from_n"):
        dm.scores.entropy(np.zeros((1, 3, 4, 4)))


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
    shown = dataclasses.make_dataclass("Shown", ["pixels", "path"])
    review = types.SimpleNamespace(
        names=[str(path) for path in deep],
        card=lambda index, pixels, labels, name: shown(pixels, ""),
    )
    (tmp_path / "segments").mkdir()
    write_segments(tmp_path / "segments/200.png", np.zeros((48, 64), np.int32))
    names = {str(path): path.stem for path in deep}
    rendering = survey([(path, None) for path in deep], Rendering()).rendering
    card = _card(tmp_path, review, 1, names, "", rendering)
    assert card.pixels.max() == round(200 * 255 / 4095) and Path(card.path) == deep[1]
