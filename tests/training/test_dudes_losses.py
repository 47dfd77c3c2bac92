"""What teachers say as a target, and how far a student is from it: known answers and oracles."""

import pytest
import torch
from torch.nn import functional as F

from doubtmap.models.ensemble import MemberSums
from doubtmap.prediction import Prediction
from doubtmap.training.dudes import distillation_loss, log_error
from doubtmap.training.optimizing import Processes
from doubtmap.training.teachers import TARGETS, Teachers


def asked(logits, kind, order=(0, 1, 2)):
    """The target of members with these logits `(M, C, H, W)`."""
    sums = MemberSums()
    for member in logits:
        sums.add(Prediction(member[None], size=tuple(member.shape[-2:])))
    teachers = object.__new__(Teachers)
    teachers.kind, teachers.order = kind, list(order)
    teachers.ensemble = type("Many", (), {"members": logits})
    return teachers.target(sums.prediction())


def test_the_spread_is_the_deviation_of_the_class_that_the_mean_predicts():
    logits = 3 * torch.randn(5, 3, 6, 7)
    probabilities = logits.double().softmax(1)
    chosen = probabilities.mean(0).argmax(0)
    exact = probabilities.std(0, correction=1).gather(0, chosen[None])
    torch.testing.assert_close(asked(logits, "spread")[0].double(), exact, rtol=1e-4, atol=1e-6)


def test_targets_lie_in_the_range_of_a_sigmoid_and_reach_its_ends():
    sure = torch.full((2, 3, 1, 2), -40.0)
    sure[0, 0, 0, 0] = sure[1, 1, 0, 0] = 40.0  # two members, sure of different classes
    sure[:, 2, 0, 1] = 40.0  # of the same one
    assert asked(sure, "mutual_information")[0, 0, 0].tolist() == pytest.approx([1, 0], abs=1e-6)
    even = torch.zeros(4, 3, 1, 1)
    assert asked(even, "entropy").item() == pytest.approx(1)
    assert asked(even, "spread").item() == pytest.approx(0, abs=1e-7)
    wild = 30 * torch.randn(7, 3, 16, 16)
    for kind in TARGETS:
        target = asked(wild, kind)
        assert target.min() >= 0 and target.max() <= 1


def test_the_mean_comes_in_the_order_of_the_students_classes():
    logits = torch.randn(3, 3, 2, 2)
    mean = logits.softmax(1).mean(0)[None]
    torch.testing.assert_close(asked(logits, "mean", order=(2, 0, 1)), mean[:, [2, 0, 1]])


def test_log_error_is_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    guess, target = torch.rand(2, 8, 10), torch.rand(2, 8, 10)
    counts = torch.rand(2, 8, 10) < 0.7
    exact = metrics.root_mean_squared_log_error(target[counts].numpy(), guess[counts].numpy())
    assert log_error(guess, target, counts).item() == pytest.approx(exact, rel=1e-4)


def test_log_error_has_a_gradient_at_zero_error_which_is_zero():
    target = torch.rand(1, 4, 4)
    guess = target.clone().requires_grad_()
    everywhere = torch.ones(1, 4, 4, dtype=torch.bool)
    loss = log_error(guess, target, everywhere)
    loss.backward()
    assert loss.item() == pytest.approx(1e-4) and (guess.grad == 0).all()


def test_log_error_is_differentiated_rightly():
    torch.manual_seed(0)
    guess = torch.rand(1, 2, 3, dtype=torch.float64, requires_grad=True)
    target = torch.rand(1, 2, 3, dtype=torch.float64)
    counts = torch.tensor([[[True, True, False], [True, False, True]]])
    assert torch.autograd.gradcheck(lambda x: log_error(x, target, counts), guess)
    log_error(guess, target, counts).backward()
    assert (guess.grad[~counts] == 0).all() and (guess.grad[counts] != 0).all()


def test_without_pixels_that_count_there_is_nothing_to_learn():
    guess, target = torch.rand(1, 4, 4, requires_grad=True), torch.rand(1, 4, 4)
    nowhere = torch.zeros(1, 4, 4, dtype=torch.bool)
    loss = log_error(guess, target, nowhere)
    loss.backward()
    assert loss.item() == pytest.approx(1e-4) and (guess.grad == 0).all()
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    assert distillation_loss(logits, torch.zeros(1, 3, 4, 4), nowhere).item() == 0


class Half(Processes):
    """One of two processes; what the other one's numbers add is given."""

    def __new__(cls, others):
        half = super().__new__(cls)
        object.__setattr__(half, "others", iter(others))
        return half

    def __init__(self, others):
        super().__init__(0, 2)

    def total(self, x):
        return x.detach() + next(self.others)


@pytest.mark.parametrize("loss", [log_error, distillation_loss])
def test_two_processes_have_the_loss_and_gradient_of_the_whole_batch(loss):
    torch.manual_seed(1)
    shape = (2, 4, 4) if loss is log_error else (2, 3, 4, 4)
    guess = torch.rand(shape, requires_grad=True)
    target = torch.rand(shape) if loss is log_error else torch.rand(shape).softmax(1)
    counts = torch.rand(2, 4, 4) < 0.6
    loss(guess, target, counts).backward()
    whole, total = guess.grad.clone(), loss(guess, target, counts).item()
    guess.grad, values = None, []
    for mine, other in ((0, 1), (1, 0)):
        amount = counts[other].sum()
        far = (torch.log1p(guess[other]) - torch.log1p(target[other])).detach() ** 2
        squares = far[counts[other]].sum() if loss is log_error else 0
        rest = [amount, squares]
        half = slice(mine, mine + 1)
        part = loss(guess[half], target[half], counts[half], Half(rest))
        (part / 2).backward()  # the mean over the processes, as they average gradients
        values.append(part.item())
    torch.testing.assert_close(guess.grad, whole)
    assert sum(values) / 2 == pytest.approx(total, rel=1e-5)


def test_divergence_is_pytorchs_and_zero_for_the_same_distribution():
    logits, other = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    everywhere = torch.ones(2, 4, 5, dtype=torch.bool)
    target = other.softmax(1)
    exact = F.kl_div(logits.log_softmax(1), target, reduction="none").sum(1).mean()
    torch.testing.assert_close(distillation_loss(logits, target, everywhere), exact)
    torch.testing.assert_close(distillation_loss(logits, 7 * target, everywhere), exact)
    same = distillation_loss(other, target, everywhere)
    assert same.item() == pytest.approx(0, abs=1e-6)
