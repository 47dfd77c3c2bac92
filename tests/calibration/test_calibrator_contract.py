"""What holds for every calibrator."""

import pytest
import torch
from safetensors.torch import save_file
from worlds import CLASSES, honest_pairs

import doubtmap as dm
from doubtmap.calibration import (
    METHODS,
    Dirichlet,
    Selective,
    Temperature,
    Vector,
    load_calibrator,
    parse_method,
    save_calibrator,
)
from doubtmap.calibration.calibrator import Origin
from doubtmap.prediction import Prediction


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
    for name in ("max_softmax", "margin", "entropy", "energy", "divergence"):
        assert torch.isfinite(getattr(dm.scores, name)(after)).all()


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


def test_broken_calibrators_are_refused(tmp_path, fitted):
    with pytest.raises(dm.DataError, match="found no file"):
        load_calibrator(tmp_path / "nowhere")
    save_file({"x": torch.zeros(1)}, tmp_path / "network")
    with pytest.raises(dm.DataError, match="expected a calibrator"):
        load_calibrator(tmp_path / "network")
    metadata = {"doubtmap_calibrator": "1", "calibrator": '{"kind": "system", "fields": {}}'}
    save_file({"x": torch.zeros(1)}, tmp_path / "kind", metadata)
    with pytest.raises(dm.DataError, match="expected a calibrator"):
        load_calibrator(tmp_path / "kind")
    cold = '{"kind": "temperature", "fields": {"temperature": 0.0}}'
    save_file({"x": torch.zeros(1)}, tmp_path / "cold", metadata | {"calibrator": cold})
    with pytest.raises(dm.DataError, match="above 0"):
        load_calibrator(tmp_path / "cold")
    save_file({"x": torch.full((1,), torch.nan)}, tmp_path / "nan", metadata)
    with pytest.raises(dm.DataError, match="not finite"):
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
        ("selective(inputs=smell)", "expected one of"),
        ("histogram(bins=1)", "at least 2"),
        ("meta(miscoverage=2)", r"in \(0, 1\)"),
        ("dirichlet(offset=-1)", "at least 0"),
    ],
)
def test_values_that_make_no_sense(text, says, lying):
    with pytest.raises(dm.UsageError, match=says):
        parse_method(text)(lying)


def test_features_that_are_not_there_are_named():
    with pytest.raises(dm.ModelError, match="features"):
        Selective.fit(honest_pairs(2), inputs="features")
