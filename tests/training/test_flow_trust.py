"""A flow beside its network: how far it may go, and what is drawn of what it was."""

import math

import pytest
import torch
from test_negative_learning import batch_of, objective_of, touched
from tiny_flows import TINY, flow_of, recipe_of, tiny_flow

from doubtmap.training import Settings
from doubtmap.training.flow import Flow
from doubtmap.training.flow_training import read_flow
from doubtmap.training.negative_learning import TrustRegion, frozen_copy
from doubtmap.training.negatives import FlowSamples
from doubtmap.training.optimizing import optimizer_of, set_rate

PATCHES = torch.full((4, 3, 8, 8), 0.5), torch.ones(4, 8, 8, dtype=torch.bool)
CONSTANT = Settings(schedule="constant", warmup=0.0)


def started():
    """A tiny flow that draws what lies near grey, as one that has learnt."""
    flow, random = tiny_flow(), torch.Generator().manual_seed(5)
    flow.start(0.5 + 0.05 * torch.randn(16, 3, 16, 16, generator=random))
    return flow


def steps(objective, count, rate=1e-3):
    """Train some steps; the loss of each."""
    optimizer, losses = optimizer_of(objective, CONSTANT, rate), []
    for step in range(count):
        torch.manual_seed(step)
        loss = torch.stack(list(objective(*batch_of()).values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        set_rate(optimizer, CONSTANT, rate, step, count)
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def moved(flow, amount, random):
    """The flow after a step in some direction."""
    for part in flow.parameters():
        part.add_(amount * torch.randn(part.shape, generator=random))


def moved_once():
    flow = started()
    moved(flow, 0.03, torch.Generator().manual_seed(0))
    return flow


@pytest.mark.parametrize(("width", "step"), [(0.1, 0.01), (1.0, 0.03)])
def test_no_negative_is_drawn_from_a_flow_beyond_its_region(width, step):
    """Wherever a step leads, negatives are drawn from a flow within."""
    flow, free, random = started(), started(), torch.Generator().manual_seed(0)
    objective, far = objective_of(flow=flow, trust=width, sides=(8, 8)), []
    measure = TrustRegion(started(), math.inf, 8)
    objective.source = lambda content, clean: (far.append(measure.distance(flow)), PATCHES)[1]
    for _ in range(10):
        moved(free, step, random)
        moved(flow, step, random)
        objective(*batch_of())
    assert measure.distance(free) > 2 * width
    assert 0 < max(far) <= width and 0 < objective.trusted.steps_back < 10


def test_a_region_as_wide_as_the_flow_goes_changes_nothing():
    flows = [tiny_flow(), tiny_flow()]
    for flow, width in zip(flows, (None, 1e6)):
        steps(objective_of(flow=flow, trust=width), 3)
    for name, weights in flows[0].state_dict().items():
        assert torch.equal(weights, flows[1].state_dict()[name])


def test_the_distance_is_in_bits_that_the_start_needs():
    """Of samples of the same latent values, the same noise on both."""
    start, other = tiny_flow(), flow_of(9, TINY, torch.float32, 0.3)
    region = TrustRegion(start, 1.0, 32)
    assert region.distance(tiny_flow()) == 0
    drawn = [f.sample(8, (32, 32), torch.Generator().manual_seed(0)) for f in (start, other)]
    bits = [start.bits(x, torch.Generator().manual_seed(1)).mean().item() for x in drawn]
    assert region.distance(other) == pytest.approx(bits[1] - bits[0], rel=1e-6)


@pytest.mark.parametrize("broken", [math.nan, math.inf, 1e30])
def test_a_flow_that_breaks_is_what_it_last_was(broken):
    flow = started()
    region = TrustRegion(flow, 1.0, 32)
    with torch.no_grad():
        next(flow.parameters()).add_(1e-4)
    region.hold(flow)
    inside = {name: weights.clone() for name, weights in flow.state_dict().items()}
    with torch.no_grad():
        next(flow.parameters()).fill_(broken)
    region.hold(flow)
    assert all(torch.equal(inside[name], now) for name, now in flow.state_dict().items())
    assert region.steps_back == 1


def test_a_flow_is_measured_on_the_largest_patches():
    objective = objective_of(flow=tiny_flow(), trust=1.0, sides=(8, 24))
    assert objective.trusted.size == (24, 24)


def test_half_precision_beside_it_changes_no_distance():
    flow = moved_once()
    region = TrustRegion(started(), 1.0, 32)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = region.distance(flow)
    assert rounded == region.distance(flow) > 0


def test_only_network_and_flow_learn():
    objective = objective_of(flow=tiny_flow(), trust=1.0, past=[])
    objective.begin(1)
    learning = sum(map(len, objective.parts()))
    assert learning == sum(part.requires_grad for part in objective.parameters())


def constant(flow, value):
    """A flow whose samples all have one value, and the gradient of its first weight."""
    first = next(flow.parameters())
    flow.sample = lambda count, size: value + 0 * first.sum() + torch.zeros(count, 3, *size)
    return flow


def test_replay_draws_evenly_and_teaches_the_newest_alone():
    flows = [constant(tiny_flow(), value) for value in (0.0, 1.0, 2.0)]
    for flow in flows[1:]:
        flow.requires_grad_(False)
    source, content = FlowSamples(flows[0], flows[1:]), torch.zeros(600, 3, 8, 8)
    torch.manual_seed(0)
    patches, mask = source(content, torch.ones(600, dtype=torch.bool))
    assert mask.all() and patches.shape == content.shape
    counts = patches[:, 0, 0, 0].round().long().bincount(minlength=3)
    assert (counts - 200).abs().max() < 45, "four standard deviations"
    flow = tiny_flow()
    source = FlowSamples(flow, [frozen_copy(flow)])
    source(content[:8], torch.ones(8, dtype=torch.bool))[0].sum().backward()
    assert touched(flow) and not touched(source.past[0])


def test_each_epoch_but_the_first_begins_with_a_copy_that_stays():
    past, flow = [], tiny_flow()
    objective = objective_of(FlowSamples(flow, past), flow, past=past, flow_rate=0.01)
    objective.begin(0)
    assert past == []
    objective.begin(1)
    before = {name: weights.clone() for name, weights in flow.state_dict().items()}
    steps(objective, 2)
    assert all(torch.equal(before[name], now) for name, now in past[0].state_dict().items())
    assert not all(torch.equal(before[name], now) for name, now in flow.state_dict().items())


def test_the_past_comes_back_from_a_checkpoint():
    def made():
        past, flow = [], tiny_flow()
        return objective_of(FlowSamples(flow, past), flow, past=past, trust=0.5)

    one, two = made(), made()
    for epoch in range(3):
        one.begin(epoch)
        steps(one, 2)
    two.load_state_dict(one.state_dict())
    assert len(two.past) == len(one.past) == len(two.source.past) == 2
    assert steps(two, 2) == steps(one, 2)


def test_the_file_of_the_flow_says_how_far_it_went(learn, tmp_path):
    recipe = recipe_of(flow_trust=0.2, flow_replay=True, flow_rate=0.05)
    learn(tmp_path / "n", recipe)
    inner = tmp_path / "n" / "training"
    flow, about = read_flow(inner / "flow-joint.safetensors")
    region = TrustRegion(read_flow(inner / "flow.safetensors")[0], 0.2, 8)
    assert about["distance"] == pytest.approx(region.distance(flow), abs=1e-5)
    assert about["distance"] <= 0.2 and about["steps_back"] > 0 and isinstance(flow, Flow)
