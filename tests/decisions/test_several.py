"""One threshold that keeps several risks: what is counted, and how often the promise fails."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import binom

import doubtmap as dm
from doubtmap.decisions.file import load_threshold, save_threshold
from doubtmap.decisions.several import RISKS, Risks, by_risks, p_value, parse_levels, things_missed
from doubtmap.decisions.threshold import choose_threshold
from doubtmap.kernels.steps import STEPS
from doubtmap.metrics.missed import place_of, threshold_at
from doubtmap.streets.synthetic import SyntheticStreets


def image(seed, hard=0.0):
    """Score, what is to be flagged and what counts: blobs that score higher."""
    generator = np.random.default_rng(seed)
    wanted = ndimage.gaussian_filter(generator.normal(size=(24, 32)), 2) > 0.12
    score = generator.normal(size=(24, 32)) + (3 - hard * generator.random()) * wanted
    return tuple(map(torch.from_numpy, (score.astype(np.float32), wanted, score < 90)))


def test_losses_are_those_of_a_threshold():
    score, wanted, valid = image(0)
    valid = valid.clone()
    valid[:, :5] = False
    risks = Risks.empty()
    risks.update(score, wanted, valid)
    for threshold in (-1.0, 0.7, 2.0, 4.0):
        place = place_of(threshold)
        flagged = (score > threshold_at(place)) & valid
        inside = wanted & valid
        things, count = ndimage.label(inside.numpy(), np.ones((3, 3)))
        shares = [flagged.numpy()[things == k].mean() for k in range(1, count + 1)]
        expected = {
            "missed": float((~flagged[inside]).double().mean()),
            "false": float((flagged & ~wanted).sum() / max(flagged.sum(), 1)),
            "flagged": float(flagged[valid].double().mean()),
            "objects": float(np.mean([share <= 0.5 for share in shares])),
        }
        found = dict(zip(RISKS, risks.losses[:, place]))
        assert found == pytest.approx(expected, abs=1e-6)


def test_images_without_anything_to_flag_count_where_they_can():
    score, wanted, valid = image(1)
    risks = Risks.empty()
    risks.update(score, torch.zeros_like(wanted), valid)
    risks.update(score, wanted, torch.zeros_like(valid))
    assert risks.images.tolist() == [0, 1, 1, 0]
    assert not risks.losses[RISKS.index("missed")].any()
    assert not things_missed(np.zeros((2, 2), int), np.zeros((2, 2), bool)).any()


def test_merging_is_one_pass():
    parts, whole = [Risks.empty(), Risks.empty()], Risks.empty()
    for seed in range(4):
        parts[seed % 2].update(*image(seed))
        whole.update(*image(seed))
    for name, array in (parts[0] + parts[1]).state().items():
        np.testing.assert_allclose(whole.state()[name], array, atol=1e-12)


@pytest.mark.parametrize("level", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("count", [20, 200])
def test_p_values_are_valid(count, level):
    """Of a risk at its level they are below delta with probability delta at most."""
    mean = np.arange(count + 1) / count
    chance = binom.pmf(np.arange(count + 1), count, level)
    for delta in (0.01, 0.1, 0.3):
        assert chance[p_value(mean, count, level) <= delta].sum() <= delta
    assert (np.diff(p_value(mean, count, level)) >= -1e-12).all()
    assert p_value(np.array(0.0), count, level) == pytest.approx((1 - level) ** count)


def test_the_promise_fails_as_seldom_as_was_said():
    """Risks of the chosen threshold on all images there are, over draws of the images."""
    each = []
    for seed in range(30):
        risks = Risks.empty()
        risks.update(*image(seed, hard=1.5))
        each.append(risks.state())
    losses, pixels = (np.stack([one[name] for one in each]) for name in ("losses", "pixels"))
    truth, count = losses.mean(0), np.array([one["images"] for one in each])
    levels, delta, failed, chosen = {"missed": 0.3, "objects": 0.4, "false": 0.5}, 0.2, 0, 0
    generator = np.random.default_rng(0)
    for _ in range(20):
        times = generator.multinomial([60, 180], np.full(30, 1 / 30))
        parts = [Risks(np.tensordot(t, losses, 1), t @ count, t @ pixels) for t in times]
        try:
            place = by_risks(*parts, levels, delta)
        except dm.DataError:
            continue
        chosen += 1
        failed += any(truth[RISKS.index(name), place] > level for name, level in levels.items())
    assert chosen > 15
    assert failed <= delta * 20


def test_what_cannot_be_kept_is_refused():
    risks = Risks.empty()
    for seed in range(6):
        risks.update(*image(seed))
    with pytest.raises(dm.DataError, match=r"missed takes 22 at least, and 6 count"):
        by_risks(risks, risks, {"missed": 0.1}, 0.1)
    with pytest.raises(dm.UsageError, match=r"some of missed, false, flagged, objects, got other"):
        by_risks(risks, risks, {"other": 0.1}, 0.1)
    with pytest.raises(dm.UsageError, match="expected false between 0 and 1, got 2"):
        by_risks(risks, risks, {"false": 2.0}, 0.1)
    with pytest.raises(dm.UsageError, match=r"as in missed=0\.1,false=0\.5, got 'missed'"):
        parse_levels("missed")
    assert risks.losses.shape == (4, STEPS + 1)


def test_a_threshold_is_chosen_and_says_its_promise(tmp_path):
    demo, streets = dm.load("demo"), SyntheticStreets(12, seed=2, size=(64, 96))
    given = {"of": "wrong", "by": "risks"}
    keep = {"missed": 0.9, "flagged": 0.9}
    found = choose_threshold(demo, streets, "entropy", level=0.3, keep=keep, **given)
    assert found.notes[0].startswith("With probability 0.7 over the draw of the images: missed at")
    save_threshold(found, tmp_path / "t.json")
    assert load_threshold(tmp_path / "t.json") == found
    assert load_threshold(tmp_path / "t.json").kept == keep
    with pytest.raises(dm.UsageError, match="expected --keep with --by risks"):
        choose_threshold(demo, streets, "entropy", **given)


def test_the_command_line(run, tmp_path):
    asked = ["threshold", "demo", "synthetic:12", "--score", "entropy", "--of", "wrong"]
    out = ["--out", tmp_path / "t.json"]
    code, _, err = run(*asked, "--by", "risks", "--keep", "missed=0.9", "--delta", "0.3", *out)
    assert code == 0, err
    assert "missed at most 0.9" in err
    code, _, err = run(*asked, "--by", "f1", "--delta", "0.3", *out)
    assert code == 2 and "--delta: expected it with --by risks" in err
