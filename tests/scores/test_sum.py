"""`sum`: scores brought to one scale by ordinary images, and added up."""

from dataclasses import replace

import pytest
import torch
from predictions import random_prediction

import doubtmap as dm
from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.fitting import fit_score
from doubtmap.scores import Sum, entropy, island, margin
from doubtmap.scores.parsing import open_scores, parse_scores
from doubtmap.streets.synthetic import SyntheticStreets

SCORES = {"entropy": entropy, "island": island}


@pytest.fixture(scope="module")
def images():
    torch.manual_seed(0)
    return [random_prediction() for _ in range(3)]


def test_each_score_counts_in_deviations_from_its_mean_on_all_pixels(images):
    fitted = Sum.fit(images, SCORES)
    wanted = 0
    for score in SCORES.values():
        every = torch.cat([score(image).flatten() for image in images]).double()
        wanted = wanted + (score(images[0]) - every.mean()) / every.std(correction=0)
    torch.testing.assert_close(fitted(images[0]), wanted.float(), rtol=1e-4, atol=1e-4)
    every = torch.cat([fitted(image).flatten() for image in images])
    assert every.mean().item() == pytest.approx(0, abs=1e-4)


def test_a_bound_holds_each_score_and_a_wide_one_none(images):
    scores = {"entropy": entropy, "far": lambda p: 1e6 * (entropy(p) > 1).float() + margin(p)}
    plain, tight, wide = (Sum.fit(images, scores, bound=b) for b in (0.0, 0.5, 1e5))
    assert tight(images[0]).abs().max() <= 2 * 0.5
    torch.testing.assert_close(wide(images[0]), plain(images[0]))
    assert len({fitted.digest for fitted in (plain, tight, wide)}) == 3


@pytest.mark.parametrize(
    ("images", "scores", "error", "message"),
    [
        (1, {"entropy": entropy}, UsageError, "two or more scores"),
        (0, SCORES, DataError, "expected images, found none"),
        (1, {"entropy": entropy, "same": lambda p: 0 * entropy(p)}, DataError, "same is the same"),
        (1, SCORES | {"odd": lambda p: entropy(p) / 0}, DataError, "finite values of odd"),
    ],
)
def test_what_cannot_be_added(images, scores, error, message):
    with pytest.raises(error, match=message):
        Sum.fit([random_prediction()][:images], scores)
    with pytest.raises(UsageError, match="bound of at least 0"):
        Sum.fit([random_prediction()], SCORES, bound=-1.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A density and a sum with it in it, fitted to photographs without labels."""
    folder = tmp_path_factory.mktemp("sum")
    demo, streets = dm.load("demo"), SyntheticStreets(2, size=(64, 96))
    density = folder / "density.st"
    fit_score("density(labels=predicted)", demo, streets, out=density)
    fit_score("sum", demo, streets, scores=f"density:{density},island", out=folder / "sum.st")
    return demo, streets, folder


def test_a_file_says_what_the_fit_said(files):
    demo, streets, folder = files
    (score,) = parse_scores(f"sum:{folder / 'sum.st'}").values()
    (held,) = parse_scores(f"sum(bound=2):{folder / 'sum.st'}").values()
    assert len(score.origin.images) == 2 and score.layers
    prediction = demo.listening(score.layers)(streets[0].image[None])
    parts = [part(prediction) for part in open_scores(score.texts).values()]
    scales = zip(parts, score.means.tolist(), score.deviations.tolist())
    wanted = sum((part - mean) / deviation for part, mean, deviation in scales)
    torch.testing.assert_close(score(prediction), wanted, rtol=1e-4, atol=1e-4)
    assert held(prediction).abs().max() <= 4


def test_another_density_in_its_place_is_noticed(files, tmp_path):
    demo, streets, folder = files
    file = tmp_path / "sum.st"
    file.write_bytes((folder / "sum.st").read_bytes())
    text = (folder / "density.st").read_bytes()
    try:
        fit_score("density", demo, streets, out=folder / "density.st")
        with pytest.raises(DataError, match="holds another"):
            parse_scores(f"sum:{file}")
    finally:
        (folder / "density.st").write_bytes(text)


def test_another_network_is_noticed(images):
    fitted = Sum.fit(images, SCORES)
    narrow = replace(fitted, origin=replace(fitted.origin, fingerprint=(0.0, 1.0)))
    with pytest.raises(ModelError, match="2 classes"):
        narrow.features(images[0])
