"""ONNX graphs as other exporters make them: axes, bytes, normalisation inside, names."""

import json

import numpy as np
import pytest
import torch
from tiny_networks import CLASSES
from torch import nn

from doubtmap.errors import ModelError
from doubtmap.models import load

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
