import json

import pytest
import torch
from safetensors.torch import load_file

import doubtmap as dm
from doubtmap.errors import ModelError, UsageError
from doubtmap.training import Plain, Reporter, Settings, Spectral, spectral, starting_network, train
from doubtmap.training.labels import trained_classes
from doubtmap.training.networks import CONFIGURATIONS, open_named, same_names

transformers = pytest.importorskip("transformers")

NAMES = ("grass", "stone", "water", "mud")
ONCE = Settings(epochs=1, batch=4, crop=(64, 64))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny SegFormer with four classes in another order, and its own normalisation."""
    path = tmp_path_factory.mktemp("segformer")
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=12,
        id2label=dict(enumerate(("mud", "water", "stone", "grass"))),
    )
    torch.manual_seed(0)
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(path)
    processor = {
        "image_processor_type": "SegformerImageProcessor",
        "do_resize": True,
        "size": 512,
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.5, 0.6, 0.7],
    }
    (path / "preprocessor_config.json").write_text(json.dumps(processor))
    return path


def weights(folder):
    """As transformers reads them, which renames some."""
    network = transformers.AutoModelForSemanticSegmentation.from_pretrained(folder)
    return network.state_dict()


def test_a_folder_with_the_same_classes_keeps_weights_and_order(folder):
    start = starting_network(str(folder), NAMES)
    assert start.class_names == ("mud", "water", "stone", "grass") and start.trained
    assert start.mean == (0.1, 0.2, 0.3) and start.std == (0.5, 0.6, 0.7) and not start.notes
    stored = weights(folder)
    assert all(torch.equal(part, stored[k]) for k, part in start.network.state_dict().items())


def test_for_other_classes_only_the_classifier_is_made_anew(folder):
    start = starting_network(str(folder), ("mud", "water", "stone", "ice"), seed=4)
    stored = weights(folder)
    changed = {k for k, part in start.network.state_dict().items() if not part.equal(stored[k])}
    assert changed == {"decode_head.classifier.weight"}  # the bias starts at 0 in both
    assert start.network.config.id2label[3] == "ice"
    assert start.class_names == ("mud", "water", "stone", "ice")
    assert "mud, water, stone, grass apart; its classifier was made anew" in start.notes[0]
    fewer = starting_network(str(folder), ("mud", "ice"))
    assert fewer.network.decode_head.classifier.out_channels == 2


@pytest.mark.parametrize("classes", [NAMES, ("ice", "mud")], ids=["same", "other"])
def test_an_auxiliary_head_is_left_out(classes, tmp_path):
    backbone = transformers.ResNetConfig(
        layer_type="basic",
        embedding_size=8,
        hidden_sizes=[8, 8, 8, 8],
        depths=[1, 1, 1, 1],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = transformers.UperNetConfig(
        backbone_config=backbone,
        hidden_size=8,
        auxiliary_in_channels=8,
        auxiliary_channels=8,
        id2label=dict(enumerate(NAMES)),
    )
    transformers.UperNetForSemanticSegmentation(config).save_pretrained(tmp_path)
    assert any(key.startswith("auxiliary") for key in load_file(tmp_path / "model.safetensors"))
    start = starting_network(str(tmp_path), classes)
    assert not any(key.startswith("auxiliary") for key in start.network.state_dict())
    assert start.network.config.use_auxiliary_head is False and start.class_names == classes
    normalised = torch.zeros(1, 3, 64, 64)
    assert start.network.eval()(normalised).logits.shape[1] == len(classes)


def test_from_scratch_takes_the_configuration_and_draws_from_the_seed(folder):
    first, again, other = (
        starting_network(str(folder), NAMES, from_scratch=True, seed=seed) for seed in (1, 1, 2)
    )
    assert first.class_names == NAMES and first.mean == (0.1, 0.2, 0.3) and not first.trained
    key = "decode_head.classifier.weight"
    weight = first.network.state_dict()[key]
    assert weight.equal(again.network.state_dict()[key])
    assert not weight.equal(other.network.state_dict()[key])
    assert not weight.equal(weights(folder)[key])


@pytest.mark.parametrize("recipe", [Plain(), Spectral()], ids=["plain", "spectral"])
def test_what_is_written_is_a_folder_for_both(recipe, folder, training_set, tmp_path, monkeypatch):
    monkeypatch.setattr(spectral.settle, "__defaults__", (3, spectral.GRID))  # else seconds
    options = {"model": str(folder), "from_scratch": True, "settings": ONCE}
    train(training_set, tmp_path, recipe=recipe, **options, hold_out=["mud"])
    stored = load_file(tmp_path / "model.safetensors")
    assert stored.keys() == load_file(folder / "model.safetensors").keys()
    network = transformers.AutoModelForSemanticSegmentation.from_pretrained(tmp_path).eval()
    assert network.config.id2label == {0: "grass", 1: "stone", 2: "water"}
    processor = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert processor["do_resize"] is False and processor["image_mean"] == [0.1, 0.2, 0.3]
    segmenter = dm.load(tmp_path)
    assert segmenter.class_names == ("grass", "stone", "water")
    image = torch.rand(1, 3, 64, 96)
    normal = (image - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor(
        [0.5, 0.6, 0.7]
    ).view(3, 1, 1)
    with torch.no_grad():
        expected = network(normal).logits
    torch.testing.assert_close(segmenter(image).native_logits, expected, rtol=1e-4, atol=1e-5)
    again = starting_network(str(tmp_path), ("stone", "grass", "water"))
    assert again.class_names == ("grass", "stone", "water") and again.trained


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_named_networks_are_those_that_transformers_builds(name):
    with torch.device("meta"):
        network = open_named(name, NAMES)
    assert network.config.num_labels == 4 and network.config.label2id["mud"] == 3
    assert not [key for key in network.state_dict() if key.startswith("auxiliary")]
    family, _, size = name.partition("-")
    parameters = sum(part.numel() for part in network.parameters())
    published = {"b0": 3.7e6, "b1": 13.7e6, "b2": 27.4e6}  # SegFormer, table 6 of its paper
    if family == "segformer":
        assert parameters == pytest.approx(published[size], rel=0.03)
    else:
        assert 1e7 < parameters < 1e8


def test_networks_that_cannot_be_trained_are_refused(tmp_path):
    transformers.Mask2FormerConfig().save_pretrained(tmp_path / "queries")
    with pytest.raises(ModelError, match="a logit for each class and pixel, got mask2former"):
        starting_network(str(tmp_path / "queries"), NAMES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"one without config\.json, with nothing in it"):
        starting_network(str(tmp_path / "empty"), NAMES)


def test_half_a_training_is_no_network_yet(training_set, network, tmp_path):
    def stop(epoch, epochs, done, steps, loss):
        raise KeyboardInterrupt

    options = {"model": network, "hold_out": ["mud"], "settings": ONCE}
    with pytest.raises(KeyboardInterrupt):
        train(training_set, tmp_path / "half", **options, report=Reporter(step=stop))
    for opened in (dm.load, lambda folder: starting_network(str(folder), NAMES)):
        with pytest.raises(UsageError, match=r"has not finished its first epoch.*--resume"):
            opened(tmp_path / "half")
    train(training_set, tmp_path / "both", **options, members=2)
    with pytest.raises(UsageError, match=r"networks inside \(1, 2\)\. Pass .*both.2"):
        starting_network(str(tmp_path / "both"), NAMES)


def test_python_networks_go_on_only_where_their_file_is_named(training_set, network, tmp_path):
    options = {"hold_out": ["mud"], "settings": ONCE}
    train(training_set, tmp_path / "first", model=network, **options)
    with pytest.raises(UsageError, match=r"run only where you name it. Pass python:.*@.*trust"):
        dm.load(tmp_path / "first")
    named = f"{network}@{tmp_path / 'first'}"
    segmenter = dm.load(named)
    assert segmenter.description["kind"] == "trained"
    start = starting_network(named, ("water", "grass", "stone"))
    assert start.trained and start.maker == network
    assert start.class_names == ("grass", "stone", "water")
    stored = load_file(tmp_path / "first" / "model.safetensors")
    assert all(part.equal(stored[k]) for k, part in start.network.state_dict().items())
    with pytest.raises(ModelError, match="expected the classes grass, ice"):
        starting_network(named, ("grass", "ice"))
    with pytest.raises(UsageError, match="expected no --from-scratch"):
        starting_network(network, NAMES, from_scratch=True)
    with pytest.raises(UsageError, match="without running foreign code"):
        starting_network(str(tmp_path / "first"), NAMES)


def test_damaged_folders_are_refused(training_set, network, tmp_path):
    train(training_set, tmp_path, model=network, hold_out=["mud"], settings=ONCE)
    with pytest.raises(ModelError, match=r"expected the weights of .*:four, but they cannot"):
        dm.load(f"{network.replace('build', 'four')}@{tmp_path}")
    for text in ("{}", "[1]", "{", '{"class_names": ["a"]}'):
        (tmp_path / "doubtmap.json").write_text(text)
        with pytest.raises(ModelError, match="the description of a network that doubtmap train"):
            dm.load(tmp_path)


def test_the_demo_network_starts_as_it_is_or_anew():
    as_it_is = starting_network("demo", dm.load("demo").class_names)
    assert as_it_is.trained and not as_it_is.notes
    scratch = starting_network("demo", NAMES, from_scratch=True)
    assert not scratch.trained and not scratch.notes and scratch.class_names == NAMES
    trunk = "quarter.first.weight"
    kept = starting_network("demo", NAMES)
    assert kept.network.state_dict()[trunk].equal(as_it_is.network.state_dict()[trunk])
    assert not kept.network.state_dict()[trunk].equal(scratch.network.state_dict()[trunk])


@pytest.mark.real_data
def test_a_trained_network_of_the_same_nine_classes_goes_on(shared):
    dataset = dm.open_dataset(f"camvid:{shared}/data/camvid:train")
    classes = trained_classes(dataset, ["pedestrian", "bicyclist"])
    start = starting_network(str(shared / "models" / "camvid9"), classes)
    assert start.class_names == classes == dm.load(shared / "models" / "camvid9").class_names
    assert start.trained and not start.notes


def test_names_are_the_same_in_any_order_and_spelling():
    assert same_names(["Traffic Sign", "road"], ["road", "traffic-sign"])
    assert not same_names(["road"], ["road", "road2"])
