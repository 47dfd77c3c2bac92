"""Files of everything that is fitted: damage is one sentence, and never becomes an expectation."""

import json
import math
import random
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

import doubtmap as dm
from doubtmap.calibration import load_calibrator, save_calibrator
from doubtmap.calibration.binned import HistogramBinning, Isotonic
from doubtmap.calibration.judge import Judge
from doubtmap.calibration.linear import Dirichlet, Vector
from doubtmap.calibration.local import Local
from doubtmap.calibration.selective import Selective
from doubtmap.calibration.temperature import Temperature, TemperatureMix
from doubtmap.decisions import Threshold, load_threshold, save_threshold
from doubtmap.errors import DataError, ModelError
from doubtmap.files import Content, FileKind, Origin, Part, read, write
from doubtmap.files.fitted import metadata_of
from doubtmap.files.tables import (
    FLAG,
    TABLE,
    TEXT,
    TEXTS,
    all_within,
    hold_parts,
    one_of,
    optional,
    whole,
    within,
)
from doubtmap.models.distilled import FILE as HEAD
from doubtmap.models.distilled import Head, _read, head_file
from doubtmap.prediction import Fitted, FittedScore, digest_of
from doubtmap.scores import Density, Mahalanobis
from doubtmap.scores.gaussians import Gaussians
from doubtmap.scores.parsing import open_scores
from doubtmap.scores.rising import Additive, Curve
from doubtmap.scores.wrong import Wrong
from doubtmap.segments import MetaModel
from doubtmap.segments.estimators import Line, Trees
from doubtmap.training.flow import Flow, FlowShape
from doubtmap.training.flow_training import read_flow, write_flow

ORIGIN = Origin("yard", ("aa", "bb"), ("a", "b", "c"), {"images": 2}, "doubtmap fit", {"s": "x"})
KIND = FileKind("toy", "a toy", "Make it.", {"size": within(0, 1)}, {"x": Part("N N")})


def density():
    eye = torch.eye(4, dtype=torch.float64)
    ones = torch.ones(3, dtype=torch.float64)
    parts = (torch.full((3,), 9), ones, 9 * ones, torch.rand(3, 4).double(), eye.repeat(3, 1, 1))
    return Density(Gaussians(*parts), origin=ORIGIN)


def wrong():
    curve = Curve(torch.tensor([1, 5, 9], dtype=torch.int32), torch.tensor([0.0, 1, 2]).double())
    return Wrong(("entropy",), (dm.scores.entropy,), Additive((curve,), -1.0), ORIGIN)


def meta(kind):
    row, one = torch.rand(2).double().numpy(), torch.ones(1).double().numpy()
    line = Line(row, row + 1, row, row + 1, row, one)
    nodes = torch.tensor([[0, -1, -1]], dtype=torch.int32).numpy()
    left, right = (torch.tensor([[n, 0, 0]], dtype=torch.int32).numpy() for n in (1, 2))
    values = torch.rand(1, 3).double().numpy()
    trees = Trees(nodes, values, left, right, values, row, one)
    found = {"linear": line, "boosting": trees}[kind]
    scores = {"entropy": dm.scores.entropy}
    return MetaModel(kind, ("size", "b"), ("entropy",), scores, found, found, ORIGIN)


def judge():
    weights = torch.rand(5, 9), torch.rand(1, 5)
    return Judge("neighbourhood", weights, (torch.rand(5), torch.rand(1)))


CALIBRATORS = {
    "temperature": Temperature(temperature=2.0, channels=3, origin=ORIGIN),
    "temperature_mix": TemperatureMix(temperature=2.0, weights=(0.5, 0.5, 0.0), channels=3),
    "histogram": HistogramBinning(edges=torch.tensor([0.0]), accuracy=torch.rand(2), channels=3),
    "isotonic": Isotonic(levels=torch.linspace(-9, -1, 1 << 13), channels=3),
    "vector": Vector(factors=torch.ones(3), offsets=torch.zeros(3), channels=3),
    "local": Local(temperature=1.5, judge=judge(), channels=3, origin=ORIGIN),
    "selective": Selective(
        selector=judge(),
        temperature=3.0,
        others=Dirichlet(weights=torch.eye(3), offsets=torch.zeros(3), channels=3),
        channels=3,
    ),
}
FORMS = ("density", "wrong", "linear", "boosting", "threshold", "flow", "head", *CALIBRATORS)


def written(form, folder):
    """The file of a form, whole, and what reads it."""
    path = folder / (HEAD if form == "head" else f"{form}.safetensors")
    if form == "density":
        density().save(path)
        return path, Density.load
    if form == "wrong":
        wrong().save(path)
        return path, lambda file: Wrong.load(file, open_scores)
    if form in ("linear", "boosting"):
        meta(form).save(path)
        return path, MetaModel.load
    if form == "threshold":
        save_threshold(Threshold("entropy", 0.5, "unknown", "f1", origin=ORIGIN), path)
        return path, load_threshold
    if form == "flow":
        write_flow(path, Flow(FlowShape(2, 1, 4)), bits=4.0)
        return path, read_flow
    if form == "head":
        path.write_bytes(head_file(Head("classifier", 4, about={"target": "x"}), b"weights"))
        return path, _read
    save_calibrator(CALIBRATORS[form], path)
    return path, load_calibrator


def refused(load, path):
    """The one sentence that a file is refused with."""
    with pytest.raises((DataError, ModelError)) as found:
        load(path)
    sentence = str(found.value)
    assert "expected" in sentence and str(path) in sentence and "\n" not in sentence
    assert len(sentence) < 700
    return sentence


@pytest.mark.parametrize("form", FORMS)
class TestEachForm:
    def test_a_whole_file_is_read(self, form, tmp_path):
        path, load = written(form, tmp_path)
        load(path)

    def test_every_bit_counts(self, form, tmp_path):
        """A flipped bit is refused, wherever it lies; JSON may be edited, without checksum."""
        path, load = written(form, tmp_path)
        content, draw = path.read_bytes(), random.Random(0)
        if form == "threshold":
            pytest.skip("may be edited by hand")
        for _ in range(40):
            damaged = bytearray(content)
            damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
            path.write_bytes(damaged)
            refused(load, path)

    def test_a_file_that_is_cut_or_empty_or_gone(self, form, tmp_path):
        path, load = written(form, tmp_path)
        content = path.read_bytes()
        for length in (0, 1, 8, 40, len(content) // 2, len(content) - 1 - (form == "threshold")):
            path.write_bytes(content[:length])
            refused(load, path)
        path.unlink()
        assert "there is no such file" in refused(load, path)
        path.mkdir()
        refused(load, path)

    def test_a_file_of_another_kind(self, form, tmp_path):
        path, load = written(form, tmp_path)
        for other in ("density", "temperature", "flow", "threshold"):
            if (other in CALIBRATORS) == (form in CALIBRATORS) and (
                other == form or form in CALIBRATORS
            ):
                continue
            content = written(other, tmp_path / "other" if other == form else tmp_path)[0]
            path.write_bytes(content.read_bytes())
            refused(load, path)

    def test_numbers_that_are_not_finite(self, form, tmp_path):
        """With a checksum that fits, as somebody's own tool could write them."""
        path, load = written(form, tmp_path)
        if form in ("threshold", "temperature", "temperature_mix"):
            pytest.skip("has no tensors")
        # copies, since the file below them is written again
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
        with safe_open(str(path), "pt") as file:
            text = file.metadata()["doubtmap"].partition("\n")[0]
        for name, tensor in tensors.items():
            if not tensor.is_floating_point():
                continue
            for bad in (math.nan, math.inf):
                broken = tensor.clone()
                broken.view(-1)[-1] = bad
                if bad == math.inf and name.endswith("threshold"):
                    continue
                changed = tensors | {name: broken}
                about = metadata_of(text, changed)
                save_file(changed, path, about)
                assert f"{name.split('.')[-1]}: expected" in refused(load, path)

    def test_a_header_with_any_value_changed(self, form, tmp_path):
        """Each value of the header becomes something else: read as it was, or refused."""
        path, load = written(form, tmp_path)
        plain = form == "threshold"
        tensors = {} if plain else load_file(path)
        if plain:
            text = path.read_text()
        else:
            with safe_open(str(path), "pt") as file:
                text = file.metadata()["doubtmap"].partition("\n")[0]
        known = json.loads(text)
        for place in places(known):
            for value in (None, -1, math.nan, "x" * 5000, [[[]]], {}, 1e308, True):
                changed = json.dumps(put(known, place, value))
                if plain:
                    path.write_text(changed)
                else:
                    about = metadata_of(changed, tensors)
                    path.write_bytes(save(tensors, about))
                try:
                    found = load(path)
                except (DataError, ModelError) as error:
                    assert "\n" not in str(error)
                else:
                    assert_finite(found)


def places(known, *before):
    """Paths to all values of a header."""
    inside = known.items() if isinstance(known, dict) else enumerate(known)
    for key, value in inside:
        yield (*before, key)
        if isinstance(value, dict | list):
            yield from places(value, *before, key)


def put(known, place, value):
    """A copy with another value at a place."""
    copy = json.loads(json.dumps(known))
    inside = copy
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    return copy


def assert_finite(found):
    """Nothing by which a network is held, or a pixel flagged, is NaN."""
    if isinstance(found, Fitted):
        assert all(math.isfinite(each) for each in found.origin.fingerprint)
    if isinstance(found, Threshold):
        assert math.isfinite(found.threshold)
    if isinstance(found, Temperature | Local):
        assert 0 < found.temperature < math.inf


@pytest.mark.parametrize("form", ["density", *CALIBRATORS])
def test_tensors_of_which_nothing_is_known(form, tmp_path):
    path, load = written(form, tmp_path)
    with safe_open(str(path), "pt") as file:
        text = file.metadata()["doubtmap"].partition("\n")[0]
    tensors = load_file(path) | {"more": torch.rand(3)}
    save_file(tensors, path, metadata_of(text, tensors))
    refused(load, path)


def test_numbers_that_nothing_can_be_computed_with(tmp_path):
    path, load = written("density", tmp_path)
    with safe_open(str(path), "pt") as file:
        text = file.metadata()["doubtmap"].partition("\n")[0]
    for name in ("mean", "covariance"):
        tensors = load_file(path)
        tensors[name] = tensors[name] + 1e150
        save_file(tensors, path, metadata_of(text, tensors))
        assert f"{name}: expected finite numbers from" in refused(load, path)
        path, load = written("density", tmp_path)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "file"
    header = struct.pack("<Q", len(content)) + content
    for data in (content, header):
        path.write_bytes(data)
        for load in (Density.load, load_calibrator, load_threshold, MetaModel.load, read_flow):
            refused(load, path)


def test_json_that_nests_without_end_is_refused(tmp_path):
    (tmp_path / "t").write_text("[" * 100_000)
    refused(load_threshold, tmp_path / "t")


def test_what_is_fitted_says_so(tmp_path):
    fitted = [density(), wrong(), Mahalanobis(density())]
    assert all(isinstance(score, FittedScore) for score in fitted)
    assert [digest_of(score) == score.digest != "" for score in fitted] == [True] * 3
    assert not isinstance(dm.scores.entropy, FittedScore) and digest_of(dm.scores.entropy) == ""
    others = [meta("linear"), Threshold("entropy", 0.5, "wrong", "f1"), CALIBRATORS["local"]]
    assert all(isinstance(each, Fitted) and not isinstance(each, FittedScore) for each in others)


@pytest.mark.parametrize("form", ["density", "wrong", "linear", "threshold", "temperature"])
def test_the_origin_is_kept(form, tmp_path):
    path, load = written(form, tmp_path)
    assert load(path).origin == ORIGIN


class TestTables:
    @pytest.mark.parametrize(
        ("entry", "good", "bad"),
        [
            (TEXT, ["", "a"], [None, 1, ["a"]]),
            (TEXTS, [[], ["a"], ("a",)], ["a", [1], [["a"]], None]),
            (FLAG, [True, False], [0, 1, "true", None]),
            (TABLE, [{}], [[], None, "{}"]),
            (one_of("a", "b"), ["a"], ["c", None, ["a"], ""]),
            (within(0, 1), [0, 1, 0.5], [-1e-9, 1.1, math.nan, math.inf, True, "0", None]),
            (within(), [-1e308, 5], [math.inf, -math.inf, math.nan, 1 << 70]),
            (whole(1, 4), [1, 4, 2.0], [0, 5, 1.5, math.nan, True, "2"]),
            (all_within(0, 1, 2), [[0, 1], (0.5, 0.5)], [[0], [0, 1, 1], [0, math.nan], 1, "01"]),
            (all_within(), [[], [1e308]], [[math.nan], [None], {}]),
            (optional(within(0, 1)), [None, 1], [2, "a"]),
        ],
        ids=lambda value: getattr(value, "expected", None),
    )
    def test_entries(self, entry, good, bad):
        assert all(entry.holds(value) for value in good)
        assert not any(entry.holds(value) for value in bad)

    @pytest.mark.parametrize(
        ("tensors", "words"),
        [
            ({"a": torch.rand(2, 3)}, "it lacks b"),
            ({"a": torch.rand(2, 3), "b": torch.rand(3), "c": torch.rand(1)}, "it has 'c'"),
            ({"a": torch.rand(2, 3), "b": torch.rand(2)}, r"the shape \(D\) with D=3, got \(2,\)"),
            ({"a": torch.rand(3), "b": torch.rand(3)}, r"the shape \(C, D\), got \(3,\)"),
            ({"a": torch.rand(2, 3).double(), "b": torch.rand(3)}, "float32, got torch.float64"),
            ({"a": torch.rand(2, 3), "b": torch.ones(3).long()}, "floating point, got torch.int64"),
            ({"a": torch.rand(2, 3) + 2, "b": torch.rand(3)}, "a: expected finite numbers from 0"),
            ({"a": torch.full((2, 3), torch.nan), "b": torch.rand(3)}, "a: expected finite"),
        ],
    )
    def test_parts(self, tensors, words):
        table = {"a": Part("C D", torch.float32, 0, 1), "b": Part("D")}
        hold_parts({"a": torch.rand(2, 3), "b": torch.rand(3).double()}, table)
        with pytest.raises(ValueError, match=words):
            hold_parts(tensors, table)

    def test_axes_known_beforehand_and_equal_ones(self):
        hold_parts({"x": torch.rand(3, 3)}, {"x": Part("N N")}, {"N": 3})
        with pytest.raises(ValueError, match="with N=2"):
            hold_parts({"x": torch.rand(3, 3)}, {"x": Part("N N")}, {"N": 2})
        with pytest.raises(ValueError, match=r"got \(2, 3\)"):
            hold_parts({"x": torch.rand(2, 3)}, {"x": Part("N N")})

    def test_what_was_written_is_read(self, tmp_path):
        content = Content({"size": 0.25}, {"x": torch.rand(2, 2)}, ORIGIN)
        write(tmp_path / "toy", KIND, content)
        again = read(tmp_path / "toy", KIND, lambda content: content)
        assert (again.entries, again.origin) == (content.entries, ORIGIN)
        assert torch.equal(again.tensors["x"], content.tensors["x"])


@pytest.mark.real_data
def test_files_that_broke_earlier_versions(shared):
    folder = shared / "cases" / "faults"
    loads = {
        "density": Density.load,
        "mahalanobis": Mahalanobis.load,
        "wrong": lambda path: Wrong.load(path, open_scores),
        "cal": load_calibrator,
        "segments": MetaModel.load,
        "threshold": load_threshold,
    }
    files = [*folder.glob("*.safetensors"), *folder.glob("threshold-*.json")]
    assert len(files) > 30
    for path in files:
        refused(loads[path.name.split("-")[0].split("_")[0]], path)


def test_a_density_of_the_first_format_is_read_as_it_was_meant(tmp_path):
    """It had neither smoothing nor a choice of labels."""
    path, _ = written("density", tmp_path)
    density = Density.load(path)
    with safe_open(str(path), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        known = json.loads(file.metadata()["doubtmap"].partition("\n")[0])
    options = {k: v for k, v in known["entries"].items() if k not in ("smooth", "labels")}
    about = {"kind": "density", "format": 1, "options": options | {"about": {}, "class_names": []}}
    tensors["fingerprint"] = torch.zeros(0)
    save_file(tensors, tmp_path / "old", {"doubtmap": json.dumps(about)})
    old = Density.load(tmp_path / "old")
    assert (old.smooth, old.labels, old.layer) == (0.0, "given", density.layer)
    assert torch.equal(old.gaussians.mean, density.gaussians.mean)
