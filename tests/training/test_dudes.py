"""What a student learns, and by which loss: known answers, oracles and laws."""

import math
from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from doubtmap.datasets import VOID
from doubtmap.errors import ModelError, UsageError
from doubtmap.models.distilled import HEAD, Head, head_of, said_by
from doubtmap.models.members import MemberSums
from doubtmap.prediction import Prediction
from doubtmap.training import Settings
from doubtmap.training.augment import NONE, USUAL, view
from doubtmap.training.drawing import generator
from doubtmap.training.dudes import (
    MeanProbability,
    SecondHead,
    classifier_of,
    divergence,
    log_error,
)
from doubtmap.training.networks import Start
from doubtmap.training.objective import cross_entropy
from doubtmap.training.optimizing import optimizer_of, set_rate
from doubtmap.training.processes import Processes
from doubtmap.training.teachers import TARGETS, Teachers

NAMES = ("a", "b", "c")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.2, 0.3)


def tiny():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 3, 1),
    )


def start(network=None):
    return Start(network or tiny(), NAMES, MEAN, STD, "demo", trained=True)


def batch(seed=0, carried=0):
    numbers = torch.Generator().manual_seed(seed)
    labels = torch.randint(-2, 3, (2, 8, 10), generator=numbers)
    return torch.rand(2, 3 + carried, 8, 10, generator=numbers), labels


def refuse(_):
    raise AssertionError("the teachers were asked though the images carry their targets")


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
    assert divergence(logits, torch.zeros(1, 3, 4, 4), nowhere).item() == 0


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


@pytest.mark.parametrize("loss", [log_error, divergence])
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
    torch.testing.assert_close(divergence(logits, target, everywhere), exact)
    torch.testing.assert_close(divergence(logits, 7 * target, everywhere), exact)
    same = divergence(other, target, everywhere)
    assert same.item() == pytest.approx(0, abs=1e-6)


def test_the_terms_are_those_of_the_plain_loss_and_of_the_head():
    images, labels = batch(carried=1)
    network = tiny()
    student = SecondHead(start(network), refuse)
    student.eval()
    head = head_of(network)
    nn.init.normal_(head[-1].weight)
    with said_by(network) as said:
        logits = network((images[:, :3] - student.mean) / student.std)
    guess = F.interpolate(said[-1], (8, 10), mode="bilinear").sigmoid()
    error = (guess[:, 0].log1p() - images[:, 3].log1p()).square().mean().sqrt()
    terms = student(images, labels)
    torch.testing.assert_close(terms["cross_entropy"], cross_entropy(logits, labels))
    torch.testing.assert_close(terms["log_error"], error, rtol=1e-4, atol=1e-6)
    assert set(terms) == {"cross_entropy", "log_error"}


def test_a_new_head_says_five_percent_everywhere():
    images, labels = batch(carried=1)
    images[:, 3] = 0.05
    terms = SecondHead(start(), refuse)(images, labels)
    assert terms["log_error"].item() == pytest.approx(1e-4, rel=0.01)


def test_a_hidden_layer_is_heard_like_the_single_one():
    images, labels = batch(carried=1)
    network = tiny()
    student = SecondHead(start(network), refuse, hidden=5)
    head = head_of(network)
    assert [tuple(part.shape) for part in head.parameters()] == [
        (5, 8, 1, 1), (5,), (1, 5, 1, 1), (1,),
    ]  # fmt: skip
    images[:, 3] = 0.05
    assert student(images, labels)["log_error"].item() == pytest.approx(1e-4, rel=0.01)


def test_the_hidden_layer_hears_inner_layers_on_the_classifiers_grid():
    torch.manual_seed(2)
    z, fine, coarse = torch.rand(2, 4, 6, 8), torch.rand(2, 3, 12, 16), torch.rand(2, 5, 2, 3)
    head = Head("last", 4, 7, layers={"fine": 3, "coarse": 5})
    nn.init.normal_(head[-1].weight)
    first = head[0].weight[:, :, 0, 0], *(layer.weight[:, :, 0, 0] for layer in head[0].others)
    parts = [torch.einsum("hc,bcyx->bhyx", w, x) for w, x in zip(first, (z, fine, coarse))]
    heard = sum(F.interpolate(part, (6, 8), mode="bilinear") for part in parts)
    hidden = (heard + head[0].bias[:, None, None]).relu()
    exact = torch.einsum("hc,bcyx->bhyx", head[-1].weight[:, :, 0, 0], hidden) + head[-1].bias
    said = head.say(z, {"coarse": coarse, "fine": fine, "other": z})
    torch.testing.assert_close(said, exact)
    with pytest.raises(ModelError, match="to call fine before its classifier, but it did not"):
        head.say(z, {"coarse": coarse})


def test_inner_layers_are_heard_in_the_network_its_copy_and_by_the_gradient():
    images, labels = batch(carried=1)
    network = tiny()
    student = SecondHead(start(network), refuse, hidden=6, layers=("0", "2"))
    assert head_of(network).layers == {"0": 8, "2": 8}
    for copy in (network.eval(), student.deployed()):
        head = head_of(copy)
        nn.init.normal_(head[-1].weight)
        with said_by(copy) as said:
            copy(images[:, :3])
        assert head.kept == {}
        inner = copy[0](images[:, :3])
        z = copy[2](copy[1](inner))
        torch.testing.assert_close(said[0], head.say(z, {"0": inner, "2": z}))
    student(images, labels)["log_error"].backward()
    assert all(part.grad.abs().sum() > 0 for part in head_of(network)[0].others.parameters())


def test_an_inner_layer_is_heard_as_it_was_before_what_follows_wrote_over_it():
    images, _ = batch()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Conv2d(8, 3, 1))
    SecondHead(start(network), refuse, hidden=6, layers=("0",))
    head = head_of(network)
    nn.init.normal_(head[-1].weight)
    with said_by(network) as said:
        network(images)
    inner = network[0](images)
    assert inner.min() < 0
    torch.testing.assert_close(said[0], head.say(inner.relu(), {"0": inner}))


def test_both_losses_reach_the_network_and_the_head_only_its_own():
    images, labels = batch(carried=1)
    for term, reached in (("cross_entropy", False), ("log_error", True)):
        network = tiny()
        student = SecondHead(start(network), refuse)
        nn.init.normal_(head_of(network)[-1].weight)
        student(images, labels)[term].backward()
        assert network[0].weight.grad.abs().sum() > 0
        assert (head_of(network)[-1].weight.grad is not None) == reached


def test_a_frozen_network_stays_to_the_bit_and_its_head_learns():
    images, labels = batch(carried=1)
    network = tiny()
    student = SecondHead(start(network), refuse, frozen=True)
    student.train()
    before = {name: part.clone() for name, part in network.state_dict().items()}
    settings = Settings(epochs=1, warmup=0.0, schedule="constant")
    optimizer = optimizer_of(student, settings, 0.02)
    losses = []
    for step in range(40):
        set_rate(optimizer, settings, 0.02, step, 40)
        terms = student(images, labels)
        assert set(terms) == {"log_error"}
        optimizer.zero_grad()
        terms["log_error"].backward()
        optimizer.step()
        losses.append(terms["log_error"].item())
    assert losses[-1] < 0.8 * losses[0]
    after = network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"3.{HEAD}.0.weight", f"3.{HEAD}.0.bias"}


def test_the_head_learns_faster_than_the_network():
    student = SecondHead(start(), refuse)
    settings = Settings(warmup=0.0)
    optimizer = optimizer_of(student, settings, 1e-3)
    assert set_rate(optimizer, settings, 1e-3, 0, 10) == 1e-3
    rates = {}
    for group in optimizer.param_groups:
        for part in group["params"]:
            rates[id(part)] = group["lr"], group["weight_decay"]
    head = head_of(student.network)[-1]
    assert rates[id(head.weight)] == (pytest.approx(0.02), 0.01)
    assert rates[id(head.bias)] == (pytest.approx(0.02), 0.0)
    assert rates[id(student.network[0].weight)] == (1e-3, 0.01)
    assert len(rates) == len(list(student.parameters()))


def test_alone_the_head_learns_at_the_rate_that_is_asked_for():
    student = SecondHead(start(), refuse, frozen=True)
    assert student.rate_of(f"network.3.{HEAD}.0.weight", 0.3) == 0.3


def test_layers_of_the_network_that_have_the_heads_name_learn_like_the_network():
    inner = nn.Sequential(OrderedDict({HEAD: nn.Conv2d(3, 3, 1), "relu": nn.ReLU()}))
    student = SecondHead(start(nn.Sequential(inner, nn.Conv2d(3, 3, 1))), refuse)
    assert student.rate_of(f"network.0.{HEAD}.weight", 1e-3) == 1e-3
    assert student.rate_of(f"network.1.{HEAD}.0.weight", 1e-3) == 0.02


def test_what_the_user_froze_stays_frozen_in_joint_training():
    network = tiny()
    network[0].requires_grad_(False)
    SecondHead(start(network), refuse)
    assert [part.requires_grad for part in (network[0].weight, network[3].weight)] == [False, True]


def test_padding_has_no_target_and_void_has_none_where_it_is_masked():
    images, labels = batch(carried=1)
    images[:, 3, :, 5:] = math.nan
    free, masked = (
        SecondHead(start(), refuse, mask_void=mask).target(images, labels) for mask in (False, True)
    )
    inside = torch.zeros(2, 8, 10, dtype=torch.bool)
    inside[:, :, :5] = True
    assert torch.equal(free[1], inside) and torch.equal(masked[1], inside & (labels >= 0))
    assert torch.isfinite(free[0]).all()
    torch.testing.assert_close(free[0][:, 0][inside], images[:, 3][inside])
    for mask in (False, True):
        terms = SecondHead(start(), refuse, mask_void=mask)(images, labels)
        assert all(torch.isfinite(term) for term in terms.values())


def test_images_that_carry_nothing_are_shown_to_the_teachers():
    images, labels = batch()
    seen = []

    def teachers(x):
        seen.append(x)
        return torch.full((2, 1, 8, 10), 0.05)

    terms = SecondHead(start(), teachers)(images, labels)
    assert torch.equal(seen[0], images) and terms["log_error"].item() < 2e-4


def test_images_that_carry_nothing_are_refused_where_there_is_nobody_to_ask():
    with pytest.raises(UsageError, match="carry what the teachers said of them, got plain ones"):
        SecondHead(start(), None)(*batch())


def test_the_mean_is_learnt_without_a_second_head():
    images, labels = batch()
    network = tiny()
    student = MeanProbability(start(network), lambda _: torch.full((2, 3, 8, 10), 1 / 3))
    terms = student(images, labels)
    assert head_of(network) is None and set(terms) == {"cross_entropy", "divergence"}
    network[3].weight.data.zero_()
    network[3].bias.data.zero_()
    assert student(images, labels)["divergence"].item() == pytest.approx(0, abs=1e-5)


def test_a_copy_of_a_student_hears_its_own_head():
    images, _ = batch()
    student = SecondHead(start(), refuse)
    copy = student.deployed()
    assert head_of(copy) is not head_of(student.network)
    nn.init.constant_(head_of(copy)[-1].bias, 7.0)
    with said_by(copy) as own, said_by(student.network) as others:
        copy(images)
    assert len(own) == 1 and not others and (own[0] == 7).all()


def test_the_classifier_is_found_with_its_channels_and_corners():
    class Corners(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = tiny()

        def forward(self, x):
            return F.interpolate(self.inner(x), x.shape[-2:], mode="bilinear", align_corners=True)

    assert classifier_of(start()) == ("3", 8, False)
    assert classifier_of(start(Corners())) == ("inner.3", 8, True)
    with pytest.raises(ModelError, match=r"1x1 convolution as classifier.*--target mean"):
        classifier_of(start(nn.Conv2d(3, 3, 3, padding=1)))


@pytest.mark.parametrize("augmentation", [replace(USUAL, colour=0.0), NONE], ids=["usual", "none"])
def test_what_is_carried_goes_where_the_pixels_go(augmentation):
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    label = torch.zeros(20, 30, dtype=torch.int16)
    for seed in range(8):
        carried = image[:2].float() / 255
        seen, labels = view(
            image, label, (24, 26), augmentation, generator(seed), void=VOID, fill=(0.5, 0.5, 0.5),
            carried=carried,
        )  # fmt: skip
        assert seen.shape == (5, 24, 26)
        void = labels == VOID
        assert torch.equal(torch.isnan(seen[3:]), void.expand(2, -1, -1))
        torch.testing.assert_close(seen[3:][:, ~void], seen[:2][:, ~void])


def test_carrying_changes_neither_image_nor_label():
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    label = torch.randint(-2, 3, (20, 30), dtype=torch.int16)
    for seed in range(4):
        options = {"void": VOID, "fill": MEAN}
        alone = view(image, label, (16, 16), USUAL, generator(seed), **options)
        both = view(
            image, label, (16, 16), USUAL, generator(seed), **options, carried=torch.rand(1, 5, 8)
        )
        torch.testing.assert_close(both[0][:3], alone[0])
        assert torch.equal(both[1], alone[1]) and both[0].shape[0] == 4


def test_teachers_are_checked_before_anything_is_opened():
    with pytest.raises(UsageError, match="two or more networks, got 1"):
        Teachers(["demo"], "spread", NAMES)
    with pytest.raises(UsageError, match="the same weights twice, demo and demo"):
        Teachers(["demo", "demo"], "spread", NAMES)
