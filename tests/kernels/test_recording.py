"""Scores in graphs: what is traced, exported, compiled, mapped or fake is the score itself."""

import pytest
import torch
from torch._subclasses import FakeTensorMode

import doubtmap as dm

OF_LOGITS = ("max_softmax", "margin", "entropy", "max_logit", "energy", "divergence")


class Scored(torch.nn.Module):
    def __init__(self, name):
        super().__init__()
        self.score = getattr(dm.scores, name)

    def forward(self, logits):
        return self.score(logits)


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
