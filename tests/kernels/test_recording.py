"""Scores in graphs: what is traced, exported, compiled, mapped or fake is the score itself."""

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.library import opcheck

import doubtmap as dm
from doubtmap import kernels
from doubtmap.kernels import compiled

OF_LOGITS = ("max_softmax", "margin", "entropy", "max_logit", "energy", "divergence")


class Scored(torch.nn.Module):
    def __init__(self, name):
        super().__init__()
        self.score = getattr(dm.scores, name)

    def forward(self, logits):
        return self.score(logits)


@pytest.fixture(scope="module")
def telling():
    """PyTorch 2.8 says of all that it compiles that it is exported."""
    told = torch.compile(lambda x: x + torch.compiler.is_exporting(), backend="eager")
    if told(torch.zeros(1)):
        pytest.skip("this PyTorch does not tell compiling from exporting")


@pytest.fixture(params=OF_LOGITS)
def score(request):
    return Scored(request.param).eval()


def logits(seed, height=30, width=40, images=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, 9, height, width, generator=generator)


def same(graph, score, *inputs):
    for values in inputs:
        torch.testing.assert_close(graph(values), score(values), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_trace_computes_the_score_of_other_logits(score):
    """What C had written would be in no graph, and the trace return memory that nobody filled."""
    graph = torch.jit.trace(score, logits(0), check_trace=False)
    same(graph, score, logits(1), logits(2, 44, 52))


def test_an_exported_program_takes_other_sizes(score):
    height, width = (torch.export.Dim(name, min=2, max=4096) for name in ("height", "width"))
    shapes = ({2: height, 3: width},)
    program = torch.export.export(score, (logits(0),), dynamic_shapes=shapes)
    same(program.module(), score, logits(1), logits(2, 44, 52))


def test_compiled_code_computes_the_score(score):
    torch.compiler.reset()
    same(torch.compile(score, backend="eager"), score, logits(1))


def test_a_map_over_images_is_their_batch(score):
    images = logits(3, images=3)
    mapped = torch.vmap(lambda image: score(image[None])[0])(images)
    torch.testing.assert_close(mapped, score(images), rtol=1e-5, atol=1e-5)


def test_fake_tensors_have_the_shape_of_the_map(score):
    with FakeTensorMode():
        found = score(torch.randn(2, 9, 30, 40))
    assert found.shape == (2, 30, 40)
    assert found.dtype == torch.float32


def on_an_image(score, logits):
    """Doubled, so that there is more in the graph than the pass."""
    return 2 * score(dm.Prediction(logits, size=(60, 80)))


@pytest.mark.parametrize("name", ["entropy", "divergence"])
def test_compiled_code_keeps_the_pass_in_c_without_a_break(name, telling, monkeypatch):
    score = Scored(name)
    if kernels.available()["kernels"] != "compiled":
        pytest.skip("the compiled pass is not here")
    called, real = [], compiled.statistics
    monkeypatch.setattr(compiled, "statistics", lambda *a, **k: called.append(1) or real(*a, **k))
    torch.compiler.reset()
    graph = torch.compile(on_an_image, backend="aot_eager", fullgraph=True)
    for seed in (1, 2):
        given = logits(seed)
        assert torch.equal(graph(score, given), on_an_image(score, given))
    assert len(called) == 4
    given = logits(3).requires_grad_()  # C knows no gradients: PyTorch serves
    graph(score, given).sum().backward()
    assert len(called) == 4 and given.grad is not None


@pytest.mark.parametrize("covered", [[], [64.0, 80.0]])
def test_the_operators_are_what_pytorch_asks_of_operators(covered):
    ops, place = torch.ops.doubtmap, ([60, 80], covered, False)
    opcheck(ops.statistics, (logits(0), *place, 2.0))
    opcheck(ops.divergence, (logits(0), 2.0, *place))
    opcheck(ops.weight_norm, (logits(0), 0.5, "predicted", "exact", *place))
    opcheck(ops.feature_norm, (logits(0), 2.0, *place))


def test_compiled_norms_are_those_of_the_pass(telling):
    torch.compiler.reset()
    given = logits(0)
    for call in (
        lambda x: kernels.log_weight_norm(x, 0.5, "predicted", "exact", (60, 80)),
        lambda x: kernels.log_feature_norm(x, 2.0),
        lambda x: kernels.resized_divergence(x, 2.0, (60, 80)),
    ):
        found = torch.compile(call, backend="aot_eager", fullgraph=True)(given)
        assert torch.equal(found, call(given))
