"""Predictions to calibrate and the methods fitted to them, once for all tests."""

import pytest
import torch
from worlds import CLASSES, lying_pairs

from doubtmap.calibration import METHODS, parse_method
from doubtmap.prediction import Prediction

NAMES = [
    *METHODS,
    *("selective(temperature=1e10)", "selective(temperature=accuracy)"),
    "selective(temperature=2,others=temperature)",
]


@pytest.fixture(scope="session")
def lying():
    return lying_pairs(class_names=tuple("abcd"))


@pytest.fixture(scope="session")
def fitted(lying):
    return {name: parse_method(name)(lying) for name in NAMES}


@pytest.fixture(params=NAMES)
def calibrator(request, fitted):
    return fitted[request.param]


@pytest.fixture
def quarter():
    """A prediction at a quarter of the image's size, with classes of all kinds."""
    torch.manual_seed(3)
    logits = 3 * torch.randn(2, CLASSES, 6, 8)
    return Prediction(logits, (24, 32), features=torch.randn(2, 3, 6, 8))
