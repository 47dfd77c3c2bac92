"""NFlowJS: where gradients go, what is trained with what, and the flow's own training."""

import copy
import csv

import pytest
import torch
from torch import nn

import doubtmap as dm
from doubtmap.datasets import VOID
from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.training import NFlowJS, Reporter, Settings, flow_fit, flow_patches, train
from doubtmap.training.batches import Batches
from doubtmap.training.flow import Flow, FlowShape
from doubtmap.training.flow_file import read_flow, write_flow
from doubtmap.training.flow_fit import FlowTraining, pretrain
from doubtmap.training.flow_patches import parts_of, patches
from doubtmap.training.labels import Targets
from doubtmap.training.negative_learning import NegativeLearning
from doubtmap.training.negatives import FlowSamples, Noise
from doubtmap.training.networks import Start
from doubtmap.training.objective import CrossEntropy
from doubtmap.training.optimizing import clip, optimizer_of
from doubtmap.training.processes import ALONE

TINY = FlowShape(3, 1, 4)
MUD = ("mud",)
QUICK = Settings(epochs=2, batch=4, rate=0.01, workers=1, seed=5)


def start_of(classes=3):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, classes, 1))
    names = ("grass", "stone", "water")[:classes]
    return Start(network, names, (0.5,) * 3, (0.25,) * 3, "demo", trained=True)


def objective_of(source=None, flow=None, **options):
    source = source or (FlowSamples(flow) if flow else Noise())
    return NegativeLearning(start_of(), source, (8, 16), flow=flow, **options)


def batch_of(void=False):
    torch.manual_seed(1)
    labels = torch.randint(3, (4, 24, 32))
    return torch.rand(4, 3, 24, 32), labels.fill_(VOID) if void else labels


def touched(module):
    """Whether any gradient of a module is not zero."""
    return any(part.grad is not None and bool(part.grad.any()) for part in module.parameters())


def flow_of():
    """Away from its start, at which the couplings' first layers have no gradient."""
    torch.manual_seed(2)
    flow = Flow(TINY)
    for part in flow.parameters():
        part.data.add_(0.05 * torch.randn_like(part))
    return flow


@pytest.mark.parametrize(
    ("term", "network", "flow"), [("divergence", True, True), ("bits", False, True)]
)
def test_every_term_teaches_whom_it_shall(term, network, flow):
    objective = objective_of(flow=flow_of())
    objective(*batch_of())[term].backward()
    assert touched(objective.network) == network and touched(objective.flow) == flow
    assert all(bool(p.grad.any()) for p in objective.flow.parameters())


def test_a_frozen_flow_is_left_alone():
    objective = objective_of(flow=flow_of(), frozen=True)
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
    flow = flow_of()
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
    objective = objective_of(flow=flow_of())
    terms = objective(*batch_of(void=True))
    assert terms["cross_entropy"].item() == terms["bits"].item() == 0 < terms["divergence"].item()
    torch.stack(list(terms.values())).sum().backward()
    assert all(part.grad.isfinite().all() for part in objective.parameters())


def test_the_optimiser_of_the_flow():
    """Its own rate and no weight decay."""
    objective = objective_of(flow=flow_of(), flow_rate=1e-4)
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
    objective = objective_of(flow=flow_of())
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


def test_what_is_deployed_is_the_plain_network():
    objective = objective_of(flow=flow_of())
    assert objective.deployed().state_dict().keys() == start_of().network.state_dict().keys()


def test_without_negatives_it_is_the_plain_recipe():
    assert type(NFlowJS("none")(start_of(), None, ALONE)) is CrossEntropy


@pytest.fixture
def batches(training_set):
    targets = Targets.of(training_set, ("grass", "stone", "water"))
    return Batches(training_set, targets, 4, (24, 32), seed=1, workers=1)


HOW = FlowTraining(steps=6, batch=16, side=8, shape=TINY)


def test_no_patch_has_a_void_pixel(batches):
    """Mud is held out; its colour never is in a patch."""
    learnt = parts_of(batches)[1]
    found = torch.cat([patch for _, patch in patches(learnt, 8, 16, 0, 0, 10)])
    grass, water = torch.tensor([40, 160, 60]) / 255, torch.tensor([40, 80, 200]) / 255
    assert len(found) > 20 and found.shape[1:] == (3, 8, 8)
    stripe = found.mean((2, 3))
    mud = torch.tensor([120, 80, 40]) / 255
    stone = torch.tensor([130, 130, 130]) / 255
    distance = torch.stack([(stripe - c).norm(dim=1) for c in (grass, water, stone, mud)])
    assert (distance.argmin(0) < 3).all()


def test_images_that_judge_a_flow_are_none_that_it_learns_from(batches):
    judged, learnt = (set(part.dataset.indices) for part in parts_of(batches))
    assert judged and not judged & learnt and judged | learnt == set(range(len(batches.dataset)))


def log_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_flow_learns_and_its_file_and_log_say_how_well(batches, tmp_path, monkeypatch):
    monkeypatch.setattr(flow_fit, "TOLD_EVERY", 20)
    path = tmp_path / "flow.safetensors"
    pretrain(batches, FlowTraining(60, 16, 8, 1e-2, 0, TINY), path, device=torch.device("cpu"))
    rows = log_of(tmp_path / "flow.csv")
    bits = [float(row["held_out_bits"]) for row in rows]
    assert [row["step"] for row in rows] == ["20", "40", "60"] and bits[-1] < bits[0] < 8
    flow, about = read_flow(path)
    assert about["bits"] == pytest.approx(bits[-1]) and not path.with_suffix(".pt").exists()
    assert about["data"] == "stripes:train"
    noise = flow.bits(torch.rand(16, 3, 8, 8)).mean().item()
    assert noise > bits[-1] + 1, "what it never saw needs more bits"


def test_a_flow_that_was_stopped_goes_on_to_the_same_end(batches, tmp_path, monkeypatch):
    monkeypatch.setattr(flow_fit, "TOLD_EVERY", 2)

    def stop(done, steps, bits):
        if done == 5:
            raise KeyboardInterrupt

    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    with pytest.raises(KeyboardInterrupt):
        pretrain(batches, HOW, one, device=torch.device("cpu"), told=stop)
    assert one.with_suffix(".pt").exists() and not one.exists()
    told = []
    for path in (one, two):
        pretrain(batches, HOW, path, device=torch.device("cpu"), told=lambda *x: told.append(x[0]))
    assert told == [5, 6, 1, 2, 3, 4, 5, 6]
    assert one.read_bytes() == two.read_bytes()
    assert log_of(one.with_suffix(".csv")) == log_of(two.with_suffix(".csv"))
    pretrain(batches, HOW, one, device=torch.device("cpu"), told=pytest.fail)


def test_a_damaged_checkpoint_of_a_flow_is_said(batches, tmp_path):
    (tmp_path / "flow.pt").write_text("no")
    with pytest.raises(DataError, match="Remove it to train the flow anew"):
        pretrain(batches, HOW, tmp_path / "flow.safetensors", device=torch.device("cpu"))


def test_a_flow_that_diverges_stops_with_the_last_good_checkpoint(batches, tmp_path, monkeypatch):
    monkeypatch.setattr(flow_fit, "TOLD_EVERY", 2)
    whole, steps = Flow.bits, []

    def bits(flow, images, generator=None):
        steps.append(flow.training)
        return whole(flow, images, generator) * (float("nan") if len(steps) > 4 else 1.0)

    monkeypatch.setattr(Flow, "bits", bits)
    with pytest.raises(ModelError, match=r"finite likelihood, got nan .* in step 4; the last good"):
        pretrain(batches, HOW, tmp_path / "flow.safetensors", device=torch.device("cpu"))
    state = torch.load(tmp_path / "flow.pt", weights_only=True)
    assert state["rows"][-1]["step"] == 2
    assert all(part.isfinite().all() for part in state["flow"].values())


def test_data_without_a_patch_of_known_content_are_refused(batches, monkeypatch, tmp_path):
    monkeypatch.setattr(flow_patches, "PATIENCE", 3)
    monkeypatch.setattr(Targets, "__call__", lambda self, sample: torch.full((24, 32), VOID))
    with pytest.raises(DataError, match="8x8 pixels without void, found none in 12 views"):
        pretrain(batches, HOW, tmp_path / "flow.safetensors", device=torch.device("cpu"))


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def recipe_of(**options):
    return NFlowJS(**({"flow_steps": 4, "patch": (8, 8)} | options))


def test_a_training_writes_the_network_the_flow_and_every_loss(training_set, network, tmp_path):
    options = {"model": network, "hold_out": MUD, "settings": QUICK}
    trained = train(training_set, tmp_path / "n", recipe=recipe_of(), **options)
    plain = train(training_set, tmp_path / "p", recipe=recipe_of(negatives="none"), **options)
    assert weights(tmp_path / "n").keys() == weights(tmp_path / "p").keys()
    inner = tmp_path / "n" / "training"
    rows = log_of(inner / "log.csv")
    assert {"cross_entropy", "divergence", "bits", "loss"} <= rows[0].keys()
    for row in rows:
        terms = sum(float(row[name]) for name in ("cross_entropy", "divergence", "bits"))
        assert float(row["loss"]) == pytest.approx(terms)
    before, after = (read_flow(inner / f"{name}.safetensors")[0] for name in ("flow", "flow-joint"))
    assert not same(before.state_dict(), after.state_dict())
    assert "bits per dimension on held-out patches" in trained.notes[0] and plain.notes == ()
    prediction = dm.load(trained.model)(training_set[0].image[None])
    assert prediction.native_logits.shape[1] == 3


@pytest.mark.parametrize("negatives", ["flow", "flow,noise"])
def test_resumed_it_ends_as_if_it_had_not_been_stopped(training_set, network, tmp_path, negatives):
    class Stop(Exception):
        pass

    def stop(row):
        if row["epoch"] == 1:
            raise Stop

    options = {"model": network, "hold_out": MUD, "settings": QUICK}
    options |= {"recipe": recipe_of(negatives=negatives)}
    with pytest.raises(Stop):
        train(training_set, tmp_path / "a", **options, report=Reporter(epoch=stop))
    train(training_set, tmp_path / "a", **options, resume=True)
    train(training_set, tmp_path / "b", **options)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    joint = (tmp_path / name / "training" / "flow-joint.safetensors" for name in "ab")
    assert len({path.read_bytes() for path in joint}) == 1
    other = options | {"recipe": recipe_of(negatives=negatives, weight=0.1)}
    with pytest.raises(UsageError, match=r"recipe .* became"):
        train(training_set, tmp_path / "a", **other, resume=True)


def test_a_flow_that_another_run_left_is_not_taken(training_set, network, tmp_path):
    """A run that was killed in its flow's training, and another one anew in its folder."""
    options = {"model": network, "hold_out": MUD, "settings": QUICK}

    def stop(done, steps, bits):
        raise KeyboardInterrupt

    recipe = recipe_of(flow_steps=5)
    with pytest.raises(KeyboardInterrupt):
        train(training_set, tmp_path / "a", recipe=recipe, **options, report=Reporter(flow=stop))
    write_flow(tmp_path / "a" / "training" / "flow.safetensors", flow_of(), bits=1.0)
    first = train(training_set, tmp_path / "a", recipe=recipe_of(), **options)
    second = train(training_set, tmp_path / "b", recipe=recipe_of(), **options)
    assert "1.000 bits" not in first.notes[0]
    assert same(weights(first.folders[0]), weights(second.folders[0]))


def test_a_network_learns_to_doubt_what_was_pasted(training_set, network, tmp_path):
    """Noise as negative: afterwards its divergence is far above that of known content."""
    settings = Settings(epochs=20, batch=4, rate=0.01, workers=1, augment=False)
    doubts = {}
    for negatives in ("none", "noise"):
        recipe = recipe_of(negatives=negatives, weight=1.0)
        options = {"model": network, "hold_out": MUD, "settings": settings, "recipe": recipe}
        trained = train(training_set, tmp_path / negatives, **options)
        segmenter = dm.load(trained.model)
        noise = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
        known = training_set[0].image[None]
        doubts[negatives] = [
            dm.scores.divergence(segmenter(x)).mean().item() for x in (noise, known)
        ]
    before, after = (noise / known for noise, known in doubts.values())
    assert after < 0.3 and after < 0.6 * before


def test_a_given_flow_is_taken_and_a_frozen_one_not_written(training_set, network, tmp_path):
    write_flow(tmp_path / "f.safetensors", copy.deepcopy(flow_of()), bits=4.25)
    recipe = recipe_of(flow=tmp_path / "f.safetensors", freeze_flow=True)
    options = {"model": network, "hold_out": MUD, "settings": QUICK}
    trained = train(training_set, tmp_path / "n", recipe=recipe, **options)
    assert "needs 4.250 bits per dimension" in trained.notes[0]
    assert not list((tmp_path / "n" / "training").glob("flow*"))


def test_a_loss_that_is_not_finite_stops_it(training_set, network, tmp_path):
    wild = network.replace("build", "wild")
    options = {"model": wild, "hold_out": MUD, "settings": QUICK}
    with pytest.raises(ModelError, match="finite loss, got nan in epoch 1"):
        train(training_set, tmp_path / "n", recipe=recipe_of(negatives="noise"), **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"divergence": "js"}, "one of jsd, kl, reverse-kl, got js"),
        ({"weight": 0.0}, "--divergence-weight: expected a finite number above 0, got 0"),
        ({"flow_rate": float("inf")}, "--flow-rate: expected a finite number above 0, got inf"),
        ({"flow_steps": 0}, "--flow-steps: expected at least 1, got 0"),
        ({"negatives": "noise", "freeze_flow": True}, "expected negatives of a flow, got noise"),
        ({"negatives": "none", "flow": "f"}, "expected negatives of a flow, got none"),
        ({"patch": (12, 16)}, "both multiples of 8 such as 16-80, got 12-16"),
        ({"patch": (24, 16)}, "both multiples of 8 such as 16-80, got 24-16"),
        ({"patch": (0, 16)}, "both multiples of 8"),
        ({"negatives": "gan"}, "expected some of flow, real:FOLDER, noise"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        NFlowJS(**options)


def test_a_flow_cannot_learn_with_plain_gradient_descent(training_set, network, tmp_path):
    settings = Settings(**(vars(QUICK) | {"optimizer": "sgd"}))
    options = {"model": network, "hold_out": MUD, "settings": settings}
    with pytest.raises(UsageError, match="expected adamw, with which a flow learns, got sgd"):
        train(training_set, tmp_path / "n", recipe=recipe_of(), **options)
