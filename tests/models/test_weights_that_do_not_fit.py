"""Weights of another number of classes, or under other names: one sentence that says which."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import doubtmap as dm

CLASSES = 5


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        num_labels=CLASSES,
        depths=[1] * 4,
        hidden_sizes=[8] * 4,
        num_attention_heads=[1] * 4,
        decoder_hidden_size=8,
    )
    network = transformers.SegformerForSemanticSegmentation(config)
    network.save_pretrained(folder := tmp_path_factory.mktemp("good"))
    return folder


@pytest.fixture
def changed(good, tmp_path):
    """Makes the folder anew with another prefix of its weights' names, or so many class names."""

    def make(prefix="", names=CLASSES):
        shutil.copytree(good, folder := tmp_path / "changed")
        weights = load_file(good / "model.safetensors")
        renamed = {prefix + key: value for key, value in weights.items()}
        save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((good / "config.json").read_text())
        config["id2label"] = {str(i): f"class of {i}" for i in range(names)}
        config["label2id"] = {f"class of {i}": i for i in range(names)}
        (folder / "config.json").write_text(json.dumps(config))
        return str(folder)

    return make


@pytest.mark.parametrize(("prefix", "names"), [("", 7), ("", 3), ("module.", 7)])
def test_another_number_of_names_is_said_with_both_numbers(changed, prefix, names):
    wrong = rf"expected weights of {names} classes, as many as config.json .* got those of 5 \("
    with pytest.raises(dm.ModelError, match=wrong):
        dm.load(changed(prefix, names))


def test_weights_of_data_parallel_are_the_network_itself(good, changed):
    image = torch.rand(1, 3, 32, 32)
    segmenter = dm.load(changed("module."))
    # not to the last bit: kernels may differ by how the files' bytes are aligned
    torch.testing.assert_close(segmenter(image).logits, dm.load(str(good))(image).logits)
    assert "module., which is left out" in " ".join(segmenter.description["notes"])


def test_weights_under_other_names_are_shown(changed):
    with pytest.raises(dm.ModelError, match=r"such as decode_head.*others, such as model\.decode"):
        dm.load(changed("model."))


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        (lambda w: {f"module.{k}": x for k, x in w.items()}, r"names start with module\., as mod"),
        (lambda w: {"state_dict": w}, r"lie under 'state_dict': load weights\['state_dict'\]"),
        (lambda w: w | {"1.bias": torch.rand(7)}, r"1\.bias has the shape \(7\), .* is \(5\)"),
        (lambda w: {"0.weight": w["0.weight"], "x": w["1.bias"]}, r"3 missing, .*1 unknown, as x"),
    ],
    ids=["module", "nested", "shape", "other"],
)
def test_a_function_that_loads_weights_that_do_not_fit(tmp_path, saved, said):
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, CLASSES, 1))
    torch.save(saved(network.state_dict()), tmp_path / "weights.pt")
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def make(weights):\n"
        "    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 5, 1))\n"
        "    net.load_state_dict(torch.load(weights, weights_only=True))\n"
        "    return net\n"
    )
    with pytest.raises(dm.ModelError, match=said):
        dm.load(f"python:{tmp_path}/net.py:make(weights={tmp_path}/weights.pt)")
