"""One more class for what is pasted: what it learns, and the folder that is written."""

import pytest
import torch
from test_negative_learning import batch_of, seen_by, start_of, touched
from tiny_flows import recipe_of
from torch import nn

import doubtmap as dm
from doubtmap.datasets import VOID
from doubtmap.errors import ModelError, UsageError
from doubtmap.models.distilled import head_of, said_by
from doubtmap.training import NFlowJS, Settings
from doubtmap.training.dudes import HEAD_RATE
from doubtmap.training.negative_learning import NegativeLearning
from doubtmap.training.negatives import Noise
from doubtmap.training.networks import Start


def objective_of(**options):
    return NegativeLearning(start_of(), Noise(), (8, 16), negative_class=True, **options)


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 4.0])])
def test_pasted_pixels_are_of_one_more_class(weights):
    """The loss is PyTorch's cross entropy over K + 1 classes, in which the new one weighs 1."""
    objective = objective_of(class_weights=weights)
    nn.init.normal_(head_of(objective.network)[-1].weight)
    images, labels = batch_of()
    labels[:, :2] = VOID
    terms, mixed = seen_by(objective, images, labels)
    pasted = ((mixed - images).abs() > 1e-5).any(1)
    with said_by(objective.network) as said:
        logits = objective.logits(mixed)
    joint = torch.cat([logits, *said], 1)
    known = labels.masked_fill(pasted, 3)
    four = None if weights is None else torch.tensor([*weights, 1.0])
    expected = nn.functional.cross_entropy(joint, known, four, ignore_index=VOID)
    torch.testing.assert_close(terms["cross_entropy"], expected)
    far = -dm.scores.divergence(objective.logits(mixed), temperature=1.0)[pasted].mean()
    torch.testing.assert_close(terms["divergence"], far)


def test_before_the_first_step_the_classes_are_as_they_were():
    plain, objective = start_of(), objective_of()
    images, _ = batch_of()
    expected = plain.network((images - 0.5) / 0.25)
    torch.testing.assert_close(objective.logits(images), expected)


def test_the_head_learns_at_a_rate_of_its_own():
    objective = objective_of()
    objective(*batch_of())["cross_entropy"].backward()
    assert touched(head_of(objective.network))
    rates = {objective.rate_of(name, 1e-3) for name, _ in objective.named_parameters()}
    assert rates == {1e-3, HEAD_RATE[False]}


def test_the_network_of_the_folder_says_what_looks_like_a_negative(learn, tmp_path, training_set):
    """Noise is taught as the class; of an image half of noise that half is above the other."""
    longer = Settings(epochs=15, batch=4, rate=0.02, workers=1)
    trained = learn(tmp_path / "n", recipe_of("noise", negative_class=True), settings=longer)
    assert {path.name for path in (tmp_path / "n").iterdir()} == {
        "doubtmap.json", "model.safetensors", "negative.safetensors", "training",
    }  # fmt: skip
    network = dm.load(trained.model)
    assert "looks like a negative" in " ".join(network.description["notes"])
    image = training_set[0].image[None].float() / 255
    torch.manual_seed(0)
    image[..., image.shape[-1] // 2 :] = torch.rand(image[..., image.shape[-1] // 2 :].shape)
    known, noise = dm.scores.negative(network(image)).chunk(2, -1)
    assert noise.mean() > known.mean() + 0.2
    with pytest.raises(ModelError, match="distilled: needs a network with a second head"):
        dm.scores.distilled(network(image))


def test_a_later_training_without_it_leaves_no_head(learn, tmp_path):
    learn(tmp_path / "n", recipe_of("noise", negative_class=True))
    (tmp_path / "n" / "training" / "checkpoint.pt").unlink()
    learn(tmp_path / "n", recipe_of("noise"))
    assert not (tmp_path / "n" / "negative.safetensors").exists()


def test_it_needs_negatives_and_a_classifier():
    with pytest.raises(UsageError, match="--negative-class: has no effect without negatives"):
        NFlowJS("none", negative_class=True)
    network = nn.Conv2d(3, 3, 3, padding=1)
    start = Start(network, ("a", "b", "c"), (0.5,) * 3, (0.25,) * 3, "demo", trained=True)
    with pytest.raises(ModelError, match=r"nflowjs: .* or leave --negative-class out\."):
        NegativeLearning(start, Noise(), (8, 16), negative_class=True)
