"""Meta models fitted to a network and images, and reviews by them."""

import csv
import functools
import json

import numpy as np
import pytest
import torch
from PIL import Image

import doubtmap
from doubtmap import DataError, ModelError, Prediction, UsageError
from doubtmap.engine.splitting import folds_of
from doubtmap.evaluation.asking import Options
from doubtmap.scores.parsing import parse_scores
from doubtmap.segments import MetaModel, expected_figures
from doubtmap.segments.fitted import segments_table, write_reliability
from doubtmap.segments.fitting import fit_segments, labelled_segments, parse_segments
from doubtmap.segments.judging import cross_calibrated, platt
from doubtmap.segments.look_first import area, look_first, share_found
from doubtmap.segments.meta import inputs
from doubtmap.segments.page import Choice, read_segments, write_review, write_segments
from doubtmap.segments.review import review
from doubtmap.streets import synthetic


@pytest.fixture(scope="module", autouse=True)
def smaller_streets():
    """`synthetic:N` draws them."""
    with pytest.MonkeyPatch.context() as patch:
        small = functools.partial(synthetic.SyntheticStreets, size=(192, 288))
        patch.setattr(synthetic, "SyntheticStreets", small)
        yield


@pytest.fixture(scope="module")
def demo():
    return doubtmap.load("demo")


@pytest.fixture(scope="module")
def fit(demo, tmp_path_factory):
    out = tmp_path_factory.mktemp("fit") / "segments.safetensors"
    dataset = doubtmap.open_dataset("synthetic:10")
    found = fit_segments(demo, dataset, "entropy", "linear", out=out, command="here")
    return found, out


@pytest.fixture
def images(tmp_path):
    dataset = doubtmap.open_dataset("synthetic:3", seed=5)
    for index in range(3):
        pixels = (dataset[index].image.permute(1, 2, 0).numpy()).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"street{index}.png")
    return sorted(tmp_path.glob("*.png"))


def test_the_probability_is_calibrated_on_images_that_it_has_not_seen(fit):
    found, _ = fit
    cross, table = found.compared["all"], found.segments.table
    folds, _ = folds_of(table.image_names, 5)
    judged, true = np.isfinite(table.iou), table.iou > 0
    held = np.isin(table.image, folds[0])
    rest = judged & ~held
    slope, shift = platt(cross.probability[rest], true[rest])
    p = cross.probability[held]
    expected = 1 / (1 + (p / (1 - p)) ** -slope * np.exp(-shift))
    assert cross_calibrated(cross, table, folds)[held] == pytest.approx(expected)
    plain = MetaModel.fit(table, "linear")
    slope, shift = platt(cross.probability[judged], true[judged])
    raw = plain.touches(inputs(table, plain.names))
    assert found.model.probability(table) == pytest.approx(1 / (1 + np.exp(-slope * raw - shift)))
    gaps = [told.figures["gap"] for told in found.reliability.values()]
    assert gaps[1] < gaps[0]
    assert "P(touches its class), calibrated: ECE" in segments_table(found)
    write_reliability(found, fit[1].with_suffix(".html"))
    assert "<h2>calibrated</h2>" in fit[1].with_suffix(".html").read_text()


def test_figures_come_from_images_that_were_not_fitted_to(fit):
    found, out = fit
    assert set(found.compared) == {"entropy (mean)", "entropy", "sizes and probabilities", "all"}
    cross, table = found.compared["all"], found.segments.table
    assert len(cross.runs) == 5
    assert np.mean([run.auroc for run in cross.runs]) > 0.6
    held = folds_of(table.image_names, 5)[0][2]
    inside = np.isin(table.image, held)
    other = MetaModel.fit(table.take(~inside), "linear")
    assert np.array_equal(cross.expected_iou[inside], other.expected_iou(table.take(inside)))
    miou, wrong = expected_figures(table, cross.expected_iou)
    assert np.array_equal(found.images, [miou, wrong])
    again = MetaModel.load(out)
    assert np.array_equal(again.probability(table), found.model.probability(table))
    assert again.origin == found.model.origin
    assert len(again.origin.images) == 10


def test_labels_of_images_are_counted_right(demo):
    dataset = doubtmap.open_dataset("synthetic:2")
    found = labelled_segments(demo, dataset, parse_scores("entropy"))
    results = doubtmap.evaluate(demo, dataset, "entropy", replicates=20)
    pixels = results.figures["data"]["pixels"]
    assert pixels["unknown"] > 0
    assert found.labelled.sum() == pixels["known"] + pixels["unknown"]
    wrong = (1 - results.figures["segmentation"]["accuracy"]) * pixels["known"]
    assert found.wrong.sum() == pytest.approx(wrong + pixels["unknown"])
    assert ((found.miou >= 0) & (found.miou <= 1)).all()


def test_a_review_ranks_images_and_names_segments(demo, fit, images, tmp_path):
    model = fit[0].model
    out = tmp_path / "out"
    said = write_review(demo, images, model, out, choice=Choice(2), command="doubtmap review ...")
    assert said.startswith("3 images reviewed")
    with (out / "images.csv").open() as file:
        ranked = list(csv.DictReader(file))
    wrong = [float(row["expected_wrong_share"]) for row in ranked]
    assert wrong == sorted(wrong, reverse=True)
    with (out / "segments.csv").open() as file:
        segments = list(csv.DictReader(file))
    labels = read_segments(out / "segments" / "street0.png")
    mine = [row for row in segments if row["image"].endswith("street0.png")]
    assert len(mine) == labels.max() + 1
    row = mine[-1]
    where = np.argwhere(labels == int(row["segment"]))
    assert (int(row["top"]), int(row["left"])) == tuple(where.min(0))
    assert len(where) == float(row["size"])
    page = (out / "review.html").read_text()
    assert page.count("<section>") == 2
    assert ranked[0]["pixels"].removeprefix("segments/").removesuffix(".png") in page
    about = json.loads((out / "review.json").read_text())
    assert about["segments"]["data"] == model.origin.data
    assert not list(out.glob("*.part"))


def test_a_review_does_not_review_itself(demo, fit, images, tmp_path):
    for _ in range(2):
        everything = sorted(tmp_path.rglob("*.png"))
        said = write_review(demo, everything, fit[0].model, tmp_path / "out")
        assert said.startswith("3 images reviewed")


def test_images_of_one_name_keep_their_segments(demo, fit, images, tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "street0.png").write_bytes(images[1].read_bytes())
    paths = [images[0], tmp_path / "b" / "street0.png"]
    out = tmp_path / "out"
    write_review(demo, paths, fit[0].model, out)
    with (out / "segments.csv").open() as file:
        rows = list(csv.DictReader(file))
    for path in paths:
        mine = [row for row in rows if row["image"] == str(path)]
        labels = read_segments(out / mine[0]["pixels"])
        assert labels.max() + 1 == len(mine)
        assert (labels == 3).sum() == float(mine[3]["size"])


def test_images_can_be_ranked_by_miou(demo, fit, images):
    found = review(demo, images, fit[0].model)
    assert (np.diff(found.expected_miou[found.order("miou")]) >= 0).all()
    with pytest.raises(UsageError, match="wrong or miou"):
        found.order("luck")


def test_suspects_are_the_largest_losses_first(demo, fit, images):
    found = review(demo, images, fit[0].model)
    for image in range(3):
        suspects = found.suspects(image, 100)
        mine = found.table.take(found.table.image == image)
        assert mine.segment.tolist() == list(range(len(mine)))
        size = mine["size"][[suspect.segment for suspect in suspects]]
        loss = size * [1 - suspect.expected_iou for suspect in suspects]
        assert (np.diff(loss) <= 0).all()
        assert all(suspect.probability < 0.5 for suspect in suspects)


def test_a_review_of_labelled_images_is_held_to_them(demo, fit):
    dataset = doubtmap.open_dataset("synthetic:4", seed=7)
    found = look_first(demo, dataset, fit[0].model, first=2)
    true = labelled_segments(demo, dataset, fit[0].model.scores)
    assert len(found.cards) == 2
    assert found.cards[0].expected_wrong >= found.cards[1].expected_wrong
    for card in found.cards:
        index = true.table.image_names.index(card.name)
        assert card.wrong == true.wrong_share[index]
        assert np.array_equal(card.image, dataset[index].image.permute(1, 2, 0).numpy())
    assert 0 < found.figures["found_area"] <= found.figures["found_area_oracle"] < 1
    assert found.curves["expected"][0] == 0
    assert found.curves["expected"][-1] == pytest.approx(1)


def test_what_is_found_by_hand():
    found = share_found(np.array([0.1, 0.9, 0.5]), np.array([1.0, 2.0, 5.0]))
    np.testing.assert_allclose(found, [0, 2 / 8, 7 / 8, 1])
    assert area(found) == pytest.approx((1 / 8 + 9 / 16 + 15 / 16) / 3)


def test_segment_pictures_hold_large_numbers(tmp_path):
    labels = np.array([[0, 255, 256], [65535, 65536, 2**24 - 1]], np.int32)
    write_segments(tmp_path / "x.png", labels)
    assert np.array_equal(read_segments(tmp_path / "x.png"), labels)


class Other:
    """The network, with other logits."""

    def __init__(self, segmenter, change):
        self.segmenter, self.change = segmenter, change
        self.class_names = segmenter.class_names
        self.description = segmenter.description

    def __call__(self, images):
        made = self.segmenter(images)
        return Prediction(self.change(made.native_logits), made.size)


@pytest.mark.parametrize("change", [lambda x: 2 * x, lambda x: x[:, 1:]])
def test_another_network_is_refused(demo, fit, images, change):
    with pytest.raises(ModelError, match="doubtmap fit segments"):
        review(Other(demo, change), images, fit[0].model)


def test_evaluate_refuses_another_network_before_any_work(demo, fit):
    calls = []
    other = Other(demo, lambda x: calls.append(1) or 2 * x)
    dataset = doubtmap.open_dataset("synthetic:3")
    with pytest.raises(ModelError, match="doubtmap fit segments"):
        doubtmap.evaluate(other, dataset, "entropy", options=Options(segments=fit[0].model))
    assert len(calls) < 3


def test_evaluate_says_that_images_were_fitted_to(demo, fit):
    dataset = doubtmap.open_dataset("synthetic:10")
    results = doubtmap.evaluate(
        demo, dataset, "entropy", options=Options(segments=fit[0].model), replicates=20
    )
    assert any(
        "10 of 10 images" in note and "segments" in note for note in results.figures["notes"]
    )


def test_too_few_images_are_refused(demo):
    with pytest.raises(UsageError, match="at least 2 images"):
        fit_segments(demo, doubtmap.open_dataset("synthetic:1"), "entropy")


def test_an_image_that_cannot_be_read_is_counted_or_ends_the_review(demo, fit, images, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.png"):
        review(demo, [*images, broken], fit[0].model)
    said = write_review(demo, [*images, broken], fit[0].model, tmp_path / "o", skip_bad=True)
    assert "1 could not be used" in said


def test_one_segment_is_no_failure(fit):
    logits = torch.zeros(1, len(fit[0].model.origin.fingerprint), 4, 4)
    logits[:, 0] = 5
    from doubtmap.segments import segment_table

    prediction = Prediction(logits, (8, 8), class_names=doubtmap.load("demo").class_names)
    maps = {name: score(prediction)[0] for name, score in fit[0].model.scores.items()}
    table = segment_table(prediction, maps)
    assert len(table) == 1
    assert 0 <= fit[0].model.probability(table)[0] <= 1


def test_the_published_target_can_be_asked_for(demo):
    assert parse_segments("segments(kind=linear, target=published)") == ("linear", "published")
    assert parse_segments("segments") == ("boosting", "iou")
    assert parse_segments("density") is None
    for wrong in ("segments(target=dice)", "segments(depth=3)", "segments(kind=linear"):
        with pytest.raises(UsageError, match="fit: "):
            parse_segments(wrong)
    dataset = doubtmap.open_dataset("synthetic:2")
    found = {
        target: fit_segments(demo, dataset, "entropy", "linear", target=target, compare=False)
        for target in ("iou", "published")
    }
    own, published = (each.segments.table.iou for each in found.values())
    assert (own <= published)[np.isfinite(own)].all()
    assert (own < published).any()
    assert any("too high" in note for note in found["published"].notes)
    assert found["published"].model.origin.facts["target"] == "published"
