"""Class-wise Gaussians against SciPy and NumPy, and the laws that they must keep."""

import numpy as np
import pytest
import torch
from gaussian_frames import CHANNELS, CLASSES, flat, frames
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from doubtmap.errors import DataError, ModelError
from doubtmap.prediction import Prediction
from doubtmap.scores import Density
from doubtmap.scores.gaussians import Gaussians, GaussianSums
from doubtmap.scores.inner_features import OUTSIDE, native_labels


def textbook(pairs, certainty=0.0, scale="none"):
    z, labels, p = flat(pairs, scale)
    means, covariances = [], []
    for number in range(CLASSES):
        own = labels == number
        weights = p[own, number] ** certainty
        means.append(np.average(z[own], axis=0, weights=weights))
        covariances.append(np.cov(z[own].T, aweights=weights, ddof=0))
    return np.array(means), np.array(covariances)


@pytest.mark.parametrize("certainty", [0.0, 2.0])
@pytest.mark.parametrize("scale", ["none", "unit"])
def test_the_fit_is_the_weighted_mean_and_covariance(certainty, scale):
    pairs = frames()
    gaussians = Density.fit(pairs, certainty=certainty, scale=scale).gaussians
    means, covariances = textbook(pairs, certainty, scale)
    np.testing.assert_allclose(gaussians.mean, means, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(gaussians.covariance, covariances, rtol=1e-5, atol=1e-8)
    _, labels, _ = flat(pairs)
    assert gaussians.pixels.tolist() == np.bincount(labels).tolist()


def test_equal_weights_are_all_effective_and_unequal_ones_fewer():
    pairs = frames()
    even = Density.fit(pairs, certainty=0).gaussians
    torch.testing.assert_close(even.effective, even.pixels.double())
    assert (Density.fit(pairs, certainty=8).gaussians.effective < even.effective).all()


def test_sums_merge_to_the_whole():
    generator = torch.Generator().manual_seed(0)
    z = 1e4 + torch.randn(500, CHANNELS, generator=generator, dtype=torch.float64)
    labels, weights = torch.randint(0, CLASSES, (500,), generator=generator), torch.rand(500)
    whole, parts = GaussianSums(CLASSES, CHANNELS), []
    whole.add(z, labels, weights)
    for rows in torch.arange(500).split(77):
        part = GaussianSums(CLASSES, CHANNELS)
        part.add(z[rows], labels[rows], weights[rows])
        parts.append(part)
    merged = sum(parts[1:], parts[0])
    for name in ("mean", "weight", "squares", "pixels"):
        torch.testing.assert_close(getattr(merged, name), getattr(whole, name))
    # a sum of squares would have lost eight of sixteen digits here
    torch.testing.assert_close(merged.scatter, whole.scatter, rtol=1e-9, atol=1e-7)


def textbook_log_density(fitted, pairs, at, covariance="full", prior=False):
    gaussians, (prediction, _) = fitted.gaussians, pairs[0]
    z = prediction.features[0].flatten(1).T.double().numpy()
    shares = (gaussians.pixels / gaussians.pixels.sum()).log().numpy()
    every = np.stack(
        [
            multivariate_normal(m, s).logpdf(z) + (shares[c] if prior else 0)
            for c, (m, s) in enumerate(
                zip(gaussians.mean, gaussians.shrunk(covariance, fitted.shrinkage))
            )
        ]
    )
    if at == "any":
        return logsumexp(every, axis=0)
    return np.take_along_axis(
        every, prediction.native_logits[0].argmax(0).numpy().reshape(1, -1), 0
    )


@pytest.mark.parametrize("at", ["predicted", "any"])
@pytest.mark.parametrize("covariance", ["full", "tied"])
@pytest.mark.parametrize("prior", [False, True])
def test_the_score_is_minus_the_log_density(at, covariance, prior):
    pairs = frames()
    fitted = Density.fit(pairs, scale="none", at=at, covariance=covariance, prior=prior)
    expected = textbook_log_density(fitted, pairs, at, covariance, prior)
    score = fitted(pairs[0][0])
    np.testing.assert_allclose(score.flatten(), -expected.ravel(), rtol=1e-4, atol=1e-3)
    assert score.shape == (1, 8, 9)
    assert score.dtype == torch.float32


@pytest.mark.parametrize("at", ["predicted", "any"])
def test_all_directions_projected_are_the_full_covariance(at):
    pairs = frames()
    options = {"scale": "none", "at": at}
    full = Density.fit(pairs, **options)(pairs[0][0])
    projected = Density.fit(pairs, project=CHANNELS, **options)(pairs[0][0])
    torch.testing.assert_close(projected, full, atol=1e-3, rtol=1e-4)


def test_low_rank_and_projected_are_gaussians_of_their_own_covariance():
    pairs = frames()
    whole = Density.fit(pairs, scale="none", certainty=0)
    z = pairs[0][0].features[0].flatten(1).T.double()
    for number in range(CLASSES):
        covariance = whole.gaussians.shrunk("full", whole.shrinkage)
        values, vectors = torch.linalg.eigh(covariance[number])
        values[:2] = values[:2].mean()
        model = multivariate_normal(
            whole.gaussians.mean[number], vectors @ values.diag() @ vectors.T
        )
        low = Density.fit(pairs, scale="none", certainty=0, rank=2)
        found = low._log_density(z.float(), number)
        np.testing.assert_allclose(found, model.logpdf(z), rtol=1e-4, atol=1e-3)
        _, shared = torch.linalg.eigh(whole.gaussians.within)
        inside, outside = shared[:, 2:], shared[:, :2]
        spread = torch.linalg.eigvalsh(whole.gaussians.within)[:2].mean()
        inner = inside.T @ covariance[number] @ inside
        model = multivariate_normal(
            whole.gaussians.mean[number],
            inside @ inner @ inside.T + spread * outside @ outside.T,
        )
        projected = Density.fit(pairs, scale="none", certainty=0, project=2)
        found = projected._log_density(z.float(), number)
        np.testing.assert_allclose(found, model.logpdf(z), rtol=1e-3, atol=1e-2)


def test_tiles_and_batches_change_nothing(monkeypatch):
    pairs = frames()
    fitted = {at: Density.fit(pairs, at=at) for at in ("predicted", "any")}
    both = Prediction(
        torch.cat([pairs[0][0].native_logits, pairs[1][0].native_logits]),
        pairs[0][0].size,
        features=torch.cat([pairs[0][0].features, pairs[1][0].features]),
    )
    for density in fitted.values():
        whole = density(both)
        torch.testing.assert_close(whole[1:], density(pairs[1][0]))
        with monkeypatch.context() as patched:
            patched.setattr("doubtmap.scores.gaussians.TILE", 7)
            torch.testing.assert_close(density(both), whole, rtol=1e-4, atol=1e-4)


def test_far_features_are_doubted_more():
    pairs = frames()
    fitted = Density.fit(pairs, scale="none")
    near = pairs[0][0]
    far = Prediction(near.native_logits, near.size, features=near.features + 50)
    assert (fitted(far) > fitted(near)).all()


def test_the_map_is_made_on_the_native_grid_and_resized():
    pairs = frames()
    fitted = Density.fit(pairs)
    native = pairs[0][0]
    larger = Prediction(native.native_logits, (19, 25), features=native.features)
    expected = larger.to_size(fitted(native)[:, None])[:, 0]
    torch.testing.assert_close(fitted(larger), expected)


def test_labels_come_from_the_nearest_pixel():
    label = torch.arange(6 * 8).reshape(1, 6, 8)
    logits = torch.zeros(1, 2, 3, 4)
    half = native_labels(Prediction(logits, (6, 8)), label)
    assert half.tolist() == [[[9, 11, 13, 15], [25, 27, 29, 31], [41, 43, 45, 47]]]
    corners = native_labels(Prediction(torch.zeros(1, 2, 2, 2), (6, 8), align_corners=True), label)
    assert corners.tolist() == [[[0, 7], [40, 47]]]
    padded = native_labels(Prediction(logits, (6, 8), covered=(12, 16)), label)
    assert padded.tolist()[0][2] == [OUTSIDE] * 4
    assert padded.tolist()[0][0] == [18, 22, OUTSIDE, OUTSIDE]


class TestClassesThatAreRareOrAbsent:
    def test_an_absent_class_is_left_out_and_named(self):
        pairs = [(p, label.masked_fill(label == 1, -2)) for p, label in frames()]
        fitted = Density.fit(pairs)
        assert fitted.gaussians.present.tolist() == [True, False, True]
        assert "no pixel of 1" in fitted.notes[0]
        score = fitted(pairs[0][0])
        assert score.isfinite().all()
        absent = pairs[0][0].native_logits.argmax(1) == 1
        anywhere = Density(fitted.gaussians, at="any")(pairs[0][0])
        assert absent.any()
        torch.testing.assert_close(score[absent], anywhere[absent])

    def test_a_rare_class_leans_on_the_pooled_covariance_and_is_named(self):
        pairs = frames()
        (p, label), *rest = [(p, label.masked_fill(label == 1, -2)) for p, label in pairs]
        label[0, 4, 4] = 1
        fitted = Density.fit([(p, label), *rest])
        assert "1 (1)" in fitted.notes[0]
        assert fitted(pairs[0][0]).isfinite().all()

    def test_a_class_that_the_network_never_names_is_absent(self):
        pairs = []
        for p, label in frames():
            logits = p.native_logits.clone()
            logits[:, 1] = -1000
            pairs.append((Prediction(logits, p.size, features=p.features), label))
        fitted = Density.fit(pairs)
        assert fitted.gaussians.present.tolist() == [True, False, True]
        assert "no pixel of 1" in fitted.notes[0]

    def test_no_labelled_pixel_at_all(self):
        with pytest.raises(DataError, match="found none"):
            Density.fit([(p, torch.full_like(label, -2)) for p, label in frames()])

    def test_next_to_nothing(self):
        (p, label), *_ = frames(1)
        label[:] = -1
        label[0, 3, 3] = 2
        with pytest.raises(DataError, match="effective pixels"):
            Density.fit([(p, label)], certainty=0)


class TestBadFeatures:
    def test_not_finite(self):
        pairs = frames()
        pairs[0][0].features[0, 0, 0, 0] = torch.nan
        with pytest.raises(DataError, match="finite features"):
            Density.fit(pairs)

    def test_singular(self):
        pairs = [
            (Prediction(p.native_logits, p.size, features=torch.ones_like(p.features)), label)
            for p, label in frames()
        ]
        with pytest.raises(DataError, match=r"density\(shrinkage=0.01\)"):
            Density.fit(pairs, scale="none", shrinkage=0)

    @pytest.mark.parametrize("options", [{"rank": 1}, {"project": 2}, {}])
    def test_all_zero(self, options):
        pairs = [
            (Prediction(p.native_logits, p.size, features=torch.zeros_like(p.features)), label)
            for p, label in frames()
        ]
        with pytest.raises(DataError, match="do not vary"):
            Density.fit(pairs, scale="none", **options)

    def test_none(self):
        logits = torch.randn(1, CLASSES, 4, 4)
        with pytest.raises(ModelError, match="needs the network's features"):
            Density.fit([(Prediction(logits, (4, 4)), torch.zeros(1, 4, 4, dtype=torch.long))])

    def test_another_number(self):
        fitted = Density.fit(frames())
        other = Prediction(torch.randn(1, CLASSES, 4, 4), (4, 4), features=torch.randn(1, 7, 4, 4))
        with pytest.raises(ModelError, match=r"3 classes and 4 features.* got 3 and 7"):
            fitted(other)

    def test_a_layer_that_was_not_listened_to(self):
        fitted = Density.fit(
            [
                (
                    Prediction(
                        p.native_logits, p.size, layers={"a": p.features, "b": p.features[:, :2]}
                    ),
                    label,
                )
                for p, label in frames()
            ],
            layer="a+b",
            scale="none",
            shrinkage=0.1,
        )
        assert fitted.gaussians.mean.shape[1] == CHANNELS + 2
        assert fitted.layers == ("a", "b")
        with pytest.raises(ModelError, match="does not carry"):
            fitted(frames()[0][0])


def test_gaussians_of_no_sums_are_absent():
    gaussians = Gaussians.of(GaussianSums(2, 3))
    assert not gaussians.present.any()
    assert gaussians.effective.tolist() == [0, 0]
