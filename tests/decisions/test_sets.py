"""Label sets: what is in them, what they promise, and their files."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import doubtmap as dm
from doubtmap.decisions.sets import (
    COUNT,
    Nonconformity,
    check_sets,
    fit_sets,
    images_needed,
    level_of,
    steps_needed,
    steps_of,
)
from doubtmap.engine import Pairs
from doubtmap.prediction import FittedScore, Prediction
from doubtmap.reports.sets import BAR, packed, read_sets, sizes_picture, unpacked, write_sets
from doubtmap.scores.parsing import parse_scores
from doubtmap.scores.sets import FORMS, FREE, MOST, PENALTY, PERS, LabelSets, nonconformity
from doubtmap.streets.synthetic import SyntheticStreets


def drawn(count, seed=0):
    return SyntheticStreets(count, seed=seed, size=(64, 64))


@pytest.fixture(scope="module")
def demo():
    return dm.load("demo")


@pytest.fixture(scope="module")
def streets():
    return drawn(6, seed=1)


def predicted(logits):
    return Prediction(logits, (logits.shape[-2], logits.shape[-1]))


def random_prediction(seed, classes=4, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return predicted(scale * torch.randn(1, classes, 6, 8, generator=generator))


class TestNonconformity:
    @pytest.mark.parametrize("form", FORMS)
    def test_it_is_what_the_docstring_says(self, form):
        prediction = random_prediction(0, 5)
        strange = nonconformity(prediction.logits, prediction.classes, form)[0]
        p = prediction.probabilities.double()[0]
        for row, column in ((0, 0), (3, 5), (5, 7)):
            here = p[:, row, column]
            for c in range(5):
                rank = 1 + int((here > here[c]).sum())
                expected = {
                    "lac": -here[c].log(),
                    "aps": -here[here <= here[c]].sum().log(),
                    "raps": -here[here <= here[c]].sum().log() + PENALTY * max(rank - FREE, 0),
                }[form]
                expected = 0.0 if rank == 1 else float(expected)
                assert strange[c, row, column] == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("scale", [0.0, 1e-3, 500.0])
    def test_the_predicted_class_is_always_in_the_set(self, form, scale):
        prediction = random_prediction(1, scale=scale)
        for level in (0.0, 0.5, MOST):
            contains = LabelSets(torch.tensor([level]), form).contains(prediction)
            assert bool(contains.gather(1, prediction.classes[:, None]).all())
            assert level < MOST or bool(contains.all())

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 1000), st.sampled_from(FORMS), st.integers(0, COUNT - 1))
    def test_steps_and_levels_say_the_same(self, seed, form, step):
        """What was counted in the fit is what is in the set, to the last bit."""
        prediction = random_prediction(seed, scale=float(10.0 ** (seed % 5 - 2)))
        sets = LabelSets(torch.tensor([level_of(step)]), form)
        assert torch.equal(sets.contains(prediction), steps_of(prediction, form) <= step)

    def test_sets_grow_with_the_level_and_keep_to_the_order(self):
        prediction = random_prediction(2, 6)
        before = torch.zeros(1, 6, 6, 8, dtype=torch.bool)
        for level in (0.0, 0.1, 1.0, 3.0, 20.0):
            now = LabelSets(torch.tensor([level]), "aps").contains(prediction)
            assert bool((now | ~before).all())
            least_in = prediction.probabilities.where(now, torch.tensor(2.0)).amin(1)
            most_out = prediction.probabilities.where(~now, torch.tensor(-1.0)).amax(1)
            assert bool((least_in >= most_out).all())
            before = now


class TestChoosing:
    def test_the_lowest_step_that_keeps_the_bound(self):
        generator = np.random.default_rng(0)
        shares = generator.dirichlet(np.full(12, 0.3), size=(3, 20)).sum(1)
        images = np.array([20, 20, 20])
        for alpha in (0.05, 0.1, 0.3):
            for row, step in zip(shares, steps_needed(shares, images, alpha)):
                bound = [(row[k + 1 :].sum() + 1) / 21 for k in range(12)]
                assert bound[step] <= alpha
                assert step == 0 or bound[step - 1] > alpha

    def test_too_few_images_leave_every_class(self):
        assert steps_needed(np.array([[1.0, 1.0, 0.0]]), np.array([2]), 0.1).tolist() == [2]

    @pytest.mark.parametrize(("alpha", "needed"), [(0.5, 1), (0.1, 9), (0.05, 19), (1 / 3, 2)])
    def test_images_needed(self, alpha, needed):
        assert images_needed(alpha) == needed
        assert 1 / (needed + 1) <= alpha + 1e-12 < 1 / needed + 1e-9

    @pytest.mark.parametrize("per", PERS)
    def test_the_promise_holds_in_the_mean_over_splits(self, per):
        """Exchangeable images: the expected missed share is at most alpha, and near it."""
        generator = torch.Generator().manual_seed(0)
        alpha, missed = 0.2, []
        for _ in range(30):
            images = []
            for _ in range(24):
                hard = 0.3 + 2 * torch.rand(1, generator=generator)
                prediction = predicted(2 * torch.randn(1, 3, 8, 8, generator=generator))
                chance = (prediction.logits / hard).softmax(1).movedim(1, -1).reshape(-1, 3)
                label = chance.multinomial(1, generator=generator).reshape(1, 8, 8)
                images.append((prediction, label))
            rows = 2 if per == "place" else 1
            blank = LabelSets(torch.zeros(1), "lac", per, alpha, rows, 1)
            groups = {"image": 1, "class": 3, "place": 6}[per]
            fit, test = Nonconformity.empty(groups), Nonconformity.empty(groups)
            for number, (prediction, label) in enumerate(images):
                (fit if number < 12 else test).update(prediction, label, blank)
            chosen = steps_needed(fit.shares, fit.images, alpha)
            out = np.arange(COUNT) > chosen[:, None]
            missed.append((test.shares * out).sum(1) / test.images)
        mean = np.mean(missed, 0)
        assert (mean <= alpha + 0.02).all()
        assert (mean >= alpha / 3).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("per", PERS)
def test_figures_are_those_of_the_sets(demo, streets, form, per):
    sets = fit_sets(demo, streets, alpha=0.2, form=form, per=per, places=(2, 2))
    covered, count, pixels = 0, 0, 0
    for prediction, label in Pairs(demo, streets):
        contains, there = sets.contains(prediction), label >= 0
        truth = contains.gather(1, label.clamp_min(0)[:, None])[:, 0]
        covered += int(truth[there].sum())
        count += int(contains.sum(1)[there].sum())
        pixels += int(there.sum())
        assert torch.equal(sets(prediction), contains.sum(1).float())
    assert sets.figures["covered"] == pytest.approx(covered / pixels)
    assert sets.figures["classes"] == pytest.approx(count / pixels)
    again, notes = check_sets(demo, streets, sets)
    assert again == pytest.approx(sets.figures)
    assert "6 of 6 images" in notes[0]


def test_void_counts_for_nothing(streets):
    prediction = random_prediction(3)
    label = torch.randint(0, 4, (1, 6, 8), generator=torch.Generator().manual_seed(0))
    label[0, 2:] = -2
    blank = LabelSets(torch.zeros(1))
    sums = Nonconformity.empty(1)
    sums.update(prediction, label, blank)
    assert sums.pixels.sum() == 16 and sums.classes.sum() == 64 and sums.shares.sum() == 1
    sums.update(prediction, torch.full_like(label, -2), blank)
    assert sums.seen.tolist() == [1, 2] and sums.images.tolist() == [1]


def test_merging_is_one_pass():
    blank, whole = LabelSets(torch.zeros(1), per="class"), Nonconformity.empty(4)
    parts = [Nonconformity.empty(4), Nonconformity.empty(4)]
    for seed in range(4):
        label = torch.randint(-1, 4, (1, 6, 8), generator=torch.Generator().manual_seed(seed))
        for sums in (whole, parts[seed % 2]):
            sums.update(random_prediction(seed), label, blank)
    merged = parts[0] + parts[1]
    for name, array in whole.state().items():
        np.testing.assert_allclose(merged.state()[name], array, rtol=1e-12)


def test_a_class_of_too_few_images_is_in_every_set(demo, streets):
    sets = fit_sets(demo, streets, alpha=0.2, per="class")
    few = [note for note in sets.notes if "is in every set" in note]
    short = (sets.levels == MOST).nonzero()[:, 0].tolist()
    assert len(few) == len(short)
    prediction = demo(streets[0].image[None])
    assert bool(sets.contains(prediction)[:, short].all())
    assert all("4 are needed" in note for note in few)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"alpha": 0.01}, dm.DataError, "at least 99 images that hold a labelled pixel.*got 6"),
        ({"alpha": 1.5}, dm.UsageError, "a share between 0 and 1"),
        ({"form": "best"}, dm.UsageError, "--form lac, aps, raps"),
        ({"per": "pixel"}, dm.UsageError, "--per image, class, place"),
        ({"per": "place", "places": (0, 4)}, dm.UsageError, "--places: expected rows"),
        ({"per": "place", "places": (99, 99)}, dm.UsageError, "Take fewer --places"),
    ],
)
def test_bad_requests(demo, streets, options, error, message):
    with pytest.raises(error, match=message):
        fit_sets(demo, streets, **options)


def test_a_file_gives_back_what_was_saved(demo, streets, tmp_path):
    sets = fit_sets(demo, streets, alpha=0.2, per="place", places=(2, 1), command="doubtmap ...")
    sets.save(tmp_path / "s")
    again = LabelSets.load(tmp_path / "s")
    assert torch.equal(again.levels, sets.levels) and again.digest == sets.digest
    assert (again.figures, again.notes, again.origin) == (sets.figures, sets.notes, sets.origin)
    ((name, score),) = parse_scores(f"sets:{tmp_path / 's'}").items()
    assert name == "sets" and isinstance(score, FittedScore)
    other = predicted(torch.zeros(1, 3, 2, 2))
    with pytest.raises(dm.ModelError, match="sets: expected a network of"):
        score(other)
    (tmp_path / "s").write_bytes((tmp_path / "s").read_bytes()[:-1])
    with pytest.raises(dm.DataError, match=r"fitted label sets.*--by sets"):
        LabelSets.load(tmp_path / "s")


@pytest.mark.parametrize("classes", [2, 8, 9, 16, 19, 33, 64, 65, 150])
def test_bits_are_classes(classes, tmp_path):
    contains = np.random.default_rng(0).random((classes, 5, 7)) < 0.3
    bits = packed(contains)
    width = bits.dtype.itemsize * 8
    assert bits.shape[:2] == (5, 7) and (bits.ndim == 2) == (classes <= 64)
    first = bits if bits.ndim == 2 else bits[..., 0]
    assert np.array_equal(first >> first.dtype.type(1) & first.dtype.type(1), contains[1])
    assert np.array_equal(unpacked(bits, classes), contains)
    write_sets(tmp_path / "b.npy", contains)
    assert np.array_equal(read_sets(tmp_path / "b.npy", classes), contains)
    with pytest.raises(dm.UsageError, match="expected at most"):
        read_sets(tmp_path / "b.npy", width * bits[0, 0].size + 1)


def test_files_that_are_no_sets(tmp_path):
    np.save(tmp_path / "f.npy", np.zeros((2, 2)))
    (tmp_path / "g.npy").write_bytes(b"nothing")
    for name in ("f.npy", "g.npy", "h.npy"):
        with pytest.raises(dm.DataError, match="expected label sets"):
            read_sets(tmp_path / name, 2)


def test_the_picture_says_how_many():
    sizes = np.repeat(np.array([[1, 1, 2, 9]]), 30, 1).repeat(8, 0)
    picture = sizes_picture(sizes, 9)
    pixels = np.asarray(picture)
    assert pixels.shape == (8 + BAR, 120)
    assert np.array_equal(pixels[:8], sizes)
    assert {1, 2} <= set(pixels[8:].reshape(-1).tolist())
    assert picture.getpalette()[:3] == [255, 255, 255]


def test_the_command_line(run, tmp_path):
    file, image, out = tmp_path / "s", tmp_path / "i.png", tmp_path / "out"
    code, said, err = run("threshold", "demo", "synthetic:4", "--by", "sets", "--alpha", "0.3",
                          "--per", "class", "--out", file)  # fmt: skip
    assert code == 0, err
    assert said.startswith(f"{file}: sets of ") and "of the worst class" in said
    code, said, err = run("threshold", "demo", "synthetic:2", "--seed", 5, "--check", file)
    assert code == 0, err
    assert "missed was to stay below 0.3, as an expectation over images" in said
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 40, 3), np.uint8)).save(image)
    for _ in range(2):
        code, said, err = run("score", "demo", image, "--scores", f"sets:{file}", "--out", out,
                              "--resume")  # fmt: skip
        assert code == 0, err
    about = json.loads((out / "score.json").read_text())
    assert about["sets"] == {"sets": ["sets_bits", "sets_size"]}
    contains = read_sets(out / "sets_bits" / "i.npy", len(about["class_names"]))
    sizes = dm.read_map(out / "sets" / "i.png")
    np.testing.assert_allclose(sizes, contains.sum(0), atol=1e-3)
    assert np.array_equal(np.asarray(Image.open(out / "sets_size" / "i.png"))[:32], contains.sum(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--by", "sets", "--scores", "entropy"], "--places only, got --scores. Leave it out."),
        (["--by", "sets", "--at", "0"], "--places only, got --at. Leave it out."),
        (["--by", "sets", "--places", "2x2"], "--places: expected it with --per place"),
        (["--by", "sets", "--per", "place", "--places", "2"], "such as 4x4, got '2'"),
        (["--by", "f1", "--form", "lac"], "--places with --by sets only"),
    ],
)
def test_bad_command_lines(run, tmp_path, options, message):
    code, _, err = run("threshold", "demo", "synthetic:2", "--out", tmp_path / "s", *options)
    assert code == 2
    assert message in err
