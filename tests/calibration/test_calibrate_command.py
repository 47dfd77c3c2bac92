"""`doubtmap calibrate`, and its file on `score` and `evaluate`."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import doubtmap as dm
from doubtmap.calibration import (
    METHODS,
    Calibrated,
    Temperature,
    TemperatureMix,
    load_calibrator,
    save_calibrator,
)
from doubtmap.calibration.calibrate import CANDIDATES, calibrate
from doubtmap.datasets import Corrupted, fingerprints
from doubtmap.datasets.pasting import Part
from doubtmap.engine.run import Run
from doubtmap.engine.seen import note_of_overlap
from doubtmap.engine.settings import model_settings
from doubtmap.evaluation.asking import scores_asked
from doubtmap.files import Origin
from doubtmap.reports import read_map
from doubtmap.scoring import probe_logits
from doubtmap.streets.synthetic import SyntheticStreets

NETWORK = """
import torch
from torch import nn

def build():
    "Says bright or dark, {factor} times too sure."
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Identity())
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1) * {factor} / 3)
        network[0].bias.zero_()
    return network
"""


@pytest.fixture
def yard(tmp_path):
    """Random images whose labels follow the network's own probability at a factor of 1."""
    generator = np.random.default_rng(0)
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    for name in "abcdefgh":
        pixels = generator.integers(0, 256, (24, 32), np.uint8)
        image = np.repeat(pixels[..., None], 3, 2)
        normal = (pixels / 255 - 0.5) / 0.25
        bright = 1 / (1 + np.exp(-2 * normal))
        label = (generator.random(bright.shape) > bright).astype(np.uint8)
        Image.fromarray(image).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(label).save(tmp_path / "labels" / f"{name}.png")
    (tmp_path / "doubtmap.toml").write_text(
        'images = "images/{frame}.png"\nlabels = "labels/{frame}.png"\n'
        "[classes]\nbright = 0\ndark = 1\n"
    )
    return tmp_path


@pytest.fixture
def common(yard):
    """Arguments that open the network, three times too sure."""
    path = yard / "network.py"
    path.write_text(NETWORK.replace("{factor}", "3.0"))
    options = ("--classes", "bright,dark", "--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25")
    return f"python:{path}:build", f"folder:{yard}", *options


def test_a_temperature_is_fitted_written_and_used(run, common, yard):
    file, page = yard / "c.safetensors", yard / "page.html"
    fitting = ("--method", "temperature", "--out", file, "--report", page, "--replicates", "20")
    code, printed, error = run("calibrate", *common, *fitting)
    assert code == 0, error
    assert load_calibrator(file).temperature == pytest.approx(3, rel=0.1)
    assert "temperature" in printed and "ECE" in printed
    assert page.read_text().count("<svg") == 6  # before and after: all, and each of two classes
    out = yard / "out"
    asked = ("--scores", "entropy", "--replicates", "20", "--out", out)
    code, _, error = run("evaluate", *common, *asked, "--calibrator", file)
    assert code == 0, error
    assert "8 of 8 images" in error and "used to fit" in error and "other logits" not in error
    results = json.loads((out / "results.json").read_text())
    assert results["calibration"]["ece"] < 0.03
    assert results["model"]["calibrator"]["method"] == "temperature"
    _, _, error = run("evaluate", *common, *asked, "--calibrator", file, "--views", "mirror")
    assert "was fitted to other logits than this network's" in error
    run("evaluate", *common, *asked)
    assert json.loads((out / "results.json").read_text())["calibration"]["ece"] > 0.1


def test_scores_of_calibrated_predictions(run, common, yard):
    save_calibrator(Temperature(temperature=1e10), yard / "hot")
    network, _, *options = common
    asked = (network, yard / "images" / "a.png", *options, "--format", "npy", "--out", yard / "o")
    code, _, error = run("score", *asked, "--scores", "entropy", "--calibrator", yard / "hot")
    assert code == 0, error
    assert read_map(yard / "o" / "entropy" / "a.npy") == pytest.approx(np.log(2), abs=1e-6)
    with Image.open(yard / "o" / "classes" / "a.png") as classes:
        assert set(np.unique(classes)) == {0, 1}  # not class 0 everywhere


def test_auto_leaves_a_calibrated_network_alone(run, common, yard):
    (yard / "network.py").write_text(NETWORK.replace("{factor}", "1.0"))
    file = yard / "c.safetensors"
    asked = ("--out", file, "--candidates", "temperature,histogram", "--replicates", "20")
    code, _, error = run("calibrate", *common, *asked)
    assert code == 0, error
    assert "No method improves on the raw network" in error
    assert type(load_calibrator(file)).__name__ == "Identity"


def test_auto_calibrates_a_network_that_is_too_sure(run, common, yard):
    file = yard / "c.safetensors"
    asked = ("--out", file, "--candidates", "temperature,histogram,dirichlet", "--json")
    code, printed, error = run("calibrate", *common, *asked, "--replicates", "20")
    assert code == 0, error
    assert json.loads(printed)["identity"]["ece"] > 0.1
    assert isinstance(load_calibrator(file), Temperature)


def test_a_method_that_does_harm_is_warned_of(run, common, yard):
    (yard / "network.py").write_text(NETWORK.replace("{factor}", "1.0"))
    method = "selective(temperature=1e10,balance=20)"
    asked = ("--method", method, "--out", yard / "c", "--replicates", "50")
    code, _, error = run("calibrate", *common, *asked)
    assert code == 0, error
    assert "makes this network worse" in error


@pytest.mark.parametrize(
    ("extra", "code", "says"),
    [
        (("--method", "temprature"), 2, "Did you mean temperature"),
        (("--candidates", "nothing"), 2, "no method 'nothing'"),
        (("--by", "luck"), 2, "ece, brier or nll"),
        (("--calibrator", "CALIBRATOR"), 2, "Leave it out"),
        (("--method", "selective(inputs=features)", "--classifier", "1"), 2, "classifier"),
    ],
)
def test_misuse(run, common, yard, extra, code, says):
    save_calibrator(Temperature(temperature=2.0), yard / "old")
    extra = [str(yard / "old") if word == "CALIBRATOR" else word for word in extra]
    found, _, error = run("calibrate", *common, "--out", yard / "c", *extra)
    assert (found, says in error) == (code, True), error
    assert not (yard / "c").exists()


def test_calibrators_of_another_network_are_refused(run, common, yard):
    asked = ("evaluate", *common, "--scores", "entropy", "--out", yard / "o", "--calibrator")
    code, _, error = run(*asked, yard / "nowhere")
    assert code == 1 and "there is no such file" in error
    save_calibrator(Temperature(temperature=2.0, channels=5), yard / "five")
    code, _, error = run(*asked, yard / "five")
    assert code == 2 and "expected the 5 classes" in error
    origin = Origin(class_names=("up", "down"))
    save_calibrator(Temperature(temperature=2.0, channels=2, origin=origin), yard / "other")
    code, _, error = run(*asked, yard / "other")
    assert code == 2 and "up, down" in error


def test_a_run_goes_on_with_the_same_calibrator_only(common, yard):
    segmenter = dm.load("demo")
    streets = dm.open_dataset("synthetic:2")

    def stop(stage, done, total):
        if done:
            raise KeyboardInterrupt

    one, two = (Calibrated(segmenter, Temperature(temperature=2.0), name) for name in "ab")
    with pytest.raises(KeyboardInterrupt):
        dm.evaluate(one, streets, "entropy", out=yard / "run", progress=stop, replicates=20)
    with pytest.raises(dm.UsageError, match=r"--calibrator \(source\) differ"):
        dm.evaluate(two, streets, "entropy", out=yard / "run", resume=True, replicates=20)
    results = dm.evaluate(one, streets, "entropy", out=yard / "run", resume=True, replicates=20)
    assert results.figures["model"]["calibrator"]["source"] == "a"


def test_a_run_goes_on_with_the_same_parameters_only(tmp_path):
    demo = dm.load("demo")
    one, two = (
        model_settings(Calibrated(demo, Temperature(temperature=t), "c")) for t in (1.5, 9.0)
    )
    assert one != two


def test_the_seed_reaches_the_method():
    demo, streets = dm.load("demo"), SyntheticStreets(4, size=(64, 96))
    found = [
        calibrate(demo, streets, "selective", seed=seed, replicates=20).calibrator.temperature
        for seed in (0, 5)
    ]
    assert found[0] != found[1]


def overlap(fitted_on, tested_on, demo):
    origin = Origin("fit", fingerprints(fitted_on))
    note = note_of_overlap(Calibrated(demo, Temperature(temperature=2.0, origin=origin)), tested_on)
    return int(note.split()[0]) if note else 0


def test_images_are_known_again_in_other_sets(common):
    demo, yard = dm.load("demo"), dm.open_dataset(common[1])
    three, four = (SyntheticStreets(count, size=(64, 96)) for count in (3, 4))
    assert overlap(three, four, demo) == overlap(four, three, demo) == 3
    assert overlap(three, SyntheticStreets(4, seed=1, size=(64, 96)), demo) == 0
    assert overlap(yard, Corrupted(yard, "fog", 3), demo) == 8
    assert overlap(Corrupted(yard, "fog", 3), yard, demo) == 8


def test_evaluate_notes_images_that_were_fitted_on():
    demo, streets = dm.load("demo"), SyntheticStreets(2, size=(64, 96))
    origin = Origin("fit", fingerprints(streets))
    calibrated = Calibrated(demo, Temperature(temperature=2.0, origin=origin), "c.st")
    results = dm.evaluate(calibrated, streets, "entropy", replicates=20)
    assert any("2 of 2 images" in note and "c.st" in note for note in results.figures["notes"])


def test_all_scores_leave_out_what_calibrated_logits_cannot_give():
    demo, streets = dm.load("demo"), SyntheticStreets(1, size=(64, 96))

    def possible(calibrator):
        run = Run(Calibrated(demo, calibrator), streets, {}, (), None)
        return scores_asked(run, "all"), run.notes

    scores, notes = possible(TemperatureMix(temperature=2.0, weights=(0.5, 0.3, 0.2)))
    assert "energy" not in scores and "max_logit" in scores
    assert any(note.startswith("energy: left out, since the calibrator") for note in notes)
    scores, notes = possible(Temperature(temperature=2.0))
    assert "energy" in scores and not notes


class Listed:
    """Somebody's own data set, which calls its files what it likes."""

    name, component_sizes = "listed", None
    files = ("a.png", "b.png")

    def __init__(self):
        self.streets = SyntheticStreets(2, size=(64, 96))
        self.class_names = self.streets.class_names

    def __len__(self):
        return 2

    def sample_name(self, index):
        return self.files[index]

    def __getitem__(self, index):
        return self.streets[index]


def test_files_of_an_own_data_set_are_its_own_business():
    assert fingerprints(Listed()) == fingerprints(SyntheticStreets(2, size=(64, 96)))
    segmenter = dm.load("demo")
    found = calibrate(segmenter, Listed(), "temperature", replicates=20)
    assert len(found.calibrator.origin.images) == 2
    assert found.calibrator.origin.fingerprint == tuple(probe_logits(segmenter).tolist())


def test_a_place_that_cannot_be_written_is_refused_before_any_work(run, common, yard):
    (yard / "taken").mkdir()
    for option in ("--out", "--report"):
        code, _, error = run("calibrate", *common, option, yard / "taken")
        assert code == 1 and "is a folder" in error
    assert "predict to fit" not in error


def test_a_single_image_cannot_be_parted():
    with pytest.raises(dm.UsageError, match="at least 2 images"):
        calibrate(dm.load("demo"), dm.open_dataset("synthetic:1"))


def test_auto_compares_all_that_keep_labels():
    """But for Meta-Cal, which gives accuracy away by design, and what does nothing."""
    kept = {name for name, kind in METHODS.items() if "keeps_classes" not in vars(kind)}
    kept |= {"selective", "vector_kept", "dirichlet_kept"}
    assert set(CANDIDATES) == kept - {"identity", "meta"}
    assert [name for name in METHODS if name in CANDIDATES] == list(CANDIDATES)


def test_one_image_proves_nothing_and_is_told_so(fresh_segmenter):
    found = calibrate(fresh_segmenter(), dm.open_dataset("synthetic:2"), "temperature")
    assert "an improvement that one image cannot prove: so few have no interval" in found.notes[-1]
    assert not any("Without a labelled pixel" in note for note in found.notes)
    found = calibrate(
        fresh_segmenter(), dm.open_dataset("synthetic:2"), candidates=("temperature",)
    )
    assert found.method == "identity" and "none that one image can prove" in found.notes[-1]


def test_classes_without_a_labelled_pixel_are_named(fresh_segmenter):
    class Without(Part):
        """Streets whose poles and signs nobody labelled."""

        def __getitem__(self, index):
            sample = super().__getitem__(index)
            own = [self.class_names.index(name) for name in ("pole", "sign")]
            label = sample.label.masked_fill(torch.isin(sample.label, torch.tensor(own)), -2)
            return replace(sample, label=label)

    few = Without(dm.open_dataset("synthetic:2"), range(2), "few")
    (note,) = [n for n in calibrate(fresh_segmenter(), few, "temperature").notes if "Without" in n]
    assert note.startswith("Without a labelled pixel: pole, sign. What a calibrator")
