"""Ensembles and dropout: streamed sums equal the stacked formulas."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_networks import CLASSES, Tiny
from torch import nn

from doubtmap import scores
from doubtmap.errors import ModelError, UsageError
from doubtmap.models import Ensemble, MonteCarloDropout, load
from doubtmap.models.ensemble import MemberSums
from doubtmap.prediction import Prediction


def together(*logits, size=None, **settings):
    sums = MemberSums()
    for part in logits:
        sums.add(Prediction(part, size=size or tuple(part.shape[-2:]), **settings))
    return sums.prediction()


def stacked(logits, size):
    """The textbook: all members at once, in float64."""
    p = torch.stack([Prediction(part.double(), size=size).probabilities for part in logits])
    mean = p.mean(0)
    entropy = -(mean * mean.log()).sum(1)
    members = -(p * p.log()).sum(2).mean(0)
    chosen = mean.argmax(1)
    spread = p.std(0, correction=1).gather(1, chosen[:, None])[:, 0]
    return mean, entropy, members, spread


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 6),
    st.integers(2, 5),
    st.integers(1, 2),
    st.tuples(st.integers(1, 5), st.integers(1, 6)),
    st.integers(0, 10_000),
)
def test_streaming_is_stacking(count, classes, batch, grid, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = [3 * torch.randn(batch, classes, *grid, generator=generator) for _ in range(count)]
    size = (2 * grid[0] + 1, grid[1] + 3)
    prediction = together(*logits, size=size)
    mean, entropy, member_entropy, spread = stacked(logits, size)
    near = {"atol": 2e-6, "rtol": 2e-5, "check_dtype": False}
    torch.testing.assert_close(prediction.probabilities, mean, **near)
    torch.testing.assert_close(scores.entropy(prediction), entropy, **near)
    torch.testing.assert_close(scores.member_entropy(prediction), member_entropy, **near)
    information = scores.mutual_information(prediction)
    torch.testing.assert_close(information, entropy - member_entropy, **near)
    sure = mean.topk(2, dim=1).values.diff(dim=1).abs()[:, 0] > 1e-5
    torch.testing.assert_close(scores.member_spread(prediction)[sure], spread[sure], **near)
    assert prediction.members.count == count


def test_members_that_agree_have_nothing_to_disagree_about():
    logits = 5 * torch.randn(1, 4, 3, 3)
    prediction = together(logits, logits, logits)
    assert scores.member_spread(prediction).abs().max() < 1e-6
    assert scores.mutual_information(prediction).abs().max() < 1e-6
    torch.testing.assert_close(prediction.probabilities, logits.softmax(1))


def test_members_that_are_sure_of_different_classes():
    sure = torch.tensor([50.0, 0.0])[None, :, None, None]
    prediction = together(sure, sure.flip(1))
    assert scores.mutual_information(prediction).item() == pytest.approx(math.log(2), abs=1e-6)
    assert scores.member_entropy(prediction).item() == pytest.approx(0, abs=1e-6)
    assert scores.member_spread(prediction).item() == pytest.approx(math.sqrt(0.5), abs=1e-6)


def test_a_small_spread_of_sure_members_is_not_lost_to_rounding():
    p = torch.tensor([1 - 2e-5, 1 - 4e-5], dtype=torch.float64)
    logits = [torch.stack([q.log(), (1 - q).log()])[None, :, None, None].float() for q in p]
    spread = scores.member_spread(together(*logits)).item()
    assert spread == pytest.approx(2e-5 / math.sqrt(2), rel=0.01)


def test_a_class_that_no_member_believes_in_is_finite():
    logits = torch.zeros(1, 3, 2, 2)
    logits[:, 2] = torch.finfo(torch.float32).min
    prediction = together(logits, logits)
    assert prediction.native_logits.isfinite().all()
    assert scores.entropy(prediction).allclose(torch.tensor(math.log(2)), atol=1e-6)


def test_the_energy_of_a_mean_is_no_score():
    logits = torch.randn(1, 3, 2, 2)
    with pytest.raises(ModelError, match="0 everywhere"):
        scores.energy(together(logits, logits))


@pytest.mark.parametrize("name", scores.OF_MEMBERS)
def test_one_network_has_no_members(name):
    with pytest.raises(ModelError, match="MODEL1,MODEL2"):
        getattr(scores, name)(Prediction(torch.randn(1, 3, 2, 2), size=(2, 2)))


class TestEnsemble:
    def test_is_the_mean_of_its_members_whatever_their_resolution(self):
        torch.manual_seed(0)
        networks = [Tiny(), Tiny(resize="half"), Tiny(align_corners=True)]
        images = torch.rand(2, 3, 33, 47)
        segmenters = [load(network) for network in networks]
        prediction = Ensemble(segmenters)(images)
        mean = torch.stack([one(images).probabilities for one in segmenters]).mean(0)
        torch.testing.assert_close(prediction.probabilities, mean, atol=1e-6, rtol=1e-5)
        assert prediction.size == (33, 47)
        with pytest.raises(ModelError, match="no features in common"):
            scores.gradient(prediction)

    def test_load_takes_several_names(self):
        segmenter = load("demo,demo")
        assert isinstance(segmenter, Ensemble)
        about = segmenter.description
        assert about["source"] == "demo,demo"
        assert len(about["members"]) == 2
        assert about["sha256"] != load("demo").description["sha256"]
        images = torch.rand(1, 3, 64, 96)
        torch.testing.assert_close(
            segmenter(images).probabilities, load("demo")(images).probabilities
        )

    @pytest.mark.parametrize(
        ("others", "message"),
        [
            (["a", "b", "c", "d", "f"], "got a, b, c, d, f. Leave it out"),
            (["b", "a", "c", "d", "e"], "in another order"),
        ],
    )
    def test_members_must_have_the_same_classes_in_one_order(self, others, message):
        first = load(Tiny(), classes=["a", "b", "c", "d", "e"])
        with pytest.raises(UsageError, match=message):
            Ensemble([first, load(Tiny(), classes=others)])

    def test_members_without_names_must_have_as_many_classes(self):
        other = nn.Conv2d(3, CLASSES + 1, 1)
        ensemble = Ensemble([load(Tiny()), load(other)])
        with pytest.raises(ModelError, match="equal classes"):
            ensemble(torch.rand(1, 3, 32, 32))

    def test_names_may_be_spelt_in_two_ways(self):
        first = load(Tiny(), classes=["traffic light", "b", "c", "d", "e"])
        second = load(Tiny(), classes=["Traffic_Light", "b", "c", "d", "e"])
        assert Ensemble([first, second]).class_names == first.class_names

    def test_many_names_are_no_path(self):
        assert len(load(",".join(["demo"] * 60)).members) == 60

    def test_one_member_is_no_ensemble(self):
        with pytest.raises(UsageError, match="two or more"):
            Ensemble([load(Tiny())])


class Dropped(nn.Module):
    """A normalisation that must not learn, and a dropout that must drop."""

    def __init__(self, rate=0.5):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.dropout = nn.Dropout(rate)
        self.classifier = nn.Conv2d(8, CLASSES, 1)

    def forward(self, x):
        return self.classifier(self.dropout(self.body(x)))


class TestDropout:
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))

    def test_only_dropout_layers_are_switched_on(self):
        network = Dropped().eval()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        prediction = MonteCarloDropout(load(network), passes=4)(self.images)
        assert scores.member_spread(prediction).max() > 0
        for name, value in network.state_dict().items():
            assert torch.equal(value, before[name]), name
        assert not any(layer.training for layer in network.modules())

    def test_the_mean_of_many_passes_nears_the_expected_output(self):
        torch.manual_seed(0)
        network = Dropped(0.3).eval()
        network.classifier.weight.data *= 0.1  # nearly linear, so that means commute
        plain = load(network)(self.images).probabilities
        sampled = MonteCarloDropout(load(network), passes=200)(self.images).probabilities
        assert (sampled - plain).abs().max() < 0.02

    def test_the_same_image_gives_the_same_masks_and_others_are_left_alone(self):
        segmenter = MonteCarloDropout(load(Dropped()), passes=3, seed=5)
        torch.manual_seed(0)
        first = segmenter(self.images).probabilities
        after = torch.rand(1)
        torch.manual_seed(0)
        assert torch.equal(torch.rand(1), after)
        segmenter(torch.rand(1, 3, 32, 32))
        torch.testing.assert_close(segmenter(self.images).probabilities, first, rtol=0, atol=0)
        other = MonteCarloDropout(load(segmenter.plain.source.backend.module), passes=3, seed=6)
        assert not torch.equal(other(self.images).probabilities, first)

    def test_a_rate_drops_before_the_classifier(self):
        torch.manual_seed(0)
        network = Tiny()
        with pytest.raises(ModelError, match="found none whose rate is above 0"):
            MonteCarloDropout(load(network))
        prediction = MonteCarloDropout(load(network), passes=3, rate=0.5)(self.images)
        assert scores.mutual_information(prediction).max() > 0
        plain = load(network)(self.images)
        assert scores.entropy(plain).shape == scores.entropy(prediction).shape
        assert not network.classifier._forward_pre_hooks

    def test_a_dropout_of_rate_zero_is_none(self):
        with pytest.raises(ModelError, match="--dropout-rate"):
            MonteCarloDropout(load(Dropped(0.0)))

    def test_a_rate_needs_a_classifier(self):
        unread = load(Tiny(resize="scaled"))
        with pytest.raises(ModelError, match="no last layer"):
            MonteCarloDropout(unread, rate=0.1)(self.images)

    @pytest.mark.parametrize(
        ("options", "message"),
        [({"passes": 1}, "two or more passes"), ({"rate": 1.0}, "between 0 and 1")],
    )
    def test_impossible_requests(self, options, message):
        with pytest.raises(UsageError, match=message):
            MonteCarloDropout(load(Dropped()), **options)

    def test_every_batch_is_checked(self):
        segmenter = MonteCarloDropout(load(Dropped()), passes=2)
        segmenter(self.images)
        with pytest.raises(UsageError, match="expected"):
            segmenter(self.images.numpy())

    def test_a_classifier_that_is_called_by_keyword(self):
        network = Tiny()
        forward = network.classifier.forward
        network.classifier.forward = lambda input: forward(input)
        network.features, features = (lambda x: features(x)), network.features
        prediction = MonteCarloDropout(load(network), passes=3, rate=0.5)(self.images)
        assert scores.member_spread(prediction).max() > 0

    def test_several_networks_cannot_be_sampled(self):
        with pytest.raises(UsageError, match="one PyTorch network"):
            MonteCarloDropout(load("demo,demo"))
