"""The exponent of a density's weights: against the fit's own count, and by what it must do."""

import pytest
import torch
from gaussian_frames import frames

import doubtmap as dm
from doubtmap.errors import DataError, UsageError
from doubtmap.fitting import fit_score
from doubtmap.prediction import Prediction
from doubtmap.scores import Density
from doubtmap.scores.certainty import EXPONENTS, effective_shares, exponent_for, read_certainty


@pytest.mark.parametrize("labels", ["given", "predicted"])
def test_the_shares_are_those_that_a_fit_counts(labels):
    pairs = frames()
    shares = effective_shares(pairs, labels=labels)
    for place in (0, 3, 5):
        certainty = float(EXPONENTS[place])
        fit = Density.fit(pairs, certainty=certainty, labels=labels, scale="none").gaussians
        assert fit.effective.sum() / fit.pixels.sum() == pytest.approx(float(shares[place]))
    assert (shares.diff() <= 0).all()


def test_the_nearest_share_is_taken():
    pairs = frames()
    shares = effective_shares(pairs)
    chosen = exponent_for(shares)
    assert min(abs(shares - 0.5)) == abs(shares[chosen == EXPONENTS] - 0.5)


def test_a_surer_network_needs_a_larger_exponent():
    """The same classes, logits eight times as large: where 64 keeps all, another number halves."""
    pairs = frames()
    surer = [
        (Prediction(8 * p.native_logits, p.size, features=p.features), label) for p, label in pairs
    ]
    chosen = [exponent_for(effective_shares(each)) for each in (pairs, surer)]
    assert chosen[0] < chosen[1]


def test_no_label_is_an_error():
    prediction, label = frames()[0]
    with pytest.raises(DataError, match="found none"):
        effective_shares([(prediction, torch.full_like(label, -2))])


def test_what_certainty_may_be():
    assert read_certainty("half") is None
    assert read_certainty("16") == 16
    with pytest.raises(UsageError, match="a number of at least 0, or half, got 'most'"):
        read_certainty("most")


def test_a_fit_chooses_by_itself_and_takes_a_number(tmp_path):
    network, data = dm.load("demo"), dm.open_dataset("synthetic:2", seed=1)
    seen = []
    chosen = fit_score("density", network, data, progress=lambda *told: seen.append(told[0]))
    assert chosen.certainty in EXPONENTS
    assert set(seen) == {"certainty", "fit"}
    effective = float(chosen.gaussians.effective.sum() / chosen.gaussians.pixels.sum())
    assert 0.3 < effective < 0.7
    given = fit_score("density(certainty=3)", network, data, out=tmp_path / "density")
    assert given.certainty == Density.load(tmp_path / "density").certainty == 3
    with pytest.raises(UsageError, match="of at least 0"):
        fit_score("density(certainty=-1)", network, data)
