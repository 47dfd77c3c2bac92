"""Passes over images by workers: what one process makes of them, in its order, to the last bit."""

import contextlib
import logging
import multiprocessing
import pickle
import random
import warnings

import numpy as np
import pytest
import torch
from echoing import Echo
from PIL import Image

import doubtmap as dm
from doubtmap.calibration.calibrate import calibrate
from doubtmap.decisions.threshold import choose_threshold
from doubtmap.engine import Pairs
from doubtmap.engine.places import Place
from doubtmap.engine.pool import FAR, WINDOW, _silent, by_workers
from doubtmap.engine.seen import images_seen
from doubtmap.engine.settings import model_settings
from doubtmap.engine.spread import Spread, looked_at
from doubtmap.files import Origin
from doubtmap.fitting import fit_score
from doubtmap.images import write_scores
from doubtmap.objects import ObjectRule
from doubtmap.objects.writing import write_objects
from doubtmap.scores.parsing import parse_scores
from doubtmap.segments.fitting import fit_segments
from doubtmap.segments.page import write_review
from doubtmap.streets.synthetic import SyntheticStreets
from doubtmap.windows import Windows


class InAnyOrder(Place):
    """Workers without processes: all is pickled on its way, and comes back in any order."""

    def look(self, work, numbers, done, ordered=False):
        look = pickle.loads(pickle.dumps(work)).open(0)
        found = list(look(iter(numbers), done))
        random.Random(3).shuffle(found)
        yield from found


@pytest.fixture
def both(segmenter):
    """A network that is sure, and the same whose passes are the workers'."""
    with torch.no_grad():
        segmenter.source.backend.module.classifier.weight *= 100
    return segmenter, Spread(segmenter, InAnyOrder(workers=2))


def streets(count=5):
    return SyntheticStreets(count, seed=2, size=(64, 96))


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for index in range(4):
        image = streets()[index].image.permute(1, 2, 0).numpy()
        Image.fromarray(np.asarray(image, np.uint8)).save(folder / f"{index}.png")
    return sorted(folder.iterdir())


def files_below(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in (".json", ".lock")
    }


def test_a_sent_prediction_is_the_same_without_what_was_computed_of_it(segmenter):
    prediction = segmenter(streets()[0].image[None])
    assert prediction.logits is prediction.logits
    again = pickle.loads(pickle.dumps(prediction))
    assert "logits" not in vars(again) and again.size == prediction.size
    assert torch.equal(again.native_logits, prediction.native_logits)
    assert torch.equal(again.features, prediction.features)
    assert torch.equal(again.classes, prediction.classes)


@pytest.mark.parametrize("name", ["density", "doubt", "sum", "wrong"])
def test_what_is_fitted_by_workers_is_what_one_process_fits(both, name, tmp_path):
    scores = {"sum": "entropy,margin", "wrong": "entropy,margin"}.get(name, "")
    one, other = (
        fit_score(name, network, streets(), scores=scores, out=tmp_path / f"{place}.safetensors")
        for place, network in enumerate(both)
    )
    assert one.digest == other.digest
    whole, parted = ((tmp_path / f"{place}.safetensors").read_bytes() for place in (0, 1))
    assert whole == parted


def test_thresholds_calibrators_and_meta_models_of_workers_are_those_of_one_process(both):
    asked = {"of": "wrong", "by": "risk", "level": 0.3}
    one, other = (choose_threshold(each, streets(), "entropy", **asked) for each in both)
    assert one == other
    one, other = (calibrate(each, streets(), "temperature", replicates=20) for each in both)
    assert one.comparison.figures("temperature") == other.comparison.figures("temperature")
    one, other = (
        fit_segments(each, streets(), kind="linear", compare=False).model for each in both
    )
    assert one.origin == other.origin


def test_maps_objects_and_reviews_of_workers_are_those_of_one_process(both, photographs, tmp_path):
    model = fit_segments(both[0], streets(), kind="linear", compare=False).model
    rule = ObjectRule(0.5, smallest=5)
    for place, network in enumerate(both):
        out = tmp_path / str(place)
        write_scores(network, photographs, parse_scores("entropy,energy"), out / "maps")
        write_objects(network, photographs, *parse_scores("entropy").items(), rule, out / "objects")
        write_review(network, photographs, model, out / "review")
    one, other = (files_below(tmp_path / str(place)) for place in (0, 1))
    assert len(one) > 20
    assert one == other


@pytest.mark.parametrize("bad", [0, 2])
def test_images_that_cannot_be_used_are_told_in_their_turn(both, photographs, tmp_path, bad):
    photographs[bad].write_bytes(b"no image")
    for place, network in enumerate(both):
        said = write_scores(
            network, photographs, parse_scores("entropy"), tmp_path / str(place), skip_bad=True
        )
        assert said.startswith("3 of 4 images scored, 1 could not be used, such as")
    one, other = (files_below(tmp_path / str(place)) for place in (0, 1))
    assert one == other
    with pytest.raises(dm.DataError, match=photographs[bad].name):
        write_scores(both[1], photographs, parse_scores("entropy"), tmp_path / "all")


def test_a_data_set_without_usable_images_ends_with_the_first_sentence(both):
    pairs = (list(Pairs(each, streets(), indices=[])) for each in both)
    assert [*pairs] == [[], []]


def test_windows_and_workers_hide_neither_content_nor_what_a_calibrator_saw(segmenter):
    class Seen(type(segmenter)):
        origin = Origin(images=("a", "b"))

    segmenter.__class__ = Seen
    wrapped = Spread(Windows(segmenter, 64, 32))
    assert images_seen(wrapped) == ("a", "b") == images_seen(wrapped.segmenter)
    plain, through = (model_settings(each)["model"] for each in (segmenter, wrapped))
    assert through.pop("windows") and plain.pop("windows") is None and plain == through
    assert any(value for key, value in through.items() if key not in ("source", "channels"))


def test_half_floats_are_sent_too(both):
    kinds = (torch.bfloat16, torch.float16, torch.float64, torch.int16, torch.bool)
    for kind in kinds:
        made = looked_at(both[1], range(3), float, Constant(kind))
        assert all(torch.equal(each, torch.ones(2, dtype=kind)) for each in made)


class Constant:
    """A tensor of one kind."""

    def __init__(self, kind):
        self.kind = kind

    def __call__(self, segmenter, item, read):
        return torch.ones(2, dtype=self.kind)


def test_workers_do_not_repeat_what_opening_the_network_tells(caplog, recwarn):
    log = logging.getLogger("doubtmap")
    with _silent():
        log.warning("assumed")
        warnings.warn("assumed", stacklevel=1)
        log.error("broken")
    log.warning("of an image")
    assert caplog.messages == ["broken", "of an image"] and not recwarn.list


def test_no_worker_is_far_ahead_of_the_image_that_is_waited_for(tmp_path):
    """Real processes, one of which dies: every image comes back once, none long before its turn."""
    marker = tmp_path / "killed"
    back, far = [], 0
    with contextlib.closing(
        by_workers(Echo(marker), range(80), 2, 0, 1, lambda _: None, True)
    ) as found:
        for (number,), data in found:
            assert int(data) == number
            back.append(number)
            far = max(far, number - next(n for n in range(81) if n not in back))
    assert sorted(back) == [*range(80)] and far <= 2 * FAR * WINDOW
    assert marker.exists() and not multiprocessing.active_children()
