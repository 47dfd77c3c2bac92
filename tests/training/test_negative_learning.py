"""What NFlowJS makes small: each term's pixels, and whom its gradient reaches."""

from dataclasses import replace

import pytest
import torch
from tiny_flows import tiny_flow
from torch import nn

import doubtmap as dm
from doubtmap.datasets import VOID
from doubtmap.training import NFlowJS, Settings, negative_learning
from doubtmap.training.flow import Flow
from doubtmap.training.flow_training import write_flow
from doubtmap.training.negative_learning import DIVERGENCES, FlowLearning, NegativeLearning
from doubtmap.training.negatives import FlowSamples, Noise, Shuffled
from doubtmap.training.networks import Start
from doubtmap.training.optimizing import ALONE, clip, optimizer_of
from doubtmap.training.recipe import CrossEntropy

LEARNING = ("flow_weight", "flow_rate", "frozen", "region", "past")


def start_of(classes=3):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, classes, 1))
    names = ("grass", "stone", "water")[:classes]
    return Start(network, names, (0.5,) * 3, (0.25,) * 3, "demo", trained=True)


def objective_of(source=None, flow=None, sides=(8, 16), **options):
    source = source or (FlowSamples(flow) if flow else Noise())
    learning = {name: options.pop(name) for name in LEARNING if name in options}
    options["learning"] = FlowLearning(**{n.removeprefix("flow_"): v for n, v in learning.items()})
    return NegativeLearning(start_of(), source, sides, flow=flow, **options)


def batch_of(void=False):
    torch.manual_seed(1)
    labels = torch.randint(3, (4, 24, 32))
    return torch.rand(4, 3, 24, 32), labels.fill_(VOID) if void else labels


def touched(module):
    """Whether any gradient of a module is not zero."""
    return any(part.grad is not None and bool(part.grad.any()) for part in module.parameters())


@pytest.mark.parametrize(
    ("term", "network", "flow"), [("divergence", True, True), ("bits", False, True)]
)
def test_every_term_teaches_whom_it_shall(term, network, flow):
    objective = objective_of(flow=tiny_flow())
    objective(*batch_of())[term].backward()
    assert touched(objective.network) == network and touched(objective.flow) == flow
    assert all(bool(p.grad.any()) for p in objective.flow.parameters())


def gradients_of(weight, flow_weight):
    """What the divergence teaches network and flow, one long row each."""
    objective = objective_of(flow=tiny_flow(), weight=weight, flow_weight=flow_weight)
    torch.manual_seed(4)
    objective(*batch_of())["divergence"].backward()
    return (
        torch.cat([part.grad.flatten() for part in module.parameters()])
        for module in (objective.network, objective.flow)
    )


def test_the_divergence_weighs_for_the_flow_what_it_is_asked_to():
    network, flow = gradients_of(weight=1.0, flow_weight=1.0)
    same, weaker = gradients_of(weight=1.0, flow_weight=0.03)
    torch.testing.assert_close(same, network)
    torch.testing.assert_close(weaker, 0.03 * flow)
    double, as_before = gradients_of(weight=2.0, flow_weight=1.0)
    torch.testing.assert_close(double, 2 * network)
    torch.testing.assert_close(as_before, flow)


def test_a_frozen_flow_is_left_alone():
    objective = objective_of(flow=tiny_flow(), frozen=True)
    terms = objective(*batch_of())
    assert list(terms) == ["cross_entropy", "divergence"]
    torch.stack(list(terms.values())).sum().backward()
    assert touched(objective.network) and not touched(objective.flow)


def seen_by(objective, images, labels, seed=3):
    """The terms of a batch and the image that the network saw."""
    seen = []
    handle = objective.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    torch.manual_seed(seed)
    terms = objective(images, labels)
    handle.remove()
    return terms, seen[0] * 0.25 + 0.5


def test_terms_are_those_of_their_pixels():
    """Pasted pixels are void for the cross entropy and the only ones of the divergence."""
    objective = objective_of(weight=0.5)
    images, labels = batch_of()
    labels[:, :2] = VOID
    terms, mixed = seen_by(objective, images, labels)
    pasted = ((mixed - images).abs() > 1e-5).any(1)
    assert all(side % 8 == 0 for side in (pasted[0].any(1).sum(), pasted[0].any(0).sum()))
    assert pasted[:, :2].sum() == 0, "where void can be avoided, it is"
    logits = objective.logits(mixed)
    known = labels.masked_fill(pasted, VOID)
    expected = nn.functional.cross_entropy(logits, known, ignore_index=VOID)
    torch.testing.assert_close(terms["cross_entropy"], expected)
    far = -dm.scores.divergence(logits, temperature=1.0)[pasted].mean()
    torch.testing.assert_close(terms["divergence"], 0.5 * far)


def test_the_likelihood_is_that_of_the_replaced_content(monkeypatch):
    given = []
    flow = tiny_flow()
    monkeypatch.setattr(flow, "bits", lambda x: given.append(x) or x.mean((1, 2, 3)))
    objective = objective_of(flow=flow)
    images, labels = batch_of()
    labels[0] = VOID
    terms, mixed = seen_by(objective, images, labels)
    pasted = ((mixed - images).abs() > 1e-6).any(1)
    content = given[0]
    assert not content.requires_grad
    for image, mask, part in list(zip(images, pasted, content))[1:]:
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        window = image[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert torch.equal(window, part)
    expected = content[1:].mean((1, 2, 3)).mean()
    torch.testing.assert_close(terms["bits"], expected, msg="content with void is left out")


def test_a_batch_of_void_costs_nothing_but_the_divergence():
    objective = objective_of(flow=tiny_flow())
    terms = objective(*batch_of(void=True))
    assert terms["cross_entropy"].item() == terms["bits"].item() == 0 < terms["divergence"].item()
    torch.stack(list(terms.values())).sum().backward()
    assert all(part.grad.isfinite().all() for part in objective.parameters())


def test_no_void_pixel_is_among_shuffled_negatives():
    """One image is void, one has void everywhere, in two there is none."""
    images, labels = batch_of()
    labels[0], labels[1, ::5, ::5] = VOID, VOID
    objective = objective_of(Shuffled(), sides=(16, 16))
    _, mixed = seen_by(objective, images, labels)
    pasted = ((mixed - images).abs() > 1e-5).any(1)
    assert not pasted[labels == VOID].any()
    assert pasted.any(2).any(1).tolist() == [False, False, True, True]


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("step", [1, 5], ids=["all void", "some void everywhere"])
def test_a_batch_in_which_nothing_is_pasted_has_no_divergence(divergence, step):
    images, labels = batch_of()
    labels[:, ::step, ::step] = VOID
    objective = objective_of(Shuffled(), divergence=divergence)
    terms = objective(images, labels)
    assert terms["divergence"].item() == 0
    torch.stack(list(terms.values())).sum().backward()
    assert all(part.grad.isfinite().all() for part in objective.parameters())
    assert touched(objective.network) == (terms["cross_entropy"].item() > 0) == (step == 5)


def fixed_places(labels, size):
    """Eight pixels from the left and four from the top, in every image."""
    window = labels[:, 4 : 4 + size[0], 8 : 8 + size[1]]
    corners = torch.tensor([4, 8]).expand(len(labels), 2)
    return corners, (window >= 0).flatten(1).all(1)


class Bright:
    """Pastes grey where the content is bright; nothing where there is void."""

    def __call__(self, content, clean):
        return torch.full_like(content, 0.5), (content[:, 0] > 0.5) & clean[:, None, None]


class OnePixel(Bright):
    """Pastes one pixel into content without void."""

    def __call__(self, content, clean):
        patches, shapes = super().__call__(content, clean)
        shapes[:] = False
        shapes[:, 3, 5] = clean
        return patches, shapes


class OneOfTwo:
    """One of two processes; `total` adds what the other one gave in the same place."""

    count = 2

    def __init__(self, others=()):
        self.others, self.given = list(others), []

    def total(self, x):
        self.given.append(x.detach())
        return x.detach() + (self.others.pop(0) if self.others else 0)


@pytest.mark.parametrize(
    ("source", "void"),
    [(Bright(), [0]), (Bright(), [0, 1]), (Bright(), [0, 1, 2]), (OnePixel(), [0, 1, 2])],
    ids=["uneven", "one without", "one patch in all", "one pixel in all"],
)
def test_the_mean_of_two_processes_is_that_of_the_whole_batch(monkeypatch, source, void):
    """Every term and its gradient, as `DistributedDataParallel` averages it."""
    monkeypatch.setattr(negative_learning, "drawn_size", lambda sides: (8, 16))
    monkeypatch.setattr(negative_learning, "patch_corners", fixed_places)
    monkeypatch.setattr(Flow, "bits", lambda flow, x: -flow.log_density(x))
    images, labels = batch_of()
    labels[void, 5:7, 9:20], labels[3, 20:] = VOID, VOID
    weights = torch.tensor([1.0, 2.0, 4.0])

    def asked(processes, part):
        flow = tiny_flow()
        objective = objective_of(source, flow, class_weights=weights, processes=processes)
        terms = objective(images[part], labels[part])
        torch.stack(list(terms.values())).sum().backward()
        return terms, [p.grad for p in objective.parameters()]

    halves, first = (slice(0, 2), slice(2, 4)), (OneOfTwo(), OneOfTwo())
    for process, half in zip(first, halves):
        asked(process, half)
    second = (OneOfTwo(process.given) for process in reversed(first))
    (one, slopes), (two, others) = (asked(*given) for given in zip(second, halves))
    whole, expected = asked(ALONE, slice(0, 4))
    assert list(whole) == ["cross_entropy", "divergence", "bits"]
    for name, term in whole.items():
        torch.testing.assert_close((one[name] + two[name]) / 2, term)
        assert term.item() > 0 or name == "bits"
    for slope, other, wanted in zip(slopes, others, expected):
        torch.testing.assert_close((slope + other) / 2, wanted, rtol=1e-4, atol=1e-5)


def test_the_optimiser_of_the_flow():
    """Its own rate and no weight decay."""
    objective = objective_of(flow=tiny_flow(), flow_rate=1e-4)
    optimizer = optimizer_of(objective, Settings(weight_decay=0.1), 1e-2)
    flow = {id(part) for part in objective.flow.parameters()}
    seen = set()
    for group in optimizer.param_groups:
        ids = {id(part) for part in group["params"]}
        assert ids <= flow or not ids & flow
        if ids <= flow:
            assert group["factor"] == pytest.approx(0.01) and group["weight_decay"] == 0
            seen |= ids
        else:
            assert group["factor"] == 1
    assert seen == flow


def test_parts_are_clipped_apart():
    objective = objective_of(flow=tiny_flow())
    parts = objective.parts()
    assert sum(map(len, parts)) == len(list(objective.parameters()))
    for part, size in zip(parts, (100.0, 0.001)):
        for parameter in part:
            parameter.grad = torch.full_like(parameter, size)
    before = [p.grad.clone() for p in parts[1]]
    length = clip(parts, 1.0)
    assert length.item() == pytest.approx(100 * sum(p.numel() for p in parts[0]) ** 0.5, rel=1e-4)
    joined = torch.cat([p.grad.flatten() for p in parts[0]])
    assert joined.norm().item() == pytest.approx(1, rel=1e-3)
    assert all(torch.equal(p.grad, old) for p, old in zip(parts[1], before))
    parts[1][0].grad.fill_(float("nan"))
    assert not clip(parts, 0).isfinite()


@pytest.mark.parametrize(
    ("maker", "frozen", "count"),
    [(lambda: None, False, 1), (tiny_flow, True, 1), (tiny_flow, False, 2)],
    ids=["no flow", "frozen", "learning"],
)
def test_parts_are_what_learns_and_none_is_empty(maker, frozen, count):
    objective = objective_of(flow=maker(), frozen=frozen)
    parts = objective.parts()
    assert len(parts) == count and all(parts)
    learning = {id(part) for part in objective.parameters() if part.requires_grad}
    assert {id(parameter) for part in parts for parameter in part} == learning
    torch.stack(list(objective(*batch_of()).values())).sum().backward()
    assert 0 < clip(objective.parts(), 1.0).item() < float("inf")


def test_what_is_deployed_is_the_plain_network():
    objective = objective_of(flow=tiny_flow())
    assert objective.deployed().state_dict().keys() == start_of().network.state_dict().keys()


@pytest.mark.parametrize(
    ("negatives", "changes", "told"),
    [
        ("noise", {"trained": False}, True),
        ("noise", {}, False),
        ("noise", {"trained": False, "maker": "python:net.py:build"}, False),
        ("none", {"trained": False}, False),
    ],
)
def test_a_network_that_does_not_know_its_task_is_told_of(negatives, changes, told):
    objective = NFlowJS(negatives)(replace(start_of(), **changes), None, ALONE)
    assert any("starts with random weights" in note for note in objective.notes) == told


def test_without_negatives_it_is_the_plain_recipe():
    assert type(NFlowJS("none")(start_of(), None, ALONE)) is CrossEntropy


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({}, ""),
        ({"bits": 4.25, "patches": 48}, "needs 4.250 bits per dimension on 48 held-out patches."),
        (
            {"bits": 4.25, "patches": 48, "judged_on_its_own": True},
            "needs 4.250 bits per dimension on the image that it learnt from.",
        ),
    ],
)
def test_what_the_file_of_a_flow_says_of_its_fit_is_told(tmp_path, about, words):
    write_flow(tmp_path / "f.safetensors", tiny_flow(), **about)
    notes = NFlowJS(flow=tmp_path / "f.safetensors")(start_of(), None, ALONE).notes
    assert " ".join(notes).endswith(words) and len(notes) == bool(words)


def test_the_file_of_a_flow_need_not_say_what_judged_it(tmp_path):
    """As `write_flow` leaves it to who writes."""
    write_flow(tmp_path / "f.safetensors", tiny_flow(), bits=4.25)
    assert NFlowJS(flow=tmp_path / "f.safetensors")(start_of(), None, ALONE).flow is not None
