"""Fitting a density to a network, and what keeps it from another one."""

import pytest
import torch
from torch import nn

import doubtmap as dm
from doubtmap.engine import fit_score, locate
from doubtmap.engine.fit import before_last_activation, prepared


class Last(nn.Module):
    """A classifier after a given activation."""

    def __init__(self, activation, classes=8):
        super().__init__()
        self.body = nn.Conv2d(3, 12, 3, padding=1)
        self.activation = activation
        self.classifier = nn.Conv2d(12, classes, 1)

    def forward(self, x):
        return self.classifier(self.activation(self.body(x)))


@pytest.mark.parametrize(
    "activation",
    [nn.ReLU(), nn.ReLU(inplace=True), nn.GELU(), nn.SiLU(inplace=True), nn.LeakyReLU(0.01)],
    ids=str,
)
def test_the_layer_before_the_last_activation_is_found(activation):
    torch.manual_seed(0)
    assert before_last_activation(dm.load(Last(activation))) == "body"


def test_without_an_activation_there_is_no_layer_before_it():
    assert before_last_activation(dm.load(Last(nn.Identity()))) is None
    assert before_last_activation(dm.load("demo,demo")) is None


def test_a_real_network_s_normalisation_is_found():
    assert before_last_activation(dm.load("demo")) == "merge.3"


def test_layers_before_in_place_activations_keep_what_they_said():
    torch.manual_seed(0)
    network = Last(nn.ReLU(inplace=True))
    prediction = dm.load(network).listening(["body"])(torch.rand(1, 3, 16, 16))
    assert (prediction.layers["body"] < 0).any()
    torch.testing.assert_close(prediction.layers["body"].relu(), prediction.features)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    file = tmp_path_factory.mktemp("fit") / "density.safetensors"
    fit_score("density", dm.load("demo"), dm.open_dataset("synthetic:4", seed=1), out=file)
    return file


def test_fitted_scores_are_evaluated_beside_others(fitted):
    scores = f"entropy,density:{fitted},mahalanobis:{fitted},density(at=any,rank=8):{fitted}"
    results = dm.evaluate(dm.load("demo"), dm.open_dataset("synthetic:3"), scores, replicates=20)
    found = results.figures["scores"]
    assert list(found) == ["entropy", "density", "mahalanobis", "density(at=any,rank=8)"]
    for figures in found.values():
        assert 0 < figures["unknown"]["auprc"] < 1
        assert 0 < figures["wrong"]["pavpu_area"] < 1
        assert 0 < figures["wrong"]["per_pixel"]["p_uncertain_inaccurate_area"] < 1
    example = results.examples[0]
    assert (example.score, example.epistemic_score) == ("entropy", "density")
    assert example.epistemic.shape == example.doubt.shape


def test_another_network_is_refused(fitted):
    torch.manual_seed(0)
    names = dm.load("demo").class_names
    other = dm.load(dm.models.demo.build_demo_network(), classes=names)
    with pytest.raises(dm.ModelError, match="this one's features differ"):
        dm.evaluate(other, dm.open_dataset("synthetic:2"), f"density:{fitted}")


def test_an_ensemble_has_no_layers(fitted):
    with pytest.raises(dm.UsageError, match="Give a single network"):
        dm.evaluate(dm.load("demo,demo"), dm.open_dataset("synthetic:2"), f"density:{fitted}")


def test_a_file_says_what_it_was_fitted_to(fitted):
    about = dm.scores.Density.load(fitted).about
    assert about["data"] == "synthetic:4"
    assert about["images"] == 4
    assert about["model"]["source"] == "demo"


def test_a_layer_that_is_not_there():
    with pytest.raises(dm.UsageError, match=r"Near names: .*merge"):
        fit_score("density(layer=merge.9)", dm.load("demo"), dm.open_dataset("synthetic:1"))


def test_several_layers_on_several_grids():
    streets = dm.open_dataset("synthetic:3", seed=1)
    fitted = fit_score("density(layer=merge.3+eighth)", dm.load("demo"), streets)
    assert fitted.gaussians.mean.shape == (8, 56 + 72)
    segmenter = prepared(dm.load("demo"), {"density": fitted})
    assert fitted(segmenter(streets[0].image[None])).isfinite().all()


def test_locations_of_the_demo_network():
    figures = locate(dm.load("demo"), dm.open_dataset("synthetic:4"), grid=4)
    assert figures.distances.shape == (8, 8)
    assert figures.ratio < 1
