"""The default score in graphs that take images of any size."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from doubtmap.deploy.any_size import of_any_size
from doubtmap.deploy.export import Form, export
from doubtmap.errors import UsageError
from doubtmap.models import load
from doubtmap.prediction import Prediction
from doubtmap.scores import doubt, entropy, island
from doubtmap.scores.default import Doubt
from doubtmap.scores.diagonal import Diagonal
from doubtmap.scores.parsing import parse_scores
from doubtmap.scores.sums import Sum

SCORES = (
    doubt,
    island,
    functools.partial(island, cell=20, sides="geometric"),
    functools.partial(island, cell=1),
)


@settings(deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 90),
    stride=st.integers(1, 9),
    padding=st.integers(0, 20),
    seed=st.integers(0, 99),
)
def test_it_says_what_the_library_says_on_grids_of_any_size(rows, columns, stride, padding, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(2, 3, rows, columns, generator=generator)
    size = (rows * stride, columns * stride)
    prediction = Prediction(logits, size, covered=(size[0] + padding, size[1] + padding))
    for score in SCORES:
        torch.testing.assert_close(
            of_any_size(score)(prediction), score(prediction), rtol=2e-5, atol=1e-6
        )


@pytest.mark.parametrize("columns", [767, 768, 1100, 1279, 1281])
def test_grids_that_are_averaged_first(columns):
    logits = 4 * torch.randn(1, 3, 50, columns, generator=torch.Generator().manual_seed(1))
    prediction = Prediction(logits, (50, columns))
    for score in SCORES:
        torch.testing.assert_close(
            of_any_size(score)(prediction), score(prediction), rtol=2e-5, atol=1e-6
        )


def test_other_scores_are_themselves_and_sums_have_parts_of_any_size():
    assert of_any_size(entropy) is entropy
    one = torch.ones(2, dtype=torch.float64)
    total = Sum(("doubt", "entropy"), (doubt, entropy), 0 * one, one)
    prediction = Prediction(torch.randn(1, 3, 9, 17), (36, 68))
    torch.testing.assert_close(of_any_size(total)(prediction), total(prediction))
    assert of_any_size(total).scores[1] is entropy


class Full(nn.Module):
    """As many logits as pixels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.classifier = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        return 9 * self.classifier(x)


def test_a_file_of_any_size_holds_doubt_and_islands(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    network = load(Full(), mean=(0, 0, 0), std=(1, 1, 1))
    scores = parse_scores("doubt,island(cell=16)")
    export(network, scores, tmp_path / "net.onnx")
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"))
    for size in ((40, 1100), (300, 70)):  # the first is averaged to half of its columns
        images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(2))
        outputs = [each.name for each in session.get_outputs()]
        said = dict(zip(outputs, session.run(outputs, {"images": images.numpy()})))
        for name, score in scores.items():
            np.testing.assert_allclose(said[name], score(network(images)), rtol=1e-4)


def fitted_doubt():
    still = Diagonal(torch.ones(4) / 4, torch.zeros(4, 4), torch.ones(4, 4))
    return Doubt(still, "classifier", 0.0, 1.0)


@pytest.mark.parametrize(
    ("form", "scores", "told"),
    [
        ("pt2", {"doubt": doubt}, "Give --size HxW, take --format onnx, or leave doubt out"),
        ("onnx", {"doubt": fitted_doubt()}, "Give --size HxW, or leave doubt out"),
    ],
)
def test_what_takes_one_size_only_says_so(tmp_path, form, scores, told):
    network = load(Full(), mean=(0, 0, 0), std=(1, 1, 1))
    with pytest.raises(UsageError, match=told):
        export(network, scores, tmp_path / f"net.{form}", Form(format=form))


def test_opsets_that_there_are(tmp_path):
    onnx = pytest.importorskip("onnx")
    network = load(Full(), mean=(0, 0, 0), std=(1, 1, 1))
    for opset in (12, 20):
        export(network, {"doubt": doubt}, tmp_path / "net.onnx", Form(opset=opset))
        said = onnx.load(str(tmp_path / "net.onnx")).opset_import
        assert [each.version for each in said] == [opset]
    with pytest.raises(UsageError, match="--opset: expected 12 to 20, got 9"):
        Form(opset=9)
    with pytest.raises(UsageError, match="expected a format made of ONNX, got pt2"):
        Form(format="pt2", opset=17)
