import pytest
import torch
from torch import nn
from torch.nn import functional as F

from doubtmap.datasets import UNKNOWN, VOID
from doubtmap.errors import ModelError
from doubtmap.training import Objective, Plain, Spectral
from doubtmap.training.labels import weights_of
from doubtmap.training.networks import Start
from doubtmap.training.optimizing import ALONE
from doubtmap.training.recipe import cross_entropy
from doubtmap.training.spectral import norms

NAMES = ("a", "b", "c")
PLAIN = Plain()
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.2, 0.3)


def objective(network, recipe=PLAIN):
    return recipe(Start(network, NAMES, MEAN, STD, "demo", trained=False), None, ALONE)


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-3, 3, (2, 8, 10), generator=generator)
    return torch.rand(2, 3, 8, 10, generator=generator), labels


def test_cross_entropy_is_pytorchs_mean_without_void():
    _, labels = batch()
    logits = 3 * torch.randn(2, 3, 8, 10)
    ignored = labels.clamp(min=-1)
    exact = F.cross_entropy(logits, ignored, ignore_index=-1)
    torch.testing.assert_close(cross_entropy(logits, labels), exact)
    weights = torch.tensor([0.5, 1.0, 4.0])
    exact = F.cross_entropy(logits, ignored, weights, ignore_index=-1)
    torch.testing.assert_close(cross_entropy(logits, labels, weights), exact)


def test_void_pixels_have_no_gradient_and_a_batch_of_void_costs_nothing():
    _, labels = batch()
    logits = torch.randn(2, 3, 8, 10, requires_grad=True)
    cross_entropy(logits, labels).backward()
    void = (labels < 0)[:, None].expand_as(logits)
    assert (logits.grad[void] == 0).all() and (logits.grad[~void] != 0).all()
    logits.grad = None
    loss = cross_entropy(logits, torch.full_like(labels, VOID), torch.ones(3))
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()
    assert cross_entropy(logits, torch.full_like(labels, UNKNOWN)).item() == 0


def test_logits_are_brought_to_the_labels():
    _, labels = batch()
    small = torch.randn(2, 3, 4, 5)
    full = F.interpolate(small, (8, 10), mode="bilinear")
    torch.testing.assert_close(cross_entropy(small, labels), cross_entropy(full, labels))


def test_half_precision_logits_are_counted_in_full():
    _, labels = batch()
    logits = torch.randn(2, 3, 8, 10).bfloat16()
    loss = cross_entropy(logits, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, cross_entropy(logits.float(), labels))


@pytest.mark.parametrize("exponent", [0.0, 0.25, 0.5, 1.0])
def test_class_weights_have_a_mean_of_one_over_the_pixels(exponent):
    counts = torch.tensor([900, 90, 10])
    weights = weights_of(counts, exponent).double()
    share = counts / counts.sum()
    assert (weights * share).sum().item() == pytest.approx(1)
    assert (weights[2] / weights[0]).item() == pytest.approx(90**exponent)
    with_none = weights_of(torch.tensor([900, 90, 10, 0]), exponent).double()
    torch.testing.assert_close(with_none[:3], weights)
    assert (with_none[3] / weights[0]).item() == pytest.approx(900**exponent)


def test_plain_normalises_and_is_the_cross_entropy_of_its_network():
    images, labels = batch()
    network = nn.Conv2d(3, 3, 1)
    terms = objective(network)(images, labels)
    normal = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(terms["cross_entropy"], cross_entropy(network(normal), labels))
    assert set(terms) == {"cross_entropy"}


def test_what_is_deployed_is_a_copy_in_evaluation():
    trained = objective(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))
    trained.train()
    deployed = trained.deployed()
    assert not deployed.training and trained.network.training
    deployed[0].weight.data.zero_()
    assert trained.network[0].weight.abs().sum() > 0


def test_spectral_deploys_a_plain_network_below_its_coefficient():
    images, labels = batch()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))
    names = set(network.state_dict())
    trained = objective(network, Spectral(coefficient=0.4))
    trained.train()
    for _ in range(3):
        trained(images, labels)["cross_entropy"].backward()
    deployed = trained.deployed()
    assert set(deployed.state_dict()) == names
    assert max(norms(deployed).values()) <= 0.4 * 1.001
    trained(images, labels)["cross_entropy"].backward()  # goes on


def test_networks_that_do_not_fit_are_refused():
    images, labels = batch()
    with pytest.raises(ModelError, match=r"3 outputs, one for each of a, b, c, got 5"):
        objective(nn.Conv2d(3, 5, 1))(images, labels)
    softmax = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Softmax(1))
    with pytest.raises(ModelError, match="returns logits, got softmax"):
        objective(softmax)(images, labels)


def test_an_objective_must_say_what_it_costs_and_what_it_deploys():
    with pytest.raises(NotImplementedError):
        Objective()(*batch())
    with pytest.raises(NotImplementedError):
        Objective().deployed()
