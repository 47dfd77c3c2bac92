"""Fitting a density to a network, and what keeps it from another one."""

import pytest
import torch
from torch import nn

import doubtmap as dm
from doubtmap.datasets import fingerprints
from doubtmap.engine.settings import model_settings, origin_of
from doubtmap.errors import DataError
from doubtmap.evaluation.asking import Options
from doubtmap.fitting import Unlabelled, fit_score, without_border
from doubtmap.prediction import Prediction, shown
from doubtmap.scores import Density
from doubtmap.scoring import before_last_activation, prepared
from doubtmap.studies.locations import locate


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
    [
        nn.ReLU(),
        nn.ReLU(inplace=True),
        nn.GELU(approximate="tanh"),
        nn.SiLU(inplace=True),
        nn.LeakyReLU(0.2),
        nn.PReLU(),
        nn.Tanh(),
        nn.Softplus(),
    ],
    ids=str,
)
def test_the_layer_before_the_last_activation_is_found(activation):
    torch.manual_seed(0)
    assert before_last_activation(dm.load(Last(activation))) == "body"


def test_without_an_activation_there_is_no_layer_before_it():
    assert before_last_activation(dm.load(Last(nn.Identity()))) is None
    assert before_last_activation(dm.load(Last(nn.BatchNorm2d(12)))) is None
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
    origin = dm.scores.Density.load(fitted).origin
    assert origin.data == "synthetic:4"
    assert origin.facts == {"images": 4} and len(origin.images) == 4
    assert origin.network["source"] == "demo"


def test_the_gaussians_without_the_border_are_those_of_the_regions():
    """Within two pixels of the border features are mixed; the fit is exact without them."""
    generator = torch.Generator().manual_seed(0)
    label = torch.zeros(1, 12, 16, dtype=torch.int64)
    label[..., 8:], label[:, 0] = 1, -2
    own = torch.randn(1, 4, 12, 16, generator=generator) + 9 * label[:, None]
    seen = own.clone()
    seen[..., 6:10] = 4.5
    prediction = Prediction(torch.zeros(1, 2, 12, 16), (12, 16), features=seen)
    fits = [
        Density.fit(without_border([(prediction, label)], border), scale="none", certainty=0)
        for border in (0, 2)
    ]
    mixed, inside = (fit.gaussians for fit in fits)
    regions = [own[0, :, 1:, :6], own[0, :, 1:, 10:]]
    assert inside.pixels.tolist() == [66, 66] and mixed.pixels.tolist() == [88, 88]
    for number, region in enumerate(regions):
        z = region.flatten(1).double()
        torch.testing.assert_close(inside.mean[number], z.mean(1))
        torch.testing.assert_close(inside.covariance[number], z.cov(correction=0))
    assert (mixed.mean - inside.mean).abs().min() > 0.5


def test_a_fit_without_the_border_chooses_its_exponent_there_and_says_so(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("doubtmap.fitting.exponent_for", lambda x: seen.append(x) or 8.0)
    network, streets = dm.load("demo"), dm.open_dataset("synthetic:2", seed=1)
    file = tmp_path / "density"
    found = [fit_score(f"density(border={n})", network, streets, out=file) for n in (0, 8)]
    counts = [fit.gaussians.pixels.sum() for fit in found]
    assert 0 < counts[1] < counts[0]
    for fit, shares, count in zip(found, seen, counts):
        assert float(shares[3]) == pytest.approx(float(fit.gaussians.effective.sum() / count))
    assert [fit.origin.facts for fit in found] == [{"images": 2}, {"images": 2, "border": 8}]
    assert Density.load(file).origin.facts == found[1].origin.facts


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("border=1.5", "border as a whole number of pixels, or 0, got 1.5"),
        ("border=-1", "border as a whole number of pixels, or 0, got -1"),
        ("border=1e9", "pixels more than 1000000000 away from another label, found none. Take a s"),
        ("border=1e9,certainty=64", "pixels more than 1000000000 away from another label, found"),
        ("border=2,labels=predicted", "given labels for border, got labels=predicted"),
    ],
)
def test_borders_that_make_no_sense(wanted, said):
    with pytest.raises(dm.UsageError, match=said):
        fit_score(f"density({wanted})", dm.load("demo"), dm.open_dataset("synthetic:1"))


def test_a_layer_that_is_not_there():
    with pytest.raises(dm.UsageError, match=r"Near names: .*merge"):
        fit_score("density(layer=merge.9)", dm.load("demo"), dm.open_dataset("synthetic:1"))


def test_several_layers_on_several_grids():
    streets = dm.open_dataset("synthetic:3", seed=1)
    fitted = fit_score("density(layer=merge.3+eighth)", dm.load("demo"), streets)
    assert fitted.gaussians.mean.shape == (8, 56 + 72)
    segmenter = prepared(dm.load("demo"), {"density": fitted})
    assert fitted(segmenter(streets[0].image[None])).isfinite().all()


def test_a_layer_may_be_called_by_a_number():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 8, 1))
    segmenter = dm.load(network, classes=dm.load("demo").class_names)
    fitted = fit_score("density(layer=0,certainty=0)", segmenter, dm.open_dataset("synthetic:1"))
    assert fitted.layers == ("0",)


class Slow:
    """A data set that must not be read."""

    def __init__(self, dataset):
        self.dataset, self.read = dataset, 0

    def __getattr__(self, name):
        return getattr(self.dataset, name)

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        self.read += 1
        return self.dataset[index]


def test_options_are_checked_before_the_whole_data_set_is_read(tmp_path):
    streets = Slow(dm.open_dataset("synthetic:40"))
    with pytest.raises(dm.UsageError, match="a number of the 56 channels"):
        fit_score("density(rank=4000)", dm.load("demo"), streets)
    with pytest.raises(dm.DataError, match="cannot be written"):
        fit_score("density", dm.load("demo"), streets, out=tmp_path)
    assert streets.read < 8


def test_a_run_does_not_go_on_with_another_fit(fitted, tmp_path):
    other = tmp_path / "other.safetensors"
    fit_score("density", dm.load("demo"), dm.open_dataset("synthetic:2", seed=5), out=other)
    streets = dm.open_dataset("synthetic:2")
    stopped = {"out": tmp_path / "run", "replicates": 20}

    def stop(results):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dm.evaluate(
            dm.load("demo"), streets, f"density:{fitted}", options=Options(save=stop), **stopped
        )
    for scores in (f"density:{other}", f"density(at=any):{fitted}"):
        with pytest.raises(dm.UsageError, match="differ"):
            dm.evaluate(dm.load("demo"), streets, scores, resume=True, **stopped)
    dm.evaluate(dm.load("demo"), streets, f"density:{fitted}", resume=True, **stopped)


def test_members_are_part_of_a_run_s_settings():
    plain, other = dm.load("demo,demo"), dm.load("demo,demo", mean=(0, 0, 0))
    assert model_settings(plain) != model_settings(other)


def test_constant_features_have_no_places():
    network = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 8, 1))
    nn.init.zeros_(network[0].weight)
    nn.init.ones_(network[0].bias)
    segmenter = dm.load(network, classes=dm.load("demo").class_names)
    with pytest.raises(dm.DataError, match="features that tell them apart"):
        locate(segmenter, dm.open_dataset("synthetic:2"))


def test_locations_of_the_demo_network():
    figures = locate(dm.load("demo"), dm.open_dataset("synthetic:4"), grid=4)
    assert figures.distances.shape == (8, 8)
    assert figures.ratio < 1


@pytest.mark.parametrize(
    "option",
    [{"activation": "none"}, {"output": 0}, {"divisor": 32}, {"bands": (3, 2, 1)}],
    ids=str,
)
def test_what_was_asked_is_part_of_a_run_s_settings(option):
    assert model_settings(dm.load("demo", **option)) != model_settings(dm.load("demo"))


def test_a_run_s_settings_do_not_change_with_the_first_image():
    segmenter = dm.load("demo", activation="none")
    before = model_settings(segmenter)
    segmenter(torch.rand(1, 3, 64, 96))
    assert model_settings(segmenter) == before


def test_images_of_a_fit_are_shown_and_blamed_by_name():
    """Saved predictions know an image by its name alone."""

    class Named(Last):
        def forward(self, x):
            seen.append(shown())
            return super().forward(x)

    seen = []
    streets = dm.open_dataset("synthetic:2")
    segmenter = dm.load(Named(nn.ReLU()))
    assert len(list(Unlabelled(segmenter, streets, [1, 0]))) == 2
    assert list(dict.fromkeys(seen)) == [streets.sample_name(1), streets.sample_name(0)]
    with torch.no_grad():
        segmenter.source.backend.module.classifier.bias.fill_(torch.nan)
    with pytest.raises(DataError, match=streets.sample_name(1)):
        list(Unlabelled(segmenter, streets, [1]))


def test_only_the_images_of_a_fit_are_hashed():
    streets = dm.open_dataset("synthetic:3")
    origin = origin_of(dm.load("demo"), streets, torch.zeros(2), indices=[2])
    assert origin.images == tuple(fingerprints(streets, [2]))
