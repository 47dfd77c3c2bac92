"""That evaluate says where a network, or a threshold, has seen what it is tested on."""

import functools
import json

import pytest
from tiny_photographs import outlined

import doubtmap as dm
from doubtmap.calibration.calibrate import calibrate
from doubtmap.datasets import Corrupted, Pasted, fingerprints, open_outlines
from doubtmap.datasets.fingerprints import fingerprint_of
from doubtmap.datasets.pasting import Part
from doubtmap.decisions.sets import fit_sets
from doubtmap.decisions.threshold import check_threshold, choose_threshold
from doubtmap.engine.seen import learnt_as_unknown, note_of_negatives, who_has_seen
from doubtmap.errors import UsageError
from doubtmap.scoring import is_probability


@pytest.fixture
def taught(tmp_path):
    """What is written of a network that learnt some photographs as unknown."""

    def write(images, name="net"):
        inner = tmp_path / name / "training"
        inner.mkdir(parents=True)
        (inner / "settings.json").write_text(json.dumps({"negatives": {"images": images}}))
        return tmp_path / name

    return write


class Told:
    """A segmenter, as far as it tells of itself."""

    def __init__(self, **description):
        self.description = description


def test_photographs_that_were_negatives_are_told_where_their_objects_are_pasted(
    streets, taught, tmp_path
):
    things = outlined(tmp_path / "things")
    mark = fingerprint_of(tmp_path / "things" / "images" / "1.png")
    mixed = Pasted(streets, open_outlines(things))
    network = Told(source=str(taught([mark, "other"])))
    note = note_of_negatives(network, mixed)
    assert note.startswith("1 of the 1 photographs whose objects are pasted were negatives")
    assert note_of_negatives(network, Corrupted(mixed, "fog", 1)) == note
    assert note_of_negatives(network, streets) is None
    assert note_of_negatives(Told(source=str(taught(["other"], "b"))), mixed) is None
    assert note_of_negatives(Told(source="nowhere"), mixed) is None


def test_negatives_are_found_behind_every_name(taught):
    one, two = taught(["a"], "one"), taught(["b"], "two")
    made = Told(source=f"python:net.py:build@{one}")
    assert learnt_as_unknown(made) == ["a"]
    both = Told(members=[made.description, {"source": str(two)}], source=f"{one},{two}")
    assert learnt_as_unknown(both) == ["a", "b"]
    (two / "training" / "settings.json").write_text("[]")
    assert learnt_as_unknown(Told(source=str(two))) == []


def test_images_of_the_test_that_were_negatives_are_told(segmenter, streets, taught, monkeypatch):
    about = segmenter.description | {"source": str(taught(list(fingerprints(streets, [0, 2]))))}
    monkeypatch.setattr(type(segmenter), "description", about)
    notes = dm.evaluate(segmenter, streets, "entropy", replicates=20).figures["notes"]
    assert any("2 of 6 images" in n and "negatives in the network's training" in n for n in notes)


def test_thresholds_from_the_tested_images_are_told(segmenter, streets):
    results = dm.evaluate(segmenter, streets, "entropy", replicates=20, open_set=streets)
    notes = results.figures["notes"]
    assert any("6 of 6 images" in n and "the thresholds of the open set" in n for n in notes)


def test_a_claim_can_be_made_of_a_partial_itself():
    half = functools.partial(dm.scores.margin)
    half.probability_of_wrong = True
    assert is_probability(half)


def test_images_that_the_network_was_trained_on_are_told_or_refused(
    segmenter, streets, tmp_path, monkeypatch
):
    """By calibrators, thresholds, sets and watches alike: what they promise needs other images."""
    content = {"a": f"{fingerprints(streets, [1])[0]} labels", "b": "another labels"}
    (tmp_path / "training").mkdir()
    settings = json.dumps({"data": {"content": content}})
    (tmp_path / "training" / "settings.json").write_text(settings)
    assert not [*who_has_seen(streets, segmenter, {})]
    about = segmenter.description | {"source": str(tmp_path)}
    monkeypatch.setattr(type(segmenter), "description", about)
    (note,) = who_has_seen(streets, segmenter, {})
    assert note.startswith("The network was trained on 1 of 6 images of")
    figures = dm.evaluate(segmenter, streets, "entropy", replicates=20).figures
    assert note in figures["notes"]
    assert note in calibrate(segmenter, streets, "temperature", replicates=20).notes
    asked = {"of": "wrong", "by": "f1"}
    chosen = choose_threshold(segmenter, streets, "entropy", **asked)
    assert note in chosen.notes
    assert note in check_threshold(segmenter, streets, chosen)[1]
    with pytest.raises(UsageError, match="but the network was trained on 1 of 6 images"):
        choose_threshold(segmenter, streets, "entropy", of="wrong", by="risk")
    with pytest.raises(UsageError, match="but the network was trained on 1 of 6 images"):
        fit_sets(segmenter, streets, alpha=0.3)
    others = Part(streets, [0, 2, 3, 4, 5], "others")
    assert fit_sets(segmenter, others, alpha=0.3).notes is not None
