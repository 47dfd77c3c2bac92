"""A network with its doubts in one file says what the library says, or there is no file."""

import json
from functools import partial

import pytest
import torch
from tiny_networks import Queries, Tiny
from torch import nn
from typer.testing import CliRunner

import doubtmap as dm
from doubtmap.calibration.linear import Vector
from doubtmap.calibration.temperature import Temperature
from doubtmap.cli.app import app
from doubtmap.deploy import parity
from doubtmap.deploy.export import Form, export
from doubtmap.deploy.graph import type_of
from doubtmap.deploy.operators import Pooled
from doubtmap.errors import ModelError, UsageError
from doubtmap.kernels.steps import ordered
from doubtmap.models import Ensemble, load
from doubtmap.models.distilled import NEGATIVE, Head, attach
from doubtmap.models.preprocessing import shares
from doubtmap.scores import Density, Mahalanobis, Wrong
from doubtmap.scores.parsing import parse_scores
from doubtmap.scores.rising import Curve

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

OF_LOGITS = "max_softmax,margin,entropy,max_logit,energy,divergence,gradient(p=1)"
NONE = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
SEVEN_BY_NINE = (7, 9)


class Padded(nn.Module):
    """An encoder and a decoder that take sides of multiples of 8 only, as SMP's U-Net does."""

    def __init__(self, classes):
        super().__init__()
        self.down = nn.ModuleList(nn.Conv2d(c, 8, 3, 2, 1) for c in (3, 8, 8))
        self.up = nn.ModuleList(nn.Conv2d(c, 8, 3, 1, 1) for c in (16, 16))
        self.head = nn.Conv2d(8, classes, 3, 1, 1)

    def forward(self, x):
        if x.shape[-2] % 8 or x.shape[-1] % 8:
            raise RuntimeError("Wrong input shape")
        seen = []
        for layer in self.down:
            x = layer(x).relu()
            seen.append(x)
        x = seen.pop()
        for layer in self.up:
            x = layer(torch.cat([self.twice(x), seen.pop()], 1)).relu()
        return self.head(self.twice(x))

    @staticmethod
    def twice(x):
        return nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")


class Pyramid(nn.Module):
    """Bins of the whole image, whose number divides no side."""

    def __init__(self):
        super().__init__()
        self.bins = nn.AdaptiveAvgPool2d(3)
        self.classifier = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        pooled = nn.functional.interpolate(self.bins(x), x.shape[-2:], mode="bilinear")
        return self.classifier(x + pooled)


def networks(name):
    return {
        "quarter": partial(Tiny, align_corners=True),
        "padded": partial(Padded, 5),
        "binary": partial(Padded, 1),
        "pyramid": Pyramid,
        "queries": Queries,
    }[name]()


def exported(tmp_path, network, scores, name="net.onnx", **options):
    opened = load(network, **NONE) if isinstance(network, nn.Module) else network
    beside = ("calibrator", "threshold", "about")
    more = {key: options.pop(key) for key in beside if key in options}
    export(opened, parse_scores(scores), tmp_path / name, Form(**options), **more)
    return opened, tmp_path / name


def said_by(path, images):
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    arrays = session.run(names, {"images": images.numpy()})
    return {name: torch.from_numpy(array) for name, array in zip(names, arrays)}


@pytest.mark.parametrize("name", ["quarter", "padded", "binary", "pyramid", "queries"])
def test_the_file_gives_what_the_library_gives(tmp_path, name):
    """At a size that neither the exporter nor the parity has seen, in a batch of four."""
    scores = "rejected,entropy" if name == "queries" else OF_LOGITS
    segmenter, path = exported(tmp_path, networks(name), scores)
    images = torch.rand(4, 3, 41, 118)
    found, prediction = said_by(path, images), segmenter(images)
    assert found["classes"].dtype == torch.uint8
    assert torch.equal(found.pop("classes").long(), prediction.classes)
    assert list(found) == list(parse_scores(scores))
    for score, values in found.items():
        wanted = parse_scores(score)[score](prediction)
        torch.testing.assert_close(values, wanted, rtol=1e-4, atol=1e-4)


def test_a_class_of_negatives_is_inside(tmp_path):
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 4, 1)]
    network, head = nn.Sequential(*layers), Head("2", 8, says=NEGATIVE)
    nn.init.normal_(head[-1].weight)
    attach(network, head)
    segmenter, path = exported(tmp_path, network, "negative,entropy")
    images = torch.rand(2, 3, 41, 58)
    wanted = parse_scores("negative")["negative"](segmenter(images))
    torch.testing.assert_close(said_by(path, images)["negative"], wanted, rtol=1e-4, atol=1e-4)


def test_resizing_is_inside(tmp_path):
    segmenter = load(Tiny(), input_size=(32, 48), **NONE)
    _, path = exported(tmp_path, segmenter, "entropy")
    for size in ((20, 31), (70, 200)):  # smaller and larger than the network's
        images = torch.rand(1, 3, *size)
        wanted = dm.scores.entropy(segmenter(images))
        torch.testing.assert_close(said_by(path, images)["entropy"], wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
@pytest.mark.parametrize("to", [(5, 4), (12, 9), SEVEN_BY_NINE])
def test_products_resize_as_pytorch_does(resample, to):
    image = torch.rand(1, 2, *SEVEN_BY_NINE, dtype=torch.float64)
    wanted = nn.functional.interpolate(image, to, mode=resample, antialias=True)
    found = shares(7, to[0], resample) @ image @ shares(9, to[1], resample).T
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("bins", [1, 3, (2, 5), (None, 4)])
def test_bins_are_those_of_pytorch(bins):
    image = torch.rand(2, 3, *SEVEN_BY_NINE)
    with Pooled():
        found = nn.functional.adaptive_avg_pool2d(image, bins)
    torch.testing.assert_close(found, nn.functional.adaptive_avg_pool2d(image, bins))


def test_bytes_go_in(tmp_path):
    segmenter, path = exported(tmp_path, Tiny(), "entropy", input="uint8")
    images = torch.randint(0, 256, (1, 3, 30, 52), dtype=torch.uint8)
    found = said_by(path, images)["entropy"]
    torch.testing.assert_close(found, dm.scores.entropy(segmenter(images)), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "calibrator",
    [
        Temperature(temperature=2.5),
        Vector(factors=torch.linspace(0.5, 2, 5), offsets=torch.linspace(-1, 1, 5), channels=5),
    ],
    ids=["temperature", "vector"],
)
def test_the_calibrator_is_inside(tmp_path, calibrator):
    segmenter, path = exported(tmp_path, Tiny(), "max_softmax", calibrator=calibrator)
    images = torch.rand(1, 3, 36, 60)
    raw = dm.scores.max_softmax(segmenter(images))
    wanted = dm.scores.max_softmax(calibrator(segmenter(images)))
    found = said_by(path, images)["max_softmax"]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    assert not torch.allclose(found, raw, atol=1e-2)


def test_the_file_knows_itself_and_is_opened_again(tmp_path):
    segmenter = load(Tiny(), classes=["a", "b", "c", "d", "e"], mean=(0.4,) * 3, std=(0.2,) * 3)
    _, path = exported(tmp_path, segmenter, "entropy", logits=True)
    again = load(str(path))
    assert again.class_names == segmenter.class_names
    images = torch.rand(1, 3, 44, 72)
    here, there = again(images), segmenter(images)
    torch.testing.assert_close(here.native_logits, there.native_logits, rtol=0, atol=1e-5)
    assert here.features is not None
    about = {each.key: each.value for each in onnx.load(str(path)).metadata_props}
    said = json.loads(about["doubtmap"])
    assert said["version"] == dm.__version__ and said["network"]["mean"] == [0.4] * 3
    assert said["outputs"] == ["classes", "entropy", "native_logits"]


def test_a_program_of_torch_export_is_opened_again(tmp_path):
    network = nn.Conv2d(3, 4, 1)
    segmenter, path = exported(tmp_path, network, "max_logit", "n.pt2", format="pt2", logits=True)
    again = load(str(path), trust=True)
    assert again.source.preprocessing.origin == "inside the file, by doubtmap export"
    images = torch.rand(1, 3, 44, 72)
    here, there = again(images), segmenter(images)
    torch.testing.assert_close(here.native_logits, there.native_logits, rtol=0, atol=1e-5)


def test_a_file_without_logits_says_what_it_lacks(tmp_path):
    _, path = exported(tmp_path, Tiny(), "entropy")
    with pytest.raises(ModelError, match=r"classes, entropy, of which .*--native-logits"):
        load(str(path))


def test_parity_is_written_beside_the_file(tmp_path):
    _, path = exported(tmp_path, Tiny(), "entropy")
    said = json.loads((tmp_path / "parity.json").read_text())
    assert said["file"] == path.name and said["images"] == 12 and len(said["sizes"]) == 3
    assert said["largest_difference"]["entropy"] <= said["tolerance"] == 1e-4


class FollowsItsExample(nn.Module):
    """A network that is another one for wide images, which a trace does not see."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.classifier(x) * (1 if x.shape[-1] > 100 else 3)


def test_where_the_file_differs_there_is_none(tmp_path):
    with pytest.raises(ModelError, match=r"differs at \d+ of \d+ places .*--size HxW"):
        exported(tmp_path, FollowsItsExample(), "entropy")
    assert list(tmp_path.iterdir()) == []


def test_a_tie_is_no_difference():
    logits = torch.zeros(1, 3, 2, 2)
    logits[:, 1, 0] = 1e-6
    prediction = dm.Prediction(logits, size=(2, 2))
    graph = {"classes": prediction.classes.to(torch.uint8)}
    found, given = parity.Parity(), {"classes": torch.zeros(1, 2, 2, dtype=torch.uint8)}
    parity._take(found, given, graph, prediction, None)
    assert found.ties == 2


def test_numbers_that_are_equal_are_told_as_numbers():
    logits = torch.randn(1, 3, 2, 2)
    prediction = dm.Prediction(logits, size=(2, 2))
    said = {"entropy": torch.rand(1, 2, 2), "bytes": torch.zeros(1, 2, 2, dtype=torch.uint8)}
    found = parity.Parity()
    parity._take(found, said, said, prediction, None)
    assert found.sentence().endswith(
        "its numbers differ by at most 0, its bytes differ by at most 0 of 255."
    )


def test_many_classes_are_int32():
    assert type_of(256) == torch.uint8 and type_of(257) == torch.int32


def test_what_no_graph_holds_says_what_to_do(tmp_path):
    several = Ensemble([load(Tiny(), **NONE), load(Tiny(), **NONE)])
    with pytest.raises(UsageError, match=r"an ensemble.*Export one of them"):
        exported(tmp_path, several, "entropy")
    with pytest.raises(UsageError, match="mutual_information: needs several networks"):
        exported(tmp_path, Tiny(), "mutual_information")
    with pytest.raises(UsageError, match="--format: expected one of onnx, openvino, pt2, triton"):
        exported(tmp_path, Tiny(), "entropy", format="xml")


class Labelled(list):
    """Predictions with labels that are sometimes right."""

    @classmethod
    def of(cls, segmenter, seed):
        generator = torch.Generator().manual_seed(seed)
        images = torch.rand(4, 1, 3, 32, 48, generator=generator)
        flips = torch.rand(4, 1, 32, 48, generator=generator) < 0.3
        predictions = [segmenter(image) for image in images]
        return cls((p, (p.classes + f.long()) % 5) for p, f in zip(predictions, flips))


def test_fitted_scores_are_inside(tmp_path):
    segmenter = load(Tiny(), **NONE)
    scores = parse_scores("entropy,margin")
    wrong = Wrong.fit(Labelled.of(segmenter, 0), Labelled.of(segmenter, 1), scores)
    export(segmenter, {"wrong": wrong}, tmp_path / "net.onnx")
    images = torch.rand(1, 3, 40, 56)
    found = said_by(tmp_path / "net.onnx", images)["wrong"]
    torch.testing.assert_close(found, wrong(segmenter(images)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("knots", [(-3.0, -1e-20, 0.0, 2.5, 40.0), (0.25, 0.5), (1e-6, 1.0, 3e38)])
def test_a_curve_in_a_graph_is_the_curve(knots):
    levels = torch.linspace(-2, 3, len(knots), dtype=torch.float64)
    curve = Curve(ordered(torch.tensor(knots)), levels)
    values = torch.cat(
        [torch.randn(500), torch.randn(500).exp(), torch.tensor([*knots, 0.0, -0.0])]
    )
    torch.testing.assert_close(curve._recorded(values), curve(values), rtol=0, atol=1e-5)


@pytest.mark.parametrize("at", ["predicted", "any"])
def test_densities_are_inside(tmp_path, at):
    """A class that was never seen counts as any, in the graph as in the library."""
    segmenter = load(Tiny(), **NONE)
    pairs = [(p, label.where(label != 1, -1)) for p, label in Labelled.of(segmenter, 0)]
    density = Density.fit(pairs, certainty=0.0, at=at)
    scores = {"density": density, "mahalanobis": Mahalanobis(density, relative=True)}
    assert not density.gaussians.present.all()
    export(segmenter, scores, tmp_path / "net.onnx")
    images = torch.rand(3, 3, 41, 58)
    found, prediction = said_by(tmp_path / "net.onnx", images), segmenter(images)
    assert bool((prediction.classes == 1).any())
    for name, score in scores.items():
        torch.testing.assert_close(found[name], score(prediction), rtol=1e-4, atol=1e-4)


def test_a_segformer(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(
        num_labels=4, depths=[1] * 4, hidden_sizes=[8] * 4, decoder_hidden_size=8,
        num_attention_heads=[1] * 4,
    )  # fmt: skip
    network = transformers.SegformerForSemanticSegmentation(config).eval()
    segmenter, path = exported(tmp_path, network, "entropy,max_logit")
    images = torch.rand(2, 3, 70, 110)
    found, wanted = said_by(path, images), segmenter(images)
    torch.testing.assert_close(found["entropy"], dm.scores.entropy(wanted), rtol=0, atol=1e-4)
    torch.testing.assert_close(found["max_logit"], dm.scores.max_logit(wanted), rtol=0, atol=1e-4)


def test_the_command_says_how_far_the_file_is(tmp_path):
    out = tmp_path / "net.onnx"
    found = CliRunner().invoke(app, ["export", "demo", "--scores", "entropy", "--out", str(out)])
    assert found.exit_code == 0, found.output
    assert "12 images of 64x96, 90x122, 131x75 pixels" in found.output
    assert out.is_file() and (tmp_path / "options.toml").exists() is False


def test_the_file_is_named_as_its_format(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run("export", "demo", "--format", "pt2", "--size", "32x48")
    assert code == 0 and "Wrote net.pt2" in err
    for words, said in (
        (("--format", "openvino", "--out", "net.onnx"), "Name it net.xml"),
        (("--out", "net.txt"), "Name it net.onnx"),
        (("--size", "4"), "--size: expected HxW such as 512x1024, got 4."),
    ):
        code, _, err = run("export", "demo", *words)
        assert code == 2 and said in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.pt2", "parity.json"]


def test_classes_alone_can_be_written(tmp_path):
    said = export(load(nn.Conv2d(3, 4, 1), **NONE), {}, tmp_path / "net.onnx").sentence()
    assert said.endswith("the file's classes are the library's (ties: 0 pixels).")


def test_an_exported_file_is_not_exported_again(tmp_path):
    _, path = exported(tmp_path, Tiny(), "entropy", logits=True)
    with pytest.raises(UsageError, match="exported already"):
        exported(tmp_path, load(str(path)), "entropy")
