"""A flow beside its network: how far it may go, and what is drawn of what it was."""

import math

import pytest
import torch
from test_negative_learning import batch_of, objective_of, start_of, touched
from tiny_flows import TINY, flow_of, recipe_of, tiny_flow

from doubtmap.training import NFlowJS, Settings
from doubtmap.training.flow import Flow
from doubtmap.training.flow_training import read_flow, write_flow
from doubtmap.training.negatives import FlowSamples, Mixture, Noise
from doubtmap.training.optimizing import ALONE, Processes, optimizer_of, set_rate
from doubtmap.training.trust import TrustRegion, frozen_copy

CONSTANT = Settings(schedule="constant", warmup=0.0)


def started():
    """A tiny flow that draws what lies near grey, as one that has learnt."""
    flow, random = tiny_flow(), torch.Generator().manual_seed(5)
    flow.start(0.5 + 0.05 * torch.randn(16, 3, 16, 16, generator=random))
    return flow


def held_objective(flow, width, processes=ALONE, past=None, **options):
    """An objective whose flow is held in a region, and draws from its past where there is one."""
    region = TrustRegion(flow, width, processes)
    samples = FlowSamples(flow, [] if past is None else past, region)
    return objective_of(samples, flow, region=region, past=past, **options)


def free_objective(flow, past=None, **options):
    """The same without a region."""
    samples = FlowSamples(flow, [] if past is None else past)
    return objective_of(samples, flow, past=past, **options)


def steps(objective, count, rate=1e-3, spoil=lambda step, objective: None):
    """Train some steps as the loop does; the loss of each."""
    optimizer, losses = optimizer_of(objective, CONSTANT, rate), []
    objective.stepped_by(optimizer)
    for step in range(count):
        torch.manual_seed(step)
        loss = torch.stack(list(objective(*batch_of()).values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        set_rate(optimizer, CONSTANT, rate, step, count)
        spoil(step, objective)
        objective.before_step()
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def moved(flow, amount, random):
    """The flow after a step in some direction."""
    for part in flow.parameters():
        part.add_(amount * torch.randn(part.shape, generator=random))


def weights_of(module):
    return {name: weights.clone() for name, weights in module.state_dict().items()}


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def bits_beyond(start, patches, latents):
    """How many bits the start needs for patches above those of its own, the largest."""
    bits = [
        start.bits(x, torch.Generator().manual_seed(1)) for x in (patches, start.drawn(latents))
    ]
    return (bits[0] - bits[1]).max().item()


@pytest.mark.parametrize("width", [0.1, 0.5])
@torch.no_grad()
def test_no_patch_beyond_is_drawn_whatever_its_size_and_whoever_draws_it(width):
    """Of the flow and of what it was, which move on at random, as no training would."""
    start, flow, random = started(), started(), torch.Generator().manual_seed(0)
    past, free, far = [], started(), {"held": [], "free": []}
    region = TrustRegion(flow, width)
    samples, content = FlowSamples(flow, past, region), torch.rand(3, 3, 8, 8)
    for turn in range(12):
        moved(flow, 0.02, random), moved(free, 0.02, random)
        if turn == 6:
            past.append(frozen_copy(flow))
        size = ((8, 8), (24, 16))[turn % 2]
        torch.manual_seed(turn)
        patches, _ = samples(content.new_empty(3, 3, *size), torch.ones(3, dtype=torch.bool))
        torch.manual_seed(turn)
        if past:
            torch.randint(2, (3,))
        latents = flow.noise(3, size)
        far["held"].append(bits_beyond(start, patches, latents))
        far["free"].append(bits_beyond(start, free.drawn(latents), latents))
    assert max(far["free"]) > 2 * width
    assert 0 < max(far["held"]) <= width and region.steps_back > 0


def test_a_flow_that_last_was_inside_for_another_size_goes_half_way_to_the_start():
    """Until what it draws of this size is inside, and no further."""
    start, flow = started(), started()
    flow.requires_grad_()
    moved(flow, 0.05, torch.Generator().manual_seed(0))
    far, latents = weights_of(flow), flow.noise(4, (16, 16), torch.Generator().manual_seed(0))
    with torch.no_grad():
        width = 0.4 * bits_beyond(start, flow.drawn(latents), latents)
    region = TrustRegion(start, width)
    region.last.load_state_dict(far)
    region.drawn(flow, latents)
    went = [
        ((flow.state_dict()[name] - begun).norm() / (far[name] - begun).norm()).item()
        for name, begun in start.state_dict().items()
    ]
    halvings = round(-math.log2(went[0]))
    assert 1 <= halvings <= 3 and went == pytest.approx([0.5**halvings] * len(went), rel=1e-4)
    assert same(weights_of(region.last), weights_of(flow))


def test_a_region_as_wide_as_the_flow_goes_changes_nothing():
    flows = [tiny_flow(), tiny_flow()]
    steps(free_objective(flows[0], past=[]), 3)
    steps(held_objective(flows[1], 1e6, past=[]), 3)
    assert same(*map(weights_of, flows))


def test_the_distance_is_in_bits_that_the_start_needs():
    """Of samples of the same latent values, the same noise on both."""
    start, other = tiny_flow(), flow_of(9, TINY, torch.float32, 0.3)
    region = TrustRegion(start, 1.0)
    assert region.distance(tiny_flow(), 32) == 0
    drawn = [f.sample(8, (32, 32), torch.Generator().manual_seed(0)) for f in (start, other)]
    bits = [start.bits(x, torch.Generator().manual_seed(1)).mean().item() for x in drawn]
    assert region.distance(other, 32) == pytest.approx(bits[1] - bits[0], rel=1e-4)


def test_with_a_step_taken_back_go_its_moments():
    """As if that step had not been: the flow ends where it ends without it, to the bit."""

    def far(step, objective):
        for group in objective.region.optimizer.param_groups if step == 2 else ():
            group["lr"] *= 1000

    def left_out(step, objective):
        if step == 2:
            objective.flow.zero_grad(set_to_none=True)

    found = []
    for spoil in (far, left_out):
        objective = held_objective(started(), 1.0, flow_rate=1e-3)
        objective.network.requires_grad_(False)
        steps(objective, 6, 1e-3, spoil)
        found.append((weights_of(objective.flow), int(objective.region.steps_back)))
    assert same(found[0][0], found[1][0])
    assert [back for _, back in found] == [1, 0]


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_no_step_of_the_flow(broken):
    """Network and later steps learn on; the optimiser's moments stay finite."""

    def spoil(step, objective):
        if step == 1:
            next(objective.flow.parameters()).grad.fill_(broken)

    objective = held_objective(started(), 1.0)
    network = weights_of(objective.network)
    assert all(map(math.isfinite, steps(objective, 4, 1e-3, spoil)))
    assert objective.region.steps_back == 1
    assert all(bool(part.isfinite().all()) for part in objective.parameters())
    assert not same(network, weights_of(objective.network))
    assert not same(weights_of(objective.flow), weights_of(objective.region.start))


@pytest.mark.parametrize("broken", [math.nan, math.inf, 1e30])
def test_a_flow_that_breaks_is_what_it_last_was(broken):
    flow = started().requires_grad_()
    region, latents = TrustRegion(flow, 1.0), flow.noise(2, (16, 16))
    with torch.no_grad():
        next(flow.parameters()).add_(1e-4)
    region.drawn(flow, latents)
    inside = weights_of(flow)
    with torch.no_grad():
        next(flow.parameters()).fill_(broken)
    assert region.drawn(flow, latents).isfinite().all()
    assert same(inside, weights_of(flow)) and region.steps_back == 1


class Beside(Processes):
    """A process among two, of which the other one's patches lie beyond the first time."""

    asked = 0

    def total(self, x):
        Beside.asked += 1
        return x + (Beside.asked == 1)


def test_what_another_process_draws_takes_the_step_back_here_too():
    flow = started().requires_grad_()
    region, before = TrustRegion(flow, 1e6, Beside(0, 2)), weights_of(flow)
    moved(flow, 1e-3, torch.Generator().manual_seed(0))
    region.drawn(flow, flow.noise(0, (8, 8)))
    assert same(before, weights_of(flow)) and region.steps_back == 1


def test_of_a_mixture_every_source_is_asked_by_every_process():
    """Processes agree about the flow, also where one of them pastes none of its patches."""
    asked, content = [], torch.rand(1, 3, 8, 8)

    def counted(content, clean):
        asked.append(len(content))
        return Noise()(content, clean)

    Mixture((counted, counted, counted))(content, torch.ones(1, dtype=torch.bool))
    assert sorted(asked) == [0, 0, 1]


def test_half_precision_beside_it_changes_no_patch():
    images, labels = batch_of()
    flows = [started(), started()]
    for flow, enabled in zip(flows, (False, True)):
        objective = held_objective(flow, 0.01)
        moved(flow, 0.03, torch.Generator().manual_seed(0))
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            objective(images, labels)
        assert objective.region.steps_back == 1
    assert same(*map(weights_of, flows))


def test_only_network_and_flow_learn():
    objective = held_objective(tiny_flow(), 1.0, past=[])
    objective.begin(1)
    learning = sum(map(len, objective.parts()))
    assert learning == sum(part.requires_grad for part in objective.parameters())


def constant(flow, value):
    """A flow whose samples all have one value, and the gradient of its first weight."""
    first = next(flow.parameters())
    flow.drawn = lambda latents: (
        value
        + 0 * first.sum()
        + torch.zeros(len(latents[0]), 3, *(2 * side for side in latents[0].shape[2:]))
    )
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
    objective = free_objective(flow, past, flow_rate=0.01)
    objective.begin(0)
    assert past == []
    objective.begin(1)
    before = weights_of(flow)
    steps(objective, 2)
    assert same(before, weights_of(past[0])) and not same(before, weights_of(flow))


def test_the_past_comes_back_from_a_checkpoint():
    """And the moments of the last flow inside, to which the next step is taken back."""

    def made():
        return held_objective(started(), 0.2, past=[], flow_rate=0.01)

    one, two = made(), made()
    for epoch in range(3):
        one.begin(epoch)
        steps(one, 2)
    two.load_state_dict(one.state_dict())
    assert len(two.past) == len(one.past) == len(two.source.past) == 2
    assert len(two.region.moments) == len(list(two.flow.parameters()))
    moments = zip(one.region.moments, two.region.moments)
    assert all(a.keys() and same(a, b) for a, b in moments)
    assert steps(two, 2) == steps(one, 2)


@pytest.mark.parametrize(
    ("options", "held"),
    [({}, True), ({"flow_trust": math.inf}, False), ({"freeze_flow": True}, False)],
)
def test_a_flow_is_held_unless_it_may_go_anywhere_or_nowhere(tmp_path, options, held):
    write_flow(tmp_path / "f.safetensors", tiny_flow())
    recipe = NFlowJS(flow=tmp_path / "f.safetensors", **options)
    objective = recipe(start_of(), None, ALONE)
    assert (objective.region is not None) == held == (objective.source.region is not None)
    assert (objective.past is None) == (not recipe.flow_replay or recipe.freeze_flow)


def test_the_file_of_the_flow_says_how_far_it_went(learn, tmp_path):
    recipe = recipe_of(flow_trust=0.2, flow_replay=True, flow_rate=0.05)
    learn(tmp_path / "n", recipe)
    inner = tmp_path / "n" / "training"
    flow, about = read_flow(inner / "flow-joint.safetensors")
    region = TrustRegion(read_flow(inner / "flow.safetensors")[0], 0.2)
    assert about["distance"] == pytest.approx(region.distance(flow, 8), abs=1e-5)
    assert about["steps_back"] > 0 and isinstance(flow, Flow)
