"""ONNX graphs as other exporters make them: axes, bytes, normalisation inside, names."""

import json
import warnings

import numpy as np
import pytest
import torch
from tiny_networks import CLASSES
from torch import nn

from doubtmap.errors import ModelError
from doubtmap.models import load
from doubtmap.scores import gradient

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
FLOAT, BYTE = 1, 2


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Conv2d(3, CLASSES, 1)


def graph(layer, path, before=(), after=(), axes=("b", 3, "h", "w"), kind=FLOAT, outputs=("y",)):
    """`before` and `after` the layer: (operator, constant or None, attributes)."""
    constants = {"w": layer.weight, "bias": layer.bias}
    arrays = {n: v.detach().numpy() for n, v in constants.items()}
    nodes, last = [], "x"

    def add(operator, constant, attributes):
        nonlocal last
        given = [last]
        if constant is not None:
            arrays[f"c{len(nodes)}"] = np.array(constant, np.float32)
            given.append(f"c{len(nodes)}")
        out = f"t{len(nodes)}"
        nodes.append(onnx.helper.make_node(operator, given, [out], **attributes))
        last = out

    for step in before:
        add(*step)
    nodes.append(onnx.helper.make_node("Conv", [last, "w", "bias"], ["conv"]))
    last = "conv"
    for step in after:
        add(*step)
    nodes.append(onnx.helper.make_node("Identity", [last], ["y"]))
    if "aux" in outputs:
        nodes.append(onnx.helper.make_node("Neg", ["conv"], ["aux"]))
    shapes = [onnx.helper.make_tensor_value_info(name, FLOAT, None) for name in outputs]
    made = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("x", kind, axes)],
        shapes,
        [onnx.numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(made, opset_imports=opset, ir_version=9)
    onnx.save(model, path)
    return model


def per_channel(values):
    return np.array(values, np.float32).reshape(1, 3, 1, 1)


def images():
    return torch.randint(0, 256, (2, 3, 24, 32), dtype=torch.uint8)


def expected(layer, x, mean=(0, 0, 0), std=(1, 1, 1)):
    mean, std = (torch.tensor(v, dtype=torch.float32).view(1, 3, 1, 1) for v in (mean, std))
    with torch.no_grad():
        return layer((x.float() / 255 - mean) / std)


TO_FIRST, TO_LAST = {"perm": [0, 3, 1, 2]}, {"perm": [0, 2, 3, 1]}
INSIDE = {
    "sub, div": [("Sub", per_channel(MEAN), {}), ("Div", per_channel(STD), {})],
    "of 255": [
        ("Sub", 255 * per_channel(MEAN), {}),
        ("Div", 255 * per_channel(STD), {}),
    ],
    "by 255 first": [
        ("Div", np.float32(255), {}),
        ("Sub", per_channel(MEAN), {}),
        ("Div", per_channel(STD), {}),
    ],
}


@pytest.mark.parametrize("before", INSIDE.values(), ids=INSIDE)
def test_graphs_that_normalise_inside(layer, tmp_path, before):
    graph(layer, tmp_path / "n.onnx", before)
    segmenter, x = load(tmp_path / "n.onnx"), images()
    torch.testing.assert_close(
        segmenter(x).logits, expected(layer, x, MEAN, STD), atol=1e-3, rtol=0
    )
    assert "inside" in segmenter.description["normalisation"]


def test_colours_on_the_last_axis(layer, tmp_path):
    graph(
        layer, tmp_path / "n.onnx", [("Transpose", None, TO_FIRST)], [("Transpose", None, TO_LAST)],
        axes=("b", "h", "w", 3),
    )  # fmt: skip
    segmenter = load(tmp_path / "n.onnx", mean=(0, 0, 0), std=(1, 1, 1))
    x = images()
    torch.testing.assert_close(segmenter(x).logits, expected(layer, x), atol=1e-3, rtol=0)
    assert segmenter.description["form"] == "logits"


def test_classes_on_the_last_axis(layer, tmp_path):
    graph(layer, tmp_path / "n.onnx", after=[("Transpose", None, TO_LAST)])
    x = images()
    got = load(tmp_path / "n.onnx", mean=(0, 0, 0), std=(1, 1, 1))(x)
    torch.testing.assert_close(got.logits, expected(layer, x), atol=1e-3, rtol=0)


def test_bytes(layer, tmp_path):
    before = [("Cast", None, {"to": FLOAT}), ("Div", np.float32(255), {})]
    graph(layer, tmp_path / "n.onnx", before, kind=BYTE)
    x = images()
    torch.testing.assert_close(
        load(tmp_path / "n.onnx")(x).logits, expected(layer, x), atol=1e-3, rtol=0
    )


def test_other_types_are_named(layer, tmp_path):
    graph(layer, tmp_path / "n.onnx", [("Cast", None, {"to": FLOAT})], kind=16)
    with pytest.raises(ModelError, match="bfloat16"):
        load(tmp_path / "n.onnx")


def test_a_class_map_in_the_graph(layer, tmp_path):
    model = graph(layer, tmp_path / "n.onnx", after=[("ArgMax", None, {"axis": 1})])
    model.graph.output[0].type.tensor_type.elem_type = 7
    onnx.save(model, tmp_path / "n.onnx")
    with pytest.raises(ModelError, match=r"class map.*export"):
        load(tmp_path / "n.onnx")(images())


def test_other_bands_are_counted(layer, tmp_path):
    four = nn.Conv2d(4, CLASSES, 1)
    graph(four, tmp_path / "n.onnx", axes=("b", 4, "h", "w"))
    with pytest.raises(ModelError, match="images of 4 bands, got 3"):
        load(tmp_path / "n.onnx")(images())


@pytest.mark.parametrize(("outputs", "sign"), [(("aux", "y"), 1), (("y", "aux"), 1)])
def test_names_tell_outputs_apart(layer, tmp_path, outputs, sign):
    graph(layer, tmp_path / "n.onnx", outputs=outputs)
    x = images()
    got = load(tmp_path / "n.onnx", mean=(0, 0, 0), std=(1, 1, 1))(x)
    torch.testing.assert_close(got.logits, sign * expected(layer, x), atol=1e-3, rtol=0)


def test_names_in_the_file_and_settings_beside_it(layer, tmp_path):
    (tmp_path / "onnx").mkdir()
    path = tmp_path / "onnx" / "model.onnx"
    model = graph(layer, path)
    settings = {"image_mean": list(MEAN), "image_std": list(STD)}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    labels = {str(number): f"beside {number}" for number in range(CLASSES)}
    (tmp_path / "config.json").write_text(json.dumps({"id2label": labels}))
    x = images()
    segmenter = load(path)
    assert segmenter.class_names[0] == "beside 0"
    torch.testing.assert_close(
        segmenter(x).logits, expected(layer, x, MEAN, STD), atol=1e-3, rtol=0
    )
    names = {number: f"inside {number}" for number in range(CLASSES)}
    onnx.helper.set_model_props(model, {"names": str(names)})
    onnx.save(model, path)
    assert load(path).class_names[0] == "inside 0"


class OnTokens(nn.Module):
    """Two linear layers on tokens, or on channels that come last."""

    def __init__(self, bias, tokens):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.mix = nn.Conv2d(3, 12, 4, 4), nn.Linear(12, 12)
        self.head, self.tokens = nn.Linear(12, CLASSES, bias=bias), tokens

    def forward(self, x):
        features = self.body(x)
        batch, _, height, width = features.shape
        rows = features.permute(0, 2, 3, 1)
        rows = rows.reshape(batch, height * width, 12) if self.tokens else rows
        said = self.head(self.mix(rows).relu())
        return said.reshape(batch, height, width, CLASSES).permute(0, 3, 1, 2)


class Upwards(nn.Module):
    """A transposed convolution at the end."""

    def __init__(self, kernel):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Conv2d(3, 8, 3, 2, 1)
        self.up = nn.ConvTranspose2d(8, CLASSES, kernel, 2, (kernel - 2) // 2)

    def forward(self, x):
        return self.up(self.body(x).relu())


@pytest.mark.parametrize(
    "network",
    [OnTokens(True, True), OnTokens(False, True), OnTokens(True, False), Upwards(2)],
    ids=["tokens", "without bias", "channels last", "transposed"],
)
def test_heads_of_other_kinds_keep_their_features(tmp_path, network):
    path, x = tmp_path / "n.onnx", torch.rand(1, 3, 32, 48)
    export(network, path, x)
    plain = {"mean": (0, 0, 0), "std": (1, 1, 1)}
    ours, own = load(path, **plain)(x), load(network, **plain)(x)
    torch.testing.assert_close(ours.features, own.features)
    torch.testing.assert_close(gradient(ours), gradient(own), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("exported", [False, True])
def test_windows_that_overlap_are_refused_with_the_way(tmp_path, exported):
    network, x = Upwards(4), torch.rand(1, 3, 32, 48)
    export(network, path := tmp_path / "n.onnx", x)
    prediction = load(path if exported else network, mean=(0, 0, 0), std=(1, 1, 1))(x)
    with pytest.raises(ModelError, match=r"gradient\(of=bias\) needs no features"):
        gradient(prediction)
    assert gradient(prediction, of="bias").shape == (1, 32, 48)


def export(network, path, x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter that needs no other library
        torch.onnx.export(network.eval(), (x,), path, dynamo=False, opset_version=17)
