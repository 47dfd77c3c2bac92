"""What holds for every calibrator."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from worlds import CLASSES, honest_pairs

import doubtmap as dm
from doubtmap.calibration import (
    METHODS,
    Calibrated,
    Calibrator,
    Dirichlet,
    Identity,
    Selective,
    Temperature,
    Vector,
    load_calibrator,
    parse_method,
    save_calibrator,
)
from doubtmap.calibration.calibrator import rescaled
from doubtmap.calibration.files import parameters_sha256
from doubtmap.files import Origin
from doubtmap.prediction import Members, Prediction


def test_calibrated_probabilities_are_probabilities(calibrator, quarter):
    p = calibrator(quarter).probabilities
    assert p.shape == quarter.probabilities.shape
    assert torch.isfinite(calibrator(quarter).logits).all()
    assert torch.allclose(p.sum(1), torch.ones(2, 24, 32), atol=1e-5)


def test_the_predicted_class_stays(calibrator, quarter):
    after = calibrator(quarter)
    if calibrator.keeps_classes:
        assert (after.classes == quarter.classes).all()
        # ... and is the likeliest, so that scores speak of the label that is shown
        shown = after.probabilities.gather(1, after.classes[:, None])[:, 0]
        assert torch.allclose(shown, after.probabilities.amax(1), atol=1e-6)
    else:
        assert isinstance(calibrator, Vector | Dirichlet)


def test_a_constant_on_all_logits_changes_nothing(calibrator, quarter):
    moved = Prediction(quarter.native_logits + 7.0, quarter.size, features=quarter.features)
    assert torch.allclose(
        calibrator(moved).probabilities, calibrator(quarter).probabilities, atol=1e-4
    )


def test_images_of_a_batch_do_not_see_each_other(calibrator, quarter):
    alone = Prediction(quarter.native_logits[1:], quarter.size, features=quarter.features[1:])
    both = calibrator(quarter).probabilities[1:]
    assert torch.allclose(calibrator(alone).probabilities, both, atol=1e-5)


def test_files_give_back_the_same_calibrator(calibrator, quarter, tmp_path):
    path = tmp_path / "folder" / "calibrator.safetensors"
    save_calibrator(calibrator, path)
    again = load_calibrator(path)
    assert type(again) is type(calibrator)
    assert torch.equal(again(quarter).logits, calibrator(quarter).logits)


def test_the_scores_take_calibrated_predictions(calibrator, quarter):
    after = calibrator(quarter)
    for name in ("max_softmax", "margin", "entropy", "divergence"):
        assert torch.isfinite(getattr(dm.scores, name)(after)).all()


def test_only_one_factor_for_all_pixels_leaves_an_energy(calibrator, quarter):
    after = calibrator(quarter)
    if isinstance(calibrator, Temperature | Identity):
        factor = getattr(calibrator, "temperature", 1.0)
        expected = -(quarter.logits / factor).logsumexp(1)
        assert torch.allclose(dm.scores.energy(after), expected, atol=1e-4)
    else:
        with pytest.raises(dm.ModelError, match="leave the calibrator out"):
            dm.scores.energy(after)


def test_what_members_say_apart_is_dropped_with_a_reason(calibrator, quarter):
    if isinstance(calibrator, Identity):
        return
    doubt = Members(2, torch.rand(2, 24, 32), torch.rand(2, 24, 32))
    after = calibrator(replace(quarter, members=doubt))
    with pytest.raises(dm.ModelError, match="leave the calibrator out"):
        dm.scores.mutual_information(after)
    with pytest.raises(dm.ModelError, match="free energy"):  # of a mean of probabilities
        dm.scores.energy(after)
    with pytest.raises(dm.ModelError, match="MODEL1,MODEL2"):
        dm.scores.mutual_information(calibrator(quarter))


def test_what_a_second_head_says_stays(calibrator):
    torch.manual_seed(5)
    layers = {"classifier.distilled": torch.randn(1, 1, 6, 8)}
    raw = Prediction(
        torch.randn(1, CLASSES, 6, 8),
        (21, 30),
        covered=(24.0, 32.0),
        features=torch.randn(1, 3, 6, 8),
        layers=layers,
    )
    assert torch.allclose(dm.scores.distilled(calibrator(raw)), dm.scores.distilled(raw), atol=1e-6)


def test_classes_in_another_order_are_refused(calibrator, quarter):
    if calibrator.channels is None:
        return
    known = replace(calibrator, origin=Origin(class_names=tuple("abcd")))
    known(quarter)
    known(replace(quarter, class_names=tuple("abcd")))
    with pytest.raises(dm.UsageError, match="in their order: a, b, c, d; got b, a, c, d"):
        known(replace(quarter, class_names=tuple("bacd")))


@pytest.mark.parametrize("name", [name for name in METHODS if name != "identity"])
def test_a_fit_knows_the_classes_and_refuses_extremes(name, lying, fitted):
    assert fitted[name].origin.class_names == tuple("abcd")
    extreme = [(replace(p, native_logits=1e20 * p.native_logits), label) for p, label in lying]
    with pytest.raises(dm.DataError, match="differ by less than 1e\\+07"):
        parse_method(name)(extreme)


class Halved(Calibrator):
    """Somebody's own."""

    def apply(self, prediction):
        return rescaled(prediction, prediction.native_logits / 2, keep=True)


def test_an_own_calibrator_is_described_and_not_written(tmp_path):
    demo = dm.load("demo")
    about = Calibrated(demo, Halved()).description["calibrator"]
    assert about["method"] == "Halved"
    with pytest.raises(dm.UsageError, match="got Halved"):
        save_calibrator(Halved(), tmp_path / "c")
    assert not list(tmp_path.iterdir())


def test_parameters_are_told_apart(fitted, tmp_path):
    found = {parameters_sha256(calibrator) for calibrator in fitted.values()}
    assert len(found) == len(fitted)
    one = fitted["selective"]
    save_calibrator(one, tmp_path / "c")
    again = replace(load_calibrator(tmp_path / "c"), origin=Origin("elsewhere"))
    assert parameters_sha256(again) == parameters_sha256(one)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(dm.DataError, match="No space"):
        save_calibrator(Temperature(temperature=2.0), tmp_path / "c")
    assert not list(tmp_path.iterdir())


def test_inner_layers_are_refused_where_the_grid_is_lost(fitted):
    class Network:
        class_names = ()
        description = {"source": "none"}  # noqa: RUF012

        def listening(self, layers):
            return self

        def __call__(self, images):
            return Prediction(torch.zeros(1, CLASSES, 2, 2), (2, 2))

    Calibrated(Network(), fitted["temperature"]).listening(["body"])
    with pytest.raises(dm.ModelError, match=r"calibrator \(histogram\) works at the image's size"):
        Calibrated(Network(), fitted["histogram"]).listening(["body"])


def test_another_number_of_classes_is_refused(calibrator):
    if calibrator.channels is None:
        return
    with pytest.raises(dm.UsageError, match="expected the 4 classes"):
        calibrator(Prediction(torch.zeros(1, CLASSES + 1, 2, 2), (2, 2)))


@pytest.mark.parametrize("name", [name for name in METHODS if name != "identity"])
def test_what_cannot_be_learnt_from_is_refused(name):
    fit = parse_method(name)
    pairs = honest_pairs(2)
    void = [(p, torch.full_like(label, -2)) for p, label in pairs]
    with pytest.raises(dm.DataError, match="found none"):
        fit(void)
    right = [(p, p.classes) for p, _ in pairs]
    with pytest.raises(dm.DataError, match="wrong pixels"):
        fit(right)
    strange = [(p, torch.full_like(label, CLASSES)) for p, label in pairs]
    with pytest.raises(dm.DataError, match=f"below {CLASSES}"):
        fit(strange)
    small = [(p, label[:, :5]) for p, label in pairs]
    with pytest.raises(dm.DataError, match="image's size"):
        fit(small)


def test_origin_is_kept(tmp_path):
    origin = Origin("camvid:val", ("ab", "cd"), ("sky", "road"), {"raw": {"ece": 0.1}}, "doubtmap")
    save_calibrator(Temperature(temperature=2.0, channels=2, origin=origin), tmp_path / "c")
    assert load_calibrator(tmp_path / "c").origin == origin


@pytest.mark.parametrize("content", [b"", b"no calibrator", b"\x08\0\0\0\0\0\0\0{}      "])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(dm.DataError, match="expected a calibrator"):
        load_calibrator(tmp_path / "c")


ORIGIN = """{"kind": "Origin", "fields": {"data": "x", "images": {"tuple": []}, "class_names":
{"tuple": []}, "figures": {"dict": {}}, "command": ""}}"""
"""As the first format had it."""


def test_broken_calibrators_are_refused(tmp_path, fitted):
    with pytest.raises(dm.DataError, match="there is no such file"):
        load_calibrator(tmp_path / "nowhere")
    save_file({"x": torch.zeros(1)}, tmp_path / "network")
    with pytest.raises(dm.DataError, match="expected a calibrator"):
        load_calibrator(tmp_path / "network")
    system = f'{{"kind": "system", "fields": {{"origin": {ORIGIN}}}}}'
    metadata = {"doubtmap_calibrator": "1", "calibrator": system}
    save_file({"x": torch.zeros(1)}, tmp_path / "kind", metadata)
    with pytest.raises(dm.DataError, match="expected a calibrator"):
        load_calibrator(tmp_path / "kind")
    fields = f'{{"channels": 3, "temperature": 0.0, "origin": {ORIGIN}}}'
    cold = f'{{"kind": "temperature", "fields": {fields}}}'
    save_file({"x": torch.zeros(1)}, tmp_path / "cold", metadata | {"calibrator": cold})
    with pytest.raises(dm.DataError, match="temperature: expected one of the finite numbers"):
        load_calibrator(tmp_path / "cold")
    save_file({"x": torch.full((1,), torch.nan)}, tmp_path / "nan", metadata)
    with pytest.raises(dm.DataError, match="x: expected finite numbers, got others"):
        load_calibrator(tmp_path / "nan")


def test_features_are_kept_where_the_native_grid_is(fitted, quarter):
    assert fitted["temperature"](quarter).features is quarter.features
    with pytest.raises(dm.ModelError, match="leave the calibrator out"):
        dm.scores.gradient(fitted["selective"](quarter))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("temperatur", "Did you mean temperature"),
        ("temperature(x=1)", "takes seed, exact"),
        ("selective(others=no)", "no method 'no'"),
        ("selective(balance=1,balance=2)", "given twice"),
        ("selective((", "expected NAME"),
        ("histogram(bins=abc)", "histogram: bins: expected a whole number, got 'abc'"),
        ("histogram(bins=2.5)", "expected a whole number"),
        ("temperature(seed=1.5)", "expected a whole number"),
        ("temperature(seed=99999999999999999999)", "expected a whole number"),
        ("temperature(exact=maybe)", "expected true or false"),
        ("selective(balance=abc)", "expected a number"),
        ("selective(balance=inf)", "expected a number"),
        ("meta(miscoverage=x)", "expected a number"),
        ("dirichlet(offset=q)", "expected a number"),
        ("local(values=abc)", "expected a whole number"),
    ],
)
def test_misspelt_methods(text, says):
    with pytest.raises(dm.UsageError, match=says):
        parse_method(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("selective(temperature=-1)", "above 0"),
        ("selective(temperature=warm)", "likelihood, accuracy"),
        ("selective(balance=-1)", "at least 0"),
        ("selective(temperature=inf)", "finite number above 0"),
        ("selective(inputs=smell)", "expected one of"),
        ("histogram(bins=1)", "at least 2"),
        ("histogram(bins=99999999)", "at most"),
        ("local(values=0)", "at least 1"),
        ("meta(miscoverage=2)", r"in \(0, 1\)"),
        ("dirichlet(offset=-1)", "at least 0"),
    ],
)
def test_values_that_make_no_sense(text, says, lying):
    with pytest.raises(dm.UsageError, match=says):
        parse_method(text)(lying)


@pytest.mark.parametrize("value", ["inf", "nan", "warm", "-1"])
def test_nothing_is_trained_for_a_temperature_that_is_none(value):
    with pytest.raises(dm.UsageError, match="number"):
        parse_method(f"selective(temperature={value})")(None)


def test_a_seed_is_for_methods_that_take_one():
    assert parse_method("histogram", 7).keywords == {}
    assert parse_method("selective", 7).keywords == {"seed": 7}
    assert parse_method("selective(seed=3)", 7).keywords == {"seed": 3}


def test_whether_classes_stay_depends_on_the_others(fitted):
    judge = fitted["selective"].selector
    two = Temperature(temperature=2.0)
    vector = Vector(factors=torch.ones(CLASSES), offsets=torch.zeros(CLASSES))
    assert Selective(selector=judge, temperature=2.0, others=two).keeps_classes
    assert not Selective(selector=judge, temperature=2.0, others=vector).keeps_classes


def test_features_that_are_not_there_are_named():
    with pytest.raises(dm.ModelError, match="features"):
        Selective.fit(honest_pairs(2), inputs="features")
