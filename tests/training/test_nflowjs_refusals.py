"""What `NFlowJS` refuses, and that it does so before any work."""

import pytest
from tiny_flows import recipe_of, tiny_flow
from tiny_photographs import CAR, CAT, of_class, outlined
from tiny_school import MUD, NAMES, QUICK

from doubtmap.errors import DataError, UsageError
from doubtmap.training import NFlowJS, Settings, nflowjs
from doubtmap.training.flow_training import write_flow

NO_FLOW = "has no effect where no flow is among the negatives "


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"divergence": "js"}, "one of jsd, kl, reverse-kl, got js"),
        ({"weight": 0.0}, "--divergence-weight: expected a finite number above 0, got 0"),
        ({"flow_rate": float("inf")}, "--flow-rate: expected a finite number above 0, got inf"),
        ({"flow_trust": 0.0}, "--flow-trust: expected bits above 0, or inf, got 0"),
        ({"flow_steps": 0}, "--flow-steps: expected at least 1, got 0"),
        ({"patch": (12, 16)}, "both multiples of 8 such as 16-80, got 12-16"),
        ({"patch": (24, 16)}, "both multiples of 8 such as 16-80, got 24-16"),
        ({"patch": (0, 16)}, "both multiples of 8"),
        ({"negatives": "gan"}, "expected some of flow, real:FOLDER, noise"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        NFlowJS(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"negatives": "noise", "flow_steps": 4}, f"--flow-steps: {NO_FLOW}noise"),
        ({"negatives": "noise", "flow_rate": 0.1}, f"--flow-rate: {NO_FLOW}noise"),
        ({"negatives": "noise", "flow": "f"}, f"--flow: {NO_FLOW}noise"),
        ({"negatives": "noise", "freeze_flow": True}, f"--freeze-flow: {NO_FLOW}noise"),
        ({"negatives": "none", "flow": "f"}, f"--flow: {NO_FLOW}none"),
        ({"negatives": "none", "divergence": "kl"}, "--divergence: has no effect without neg"),
        ({"negatives": "none", "weight": 0.5}, "--divergence-weight: has no effect without neg"),
        ({"negatives": "none", "patch": (8, 8)}, "--patch: has no effect without negatives"),
        ({"flow": "f", "flow_steps": 4}, "--flow-steps: has no effect with --flow, a flow that is"),
        ({"negatives": "noise", "flow_trust": 5.0}, f"--flow-trust: {NO_FLOW}noise"),
        ({"freeze_flow": True, "flow_replay": False}, "--flow-replay: has no effect with --freeze"),
        ({"freeze_flow": True, "flow_rate": 0.1}, "--flow-rate: has no effect with --freeze-flow"),
    ],
)
def test_options_without_effect_are_refused(options, words):
    with pytest.raises(UsageError, match=rf"{words}.*\. Leave it out\."):
        NFlowJS(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"negatives": "none"},
        {"negatives": "noise", "divergence": "kl", "weight": 0.5, "patch": (8, 8)},
        {"negatives": "noise,flow", "flow_steps": 4, "flow_rate": 0.1},
        {"freeze_flow": True, "flow_steps": 4},
        {"flow": "f", "flow_rate": 0.1},
    ],
)
def test_options_with_an_effect_are_taken(options):
    assert vars(NFlowJS(**options)).items() >= options.items()


@pytest.fixture
def refused(learn, tmp_path, monkeypatch):
    """That a training is refused before a flow is trained and anything is written."""

    def pretrain(*arguments, **options):
        pytest.fail("a flow was trained")

    monkeypatch.setattr(nflowjs, "pretrain", pretrain)

    def call(kind, words, recipe, **options):
        with pytest.raises(kind, match=words):
            learn(tmp_path / "run", recipe, **options)
        assert not (tmp_path / "run").exists()

    return call


def test_a_flow_cannot_learn_with_plain_gradient_descent(refused, learn, tmp_path):
    options = {"settings": Settings(**(vars(QUICK) | {"optimizer": "sgd"}))}
    words = "expected adamw, with which a flow learns, got sgd"
    refused(UsageError, words, recipe_of(), **options)
    refused(UsageError, words, recipe_of("noise,flow"), **options)
    learn(tmp_path / "noise", recipe_of("noise"), **options)


def test_patches_larger_than_the_crop_are_refused_before_any_work(refused):
    words = r"crop of 24x32 pixels, got sides of 16 to 32"
    refused(UsageError, words, recipe_of(patch=(16, 32)))
    refused(UsageError, words, recipe_of("noise", patch=(16, 32)))
    small = Settings(**(vars(QUICK) | {"crop": (8, 8)}))
    refused(UsageError, "crop of 8x8 pixels, got sides of 16 to 16", NFlowJS(), settings=small)


def test_bad_folders_are_refused_before_any_work(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    lines = of_class(CAT, 0), of_class(CAR, 1)
    known = outlined(tmp_path / "coco", *lines, classes=("grass", "mud"))
    for folder, words in (
        (tmp_path / "empty", "expected images in this folder, found no file"),
        (tmp_path / "none", "found nothing there. Check the path"),
        (known, "expected objects of other classes than are here"),
    ):
        refused(DataError, words, recipe_of(f"flow,real:{folder}"))


def test_a_file_that_is_no_flow_is_refused_before_any_work(refused, tmp_path):
    words = "Leave --flow out to train one"
    refused(DataError, words, recipe_of(flow=tmp_path / "none.safetensors"), hold_out=())


def test_a_flow_that_has_seen_a_held_out_class_is_refused(refused, tmp_path):
    path = tmp_path / "f.safetensors"
    words = r"--flow: expected a flow that has not seen the held-out mud, but .* learnt from it"
    for classes in (("Mud",), ("grass", "mud")):
        write_flow(path, tiny_flow(), classes=classes)
        refused(UsageError, words, recipe_of(flow=path))
        refused(UsageError, words, recipe_of("noise,flow", flow=path, freeze_flow=True))
    refused(UsageError, "the held-out Mud, but", recipe_of(flow=path), hold_out=("Mud",))


def test_a_flow_that_has_seen_other_classes_is_taken(learn, tmp_path):
    path = tmp_path / "f.safetensors"
    for number, about in enumerate(({"classes": NAMES}, {"classes": ("muddy water",)}, {})):
        write_flow(path, tiny_flow(), **about)
        learn(tmp_path / str(number), recipe_of(flow=path))


def test_the_flows_of_a_training_with_all_classes_are_refused(learn, network, tmp_path):
    """The one that was trained first, and the one that learnt with the network."""
    learn(tmp_path / "whole", recipe_of(), model=network.replace("build", "four"), hold_out=())
    for name in ("flow", "flow-joint"):
        recipe = recipe_of(flow=tmp_path / "whole" / "training" / f"{name}.safetensors")
        with pytest.raises(UsageError, match="has not seen the held-out mud"):
            learn(tmp_path / "run", recipe, hold_out=MUD)
