"""How things say themselves on a line and in notebooks, and the pictures that they show."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

import doubtmap as dm
from doubtmap.calibration import Temperature
from doubtmap.datasets.pasting import Part
from doubtmap.files import Origin
from doubtmap.prediction import Prediction
from doubtmap.reports.colours import class_colours
from doubtmap.scores import margin
from doubtmap.shown import Shown

HOSTILE = "<script>alert(1)</script>"


def predicted(names=("a", "b", "c")):
    torch.manual_seed(0)
    return Prediction(torch.randn(2, 3, 8, 12), (32, 48), class_names=names)


def test_a_prediction_is_one_line_without_its_tensors():
    said = repr(predicted())
    assert said == "Prediction(images 2, of 32 x 48, classes 3, on a grid of 8 x 12)"


def test_networks_and_data_sets_say_what_they_are(segmenter, streets):
    assert repr(segmenter).startswith("NetworkSegmenter(")
    assert "classes 8 (road, pavement" in repr(segmenter)
    assert repr(streets).startswith("SyntheticStreets(name synthetic:6, images 6, classes ")
    part = Part(streets, [0, 2], "two of them")
    assert repr(part).startswith("Part(name two of them, images 2, ")
    for thing in (segmenter, streets, part, predicted()):
        assert "\n" not in repr(thing)
        assert len(repr(thing)) < 300


def test_fitted_things_say_on_what():
    origin = Origin(data="camvid:val", images=("1", "2"), network={"source": "models/net"})
    fitted = Temperature(temperature=2.0, origin=origin)
    assert repr(fitted).startswith("Temperature(fitted on camvid:val, images 2, network net")
    assert "Temperature" in fitted._repr_html_()


def test_what_is_said_in_notebooks_is_escaped():
    class Named(Shown):
        def _facts(self):
            return {HOSTILE: HOSTILE}

    assert HOSTILE not in Named()._repr_html_()
    assert "&lt;script&gt;" in Named()._repr_html_()


def test_a_prediction_shows_its_classes_and_a_score(tmp_path):
    prediction = predicted(("road", "sky", HOSTILE))
    shown = prediction.show("entropy", torch.zeros(2, 3, 32, 48))
    assert [len(row) for row in shown.rows] == [3, 3]
    pixels = np.asarray(Image.open(io.BytesIO(shown.picture(1, 1))).convert("RGB"))
    colours = class_colours(3, prediction.class_names)
    assert (pixels == colours[prediction.classes[1].numpy()]).all()
    assert HOSTILE not in shown._repr_html_()
    shown.save(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().count("<img") == 6
    assert "margin" in prediction.show(margin).title


def test_what_cannot_be_shown_is_refused():
    with pytest.raises(dm.UsageError, match="one score"):
        predicted().show("entropy,margin")
    with pytest.raises(dm.UsageError, match="expected 2 images"):
        predicted().show("entropy", torch.zeros(1, 3, 32, 48))


def test_a_data_set_shows_samples(streets):
    shown = streets.show(2, first=3)
    assert repr(shown) == "Pictures(synthetic:6, 2 of 6 images, 4 pictures)"
    assert shown.rows[0][0][0] == streets.sample_name(3)
    picture = Image.open(io.BytesIO(shown.picture(0, 0)))
    assert picture.size == (96, 64)
    with pytest.raises(dm.UsageError, match="of the 6 images"):
        streets.show(1, first=6)
