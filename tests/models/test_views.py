"""Views: means over an image as it is, mirrored, and in other sizes."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_networks import Queries, Tiny

import doubtmap as dm
from doubtmap import scores
from doubtmap.deploy.suited import network_of
from doubtmap.engine.settings import model_settings
from doubtmap.errors import UsageError
from doubtmap.fitting import fit_score
from doubtmap.models import Ensemble, Views, load
from doubtmap.models.passes import _layers_of, viewing
from doubtmap.prediction import Prediction, listening_to
from doubtmap.windows import Windows, automatic, for_images

NONE = {"mean": (0, 0, 0), "std": (1, 1, 1)}


class OfColour:
    """Logits that depend on a pixel's own colour only, so that a mirror changes nothing."""

    class_names = ("road", "sky")
    description = {"source": "colour"}  # noqa: RUF012

    def __call__(self, images):
        x = images.float() / 255 if images.dtype == torch.uint8 else images
        return Prediction(4 * x[:, :2], (x.shape[-2], x.shape[-1]))


def near(found, expected):
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


def mirrored(network, images):
    return network(images.flip(-1)).probabilities.flip(-1)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 3),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([True, "half", False]),
    st.integers(0, 999),
)
def test_the_mean_over_an_image_and_its_mirror(batch, size, resize, seed):
    torch.manual_seed(seed)
    network, images = load(Tiny(resize=resize), **NONE), torch.rand(batch, 3, *size)
    found = Views(network)(images)
    plain, other = network(images).probabilities, mirrored(network, images)
    near(found.probabilities, (plain + other) / 2)
    near(scores.member_entropy(found), -(plain.xlogy(plain) + other.xlogy(other)).sum(1) / 2)
    near(Views(network)(images.flip(-1)).probabilities.flip(-1), found.probabilities)


def test_a_mirror_that_changes_nothing_is_the_network():
    images = (255 * torch.rand(1, 3, 16, 24)).byte()
    near(Views(OfColour())(images).probabilities, OfColour()(images).probabilities)


def test_whatever_predicts_is_given_images_of_other_sides():
    images = torch.rand(1, 3, 16, 24)
    half = F.interpolate(images, (8, 12), mode="bilinear", antialias=True)
    at_half = F.interpolate(OfColour()(half).logits, (16, 24), mode="bilinear").softmax(1)
    found = Views(OfColour(), (0.5, 1.0))(images).probabilities
    near(found, (OfColour()(images).probabilities + at_half) / 2)


@pytest.mark.parametrize(
    ("size", "twice"),
    [((20, 32), (40, 64)), ("image", (46, 74))],
    ids=["network with a size", "images as they are"],
)
def test_a_network_sees_its_own_size_times_the_factor(size, twice):
    torch.manual_seed(0)
    tiny, images = Tiny(resize=False), torch.rand(2, 3, 23, 37)
    plain = load(tiny, input_size=size, **NONE)
    larger = load(tiny, input_size=twice, **NONE)
    found = Views(plain, (1.0, 2.0), mirror=False)(images)
    near(found.probabilities, (plain(images).probabilities + larger(images).probabilities) / 2)


def test_queries_are_averaged_too():
    torch.manual_seed(0)
    network, images = load(Queries(), **NONE), torch.rand(1, 3, 24, 36)
    accepted = network(images).queries.accepted
    other = network(images.flip(-1)).queries.accepted.flip(-1)
    near(Views(network)(images).queries.accepted, (accepted + other) / 2)


def test_inner_layers_are_those_of_the_image_as_it_is():
    torch.manual_seed(0)
    network, images = load(Tiny(), **NONE), torch.rand(1, 3, 32, 48)
    seen = listening_to(Views(network, (1.0, 2.0)), ["mix"])(images)
    assert torch.equal(seen.layers["mix"], listening_to(network, ["mix"])(images).layers["mix"])
    with pytest.raises(dm.ModelError, match="no features in common"):
        scores.gradient(seen)


@given(st.integers(1, 60), st.integers(1, 90), st.sampled_from([2, 4, 16]))
def test_inner_layers_of_padded_images_stand_for_the_image_alone(height, width, stride):
    """A ramp over the padded area, in pixels, is one over the image."""
    rows, columns = (torch.arange(side // stride) * stride + stride / 2 for side in (64, 96))
    ramp = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None].double()
    covered = (64.0, 96.0)
    seen = Prediction(
        torch.zeros(1, 2, 64, 96), (height, width), covered=covered, layers={"x": ramp}
    )
    found = _layers_of(seen)["x"]
    for axis, side in enumerate((height, width)):
        along = found[0, axis].movedim(axis, 0)[:, 0]
        expected = (torch.arange(len(along)).double() + 0.5) * side / len(along)
        inside = expected.clamp(stride / 2, covered[axis] - stride / 2)
        torch.testing.assert_close(along, inside, atol=1e-6, rtol=1e-6)
        assert abs(len(along) - side / stride) <= 1


def test_each_member_of_an_ensemble_looks_so():
    torch.manual_seed(0)
    several = Ensemble([load(Tiny(), **NONE), load(Tiny(), **NONE)])
    images = torch.rand(1, 3, 24, 32)
    found = viewing(several, ["mirror"])
    near(
        found(images).probabilities,
        (several(images).probabilities + mirrored(several, images)) / 2,
    )
    assert found(images).members.count == 2


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda s: Views(s, (0.0,)), "above 0"),
        (lambda s: Views(s, (float("nan"),)), "finite"),
        (lambda s: Views(s, (1.0,), mirror=False), "two or more"),
        (lambda s: Views(s, (1.0, 2.0, 2.0)), "each once"),
        (lambda s: viewing(s, ["mirror"]), "looks at images here"),
    ],
)
def test_views_that_make_no_sense(make, says):
    with pytest.raises(UsageError, match=says):
        make(OfColour())


def test_a_file_of_one_size_has_no_other_views(tmp_path):
    path = str(tmp_path / "one.pt2")
    torch.export.save(torch.export.export(Tiny().eval(), (torch.rand(1, 3, 16, 24),)), path)
    network = load(path, **NONE)
    assert Views(network)(torch.rand(1, 3, 16, 24)).members.count == 2
    with pytest.raises(UsageError, match=r"exported for \(16, 24\) alone. Take --views mirror"):
        Views(network, (1.0, 2.0))


def test_views_do_not_fit_into_a_graph():
    with pytest.raises(UsageError, match="several views"):
        network_of(Views(load(Tiny(), **NONE)))


def test_larger_views_need_more_memory(monkeypatch):
    monkeypatch.setattr(automatic, "memory_of", lambda _: 4e9)
    network, sizes = load(Tiny(), **NONE), [(600, 600)]
    assert for_images(network, sizes)[0] is network
    several = Ensemble([network, network])
    for segmenter, cut in (
        (Views(network), False),
        (Views(network, (1.0, 2.0)), True),
        (viewing(several, [2.0]), True),
    ):
        assert isinstance(for_images(segmenter, sizes)[0], Windows) is cut


def test_doubt_is_fitted_and_taken_with_views(tmp_path):
    network = Views(dm.load("demo"))
    images = dm.datasets.open_dataset("synthetic:5")
    fitted = fit_score("doubt", network, images)
    with_it = dm.evaluate(network, images, {"doubt": scores.doubt, "fitted": fitted}, replicates=5)
    assert set(with_it.figures["scores"]) == {"doubt", "fitted"}


def test_a_run_knows_its_views():
    network = load(Tiny(), **NONE)
    found = [model_settings(each) for each in (network, Views(network), Views(network, (1.0, 2.0)))]
    assert found[0] != found[1] != found[2] != found[0]
    views = model_settings(viewing(Ensemble([network, network]), ["mirror"]))["model"]["members"]
    assert [each["views"] for each in views] == 2 * [{"sides": [1.0], "mirror": True}]
