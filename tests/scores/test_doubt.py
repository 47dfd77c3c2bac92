"""`doubt`: the form without a fit, the fit, and its file."""

import math
from dataclasses import replace

import pytest
import torch
from predictions import random_prediction

from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.prediction import Prediction
from doubtmap.scores import Doubt, doubt
from doubtmap.scores.default import log_doubt, terms
from doubtmap.scores.diagonal import Diagonal, DiagonalSums, relative


def test_the_formula_where_all_classes_are_equally_likely():
    middle = doubt(Prediction(torch.zeros(1, 5, 96, 256), (96, 256)))[0, 8, 128]
    # any class with 1/5 around, and 4/5 that it is another; windows of 64 and 16 squares' width
    # over 16 have 4 + 1 and 1 + 1 squares, and count as 4 and 1
    mean, geometric = 0.2 * 0.8 * 5 / 4, 0.2 * 0.8 * 2
    wanted = math.sqrt(math.log(5) + 1e-6) * ((0.2 + mean) * (0.2 + geometric)) ** 0.75
    assert middle.item() == pytest.approx(wanted, rel=1e-5)


def test_the_three_factors_multiply():
    logits = torch.randn(1, 3, 8, 16)
    product = torch.stack(terms(logits)).sum(0).exp()
    torch.testing.assert_close(doubt(logits), product)


def test_an_unsure_thing_within_a_class_is_doubted_more_than_one_beside_it():
    logits = torch.zeros(1, 3, 64, 128)
    logits[:, 0], logits[:, 1, :20] = 9, 18
    logits[:, :, 40:46, 60:66] = 0
    logits[:, :, 40:46, 125:] = 0  # at the border there is nothing beside
    found = doubt(logits)[0]
    assert found[42, 63] > found[42, 127] > found[60, 20]


@pytest.mark.parametrize("times", [2, 4])
def test_full_size_logits_say_what_native_ones_say(times):
    native = torch.randn(1, 3, 8, 512).mul(4)
    finer = native.repeat_interleave(times, 2).repeat_interleave(times, 3)
    same = log_doubt(native, 2048)
    torch.testing.assert_close(log_doubt(finer, 2048), same, rtol=1e-4, atol=1e-4)


def test_coarser_logits_rank_alike():
    coarse = torch.nn.functional.interpolate(
        torch.randn(1, 4, 6, 16).mul(6), (48, 128), mode="bilinear"
    )
    fine = torch.nn.functional.interpolate(coarse, (192, 512), mode="bilinear")
    one = Prediction(coarse, (192, 512))
    both = torch.stack([doubt(one).flatten(), doubt(fine).flatten()])
    assert torch.corrcoef(both.argsort(1).argsort(1).double())[0, 1] > 0.95


def test_a_tracer_can_follow():
    class Graph(torch.nn.Module):
        def forward(self, logits):
            return log_doubt(logits)

    graph = torch.export.export(Graph(), (torch.randn(1, 4, 12, 30),)).module()
    other = torch.randn(1, 4, 12, 30)
    torch.testing.assert_close(graph(other), log_doubt(other))


def test_sums_of_cells_add_and_subtract():
    z, labels = torch.randn(60, 3), torch.randint(0, 2, (60,))
    parts = [DiagonalSums.of(z[at], labels[at], 3) for at in (slice(0, 25), slice(25, 60))]
    whole = DiagonalSums.of(z, labels, 3)
    for name in ("count", "sums", "squares"):
        torch.testing.assert_close(getattr(parts[0] + parts[1], name), getattr(whole, name))
        torch.testing.assert_close(getattr(whole - parts[1], name), getattr(parts[0], name))


def test_surprise_is_minus_the_log_of_the_mixture():
    share = torch.tensor([0.3, 0.0, 0.7], dtype=torch.float64)
    mean = torch.randn(3, 4, dtype=torch.float64)
    variance = torch.rand(3, 4, dtype=torch.float64) + 0.1
    z = torch.randn(2, 4, 3, 5)
    seen = [0, 2]
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(share[seen]),
        torch.distributions.Independent(
            torch.distributions.Normal(mean[seen], variance[seen].sqrt()), 1
        ),
    )
    wanted = -mixture.log_prob(z.permute(0, 2, 3, 1).double())
    found = Diagonal(share, mean, variance).surprise(z)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)


def test_many_cells_have_their_own_variance_and_few_lean_on_the_pooled_one():
    wide, narrow = torch.randn(4000, 2), torch.randn(4000, 2) * 0.1
    few = torch.randn(3, 2) * 1e-3
    labels = torch.cat([torch.full((len(x),), i) for i, x in enumerate((wide, narrow, few))])
    found = Diagonal.of(DiagonalSums.of(torch.cat([wide, narrow, few]), labels, 3), 0.0).variance
    pooled = (found[0] + found[1]) / 2
    torch.testing.assert_close(
        found[:2].mean(1), torch.tensor([1.0, 0.01]).double(), rtol=0.1, atol=0
    )
    torch.testing.assert_close(found[2], pooled * 2 / 5, rtol=0.05, atol=0)


def test_features_that_never_vary_are_counted_and_all_such_are_refused():
    z = torch.cat([torch.randn(50, 3), torch.ones(50, 2)], 1)
    labels = torch.zeros(50, dtype=torch.int64)
    assert Diagonal.of(DiagonalSums.of(z, labels, 1), 0.02).still == 2
    with pytest.raises(DataError, match="vary"):
        Diagonal.of(DiagonalSums.of(torch.ones(9, 2), labels[:9], 1), 0.02)


def test_half_the_median_is_taken_off_each_image_by_itself():
    maps = torch.stack([torch.full((3, 3), 4.0), torch.arange(9.0).view(3, 3)])
    assert relative(maps)[0].unique().tolist() == [2.0]
    assert relative(maps)[1, 0, 0] == -2


def scene(seed, thing=False):
    """Two classes of known features, and where asked a thing of others that is called sure."""
    torch.manual_seed(seed)
    logits = torch.zeros(1, 3, 16, 64)
    logits[:, 0], logits[:, 1, 8:] = 6, 12
    deep = torch.zeros(1, 5, 4, 16)
    deep[:, 0, :2] = deep[:, 1, 2:] = 1
    if thing:
        deep[:, :, 2:, 7:9] = torch.tensor([0.0, 0, 0, 1, 0]).view(5, 1, 1)
    layers = {"deep": deep + 0.1 * torch.randn_like(deep)}
    return Prediction(logits, (64, 256), layers=layers, class_names=("sky", "road", "cat"))


FITTED = Doubt.fit([scene(seed) for seed in range(8)], layer="deep", weight=1)


def test_a_fit_sees_what_the_logits_do_not():
    odd = scene(99, thing=True)
    thing = (slice(40, 60), slice(118, 138))
    road = (slice(40, 60), slice(200, 220))
    assert FITTED(odd)[0][thing].mean() > 2 * FITTED(odd)[0][road].mean()
    assert doubt(odd)[0][thing].mean() == pytest.approx(doubt(odd)[0][road].mean().item(), rel=0.2)


def test_without_weight_it_is_the_form_without_a_fit():
    torch.testing.assert_close(replace(FITTED, weight=0)(scene(3)), doubt(scene(3)))


def test_what_the_features_say_is_bounded():
    ratio = (FITTED(scene(5, True)) / doubt(scene(5, True))).log()
    assert ratio.abs().max() <= 1 + 1e-4


def test_the_fit_says_what_it_saw():
    assert FITTED.origin.facts["images"] == 8
    assert any("no cell was surely cat" in note for note in FITTED.notes)
    assert 0.9 < FITTED.origin.facts["deviation left out over seen"] < 1.3


def test_a_frail_fit_is_believed_half_as_much():
    frail = Doubt.fit([scene(1), scene(2, thing=True)], layer="deep", weight=1)
    assert frail.origin.facts["deviation left out over seen"] > 1.3
    assert frail.weight == 0.5
    assert any("half their weight" in note for note in frail.notes)


def test_standardised_by_images_left_out():
    """Of the fit's own images, each left out, mean and deviation are 0 and 1."""
    images = [scene(seed) for seed in range(8)]
    z = []
    for index, image in enumerate(images):
        others = Doubt.fit(images[:index] + images[index + 1 :], layer="deep")
        change = (others(image) / doubt(image)).log() / others.weight
        z.append(torch.atanh(change.clamp(-0.999, 0.999)).flatten())
    whole = torch.cat(z)
    assert abs(whole.mean()) < 0.4 and 0.6 < whole.std() < 1.4


def padded(prediction, odd):
    """The same image on a grid of twice its rows, of which the lower half is padding."""
    below = {name: torch.full_like(maps, odd) for name, maps in prediction.layers.items()}
    return replace(
        prediction,
        native_logits=torch.cat([prediction.native_logits, 9 * prediction.native_logits], 2),
        covered=(128.0, 256.0),
        layers={name: torch.cat([prediction.layers[name], below[name]], 2) for name in below},
    )


def test_what_lies_in_the_padding_teaches_the_fit_nothing():
    images = [padded(scene(seed), odd=0.3) for seed in range(4)]
    others = [padded(scene(seed), odd=-5.0) for seed in range(4)]
    plain = Doubt.fit([scene(seed) for seed in range(4)], layer="deep")
    for found in (Doubt.fit(images, layer="deep"), Doubt.fit(others, layer="deep")):
        for part in ("share", "mean", "variance"):
            assert torch.equal(getattr(found.familiar, part), getattr(plain.familiar, part))
        assert found.mean == pytest.approx(plain.mean, abs=0.05)
        assert found.deviation == pytest.approx(plain.deviation, rel=0.05)


def test_a_file_is_read_as_it_was_written(tmp_path):
    FITTED.save(tmp_path / "d.dm")
    again = Doubt.load(tmp_path / "d.dm")
    assert torch.equal(again(scene(4)), FITTED(scene(4)))
    assert (again.notes, again.digest) == (FITTED.notes, FITTED.digest)
    assert Doubt.load(tmp_path / "d.dm", weight=0.1).weight == 0.1
    with pytest.raises(UsageError, match="weight of at least 0"):
        Doubt.load(tmp_path / "d.dm", weight=-1)


def test_other_predictions_are_refused_in_one_sentence():
    with pytest.raises(ModelError, match="needs the output of the layer deep"):
        FITTED(random_prediction())
    other = replace(scene(1), layers={"deep": torch.randn(1, 7, 4, 16)})
    with pytest.raises(ModelError, match="expected 5 features of deep, as in the fit, got 7"):
        FITTED(other)
    broken = replace(scene(1), layers={"deep": torch.full((1, 5, 4, 16), torch.nan)})
    with pytest.raises(DataError, match="finite features"):
        FITTED(broken)


def test_too_little_to_learn_from():
    with pytest.raises(DataError, match="at least 2 images, better 10 to 100, got 1"):
        Doubt.fit([scene(0)], layer="deep")
    unsure = replace(scene(0), native_logits=torch.zeros(1, 3, 16, 64))
    with pytest.raises(DataError, match="where the network is sure"):
        Doubt.fit([unsure, unsure], layer="deep")
