"""A student in training: its terms, its second head, what is frozen, and what images carry."""

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
from doubtmap.training import Settings
from doubtmap.training.batches import NONE, USUAL, generator, view
from doubtmap.training.dudes import MeanProbability, SecondHead, classifier_of
from doubtmap.training.networks import Start
from doubtmap.training.optimizing import optimizer_of, set_rate
from doubtmap.training.recipe import cross_entropy

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
