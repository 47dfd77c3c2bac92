"""Whether TensorRT 10 can read an ONNX file, as far as its documentation tells without a card."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

OPERATORS = frozenset(
    re.findall(
        r"\w+",
        """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast
    CastLike Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum
    DeformConv DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike
    Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool
    GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization GRU HardSigmoid HardSwish
    Hardmax Identity If ImageScaler InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu
    Less LessOrEqual Log LogSoftmax Loop LRN LSTM LpNormalization LpPool MatMul Max MaxPool Mean
    MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or Pad
    ParametricSoftplus Pow PRelu QuantizeLinear RandomNormal RandomNormalLike RandomUniform
    RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
    ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence
    RNN RoiAlign Round ScaledTanh Scan Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid
    Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan
    Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
    """,
    )
)
"""Those that the parser of TensorRT 10 supports.

Reference:
    ONNX-TensorRT 10.1 GA, docs/operators.md (NVIDIA, 2024),
    https://github.com/onnx/onnx-tensorrt/blob/96e781103cfc4adf4a6bb557e94bac8e693f6f4c/docs/operators.md
"""
OPSETS = range(9, 21)
MODES = ("nearest", "linear")
PLACES = (
    *("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"),
)
"""Of `Resize`."""
BYTES = 2
"""ONNX's number for uint8."""


def refused(model: Any) -> list[str]:
    """What of an ONNX model the parser's documentation excludes, one half-sentence each.

    Args:
        model: an `onnx.ModelProto` whose shapes and types were inferred, or not.

    Returns:
        Empty where there is nothing; the parser itself, on a card, has the last word.
    """
    found = list(dict.fromkeys(_of_opset(model)))
    for node in model.graph.node:
        found += [each for each in _of_node(node) if each not in found]
    return found + _of_bytes(model.graph)


def _of_opset(model: Any) -> Iterator[str]:
    for each in model.opset_import:
        if each.domain in ("", "ai.onnx") and each.version not in OPSETS:
            yield f"opset {each.version}, where it reads {OPSETS[0]} to {OPSETS[-1]}"
        elif each.domain not in ("", "ai.onnx"):
            yield f"operators of {each.domain}"


def _of_node(node: Any) -> Iterator[str]:
    if node.op_type not in OPERATORS:
        yield f"the operator {node.op_type}"
    if node.op_type == "Resize":
        said = {each.name: each.s.decode() or each.i for each in node.attribute}
        if said.get("antialias"):
            yield "Resize with antialiasing"
        if said.get("mode", "nearest") not in MODES:
            yield f"Resize by {said['mode']}"
        if said.get("coordinate_transformation_mode", PLACES[0]) not in PLACES:
            yield f"Resize with {said['coordinate_transformation_mode']}"


def _of_bytes(graph: Any) -> list[str]:
    """Bytes are images that come in and maps that go out; in between, they are cast."""
    inside = {each.name for each in graph.value_info if each.type.tensor_type.elem_type == BYTES}
    inside |= {each.name for each in graph.initializer if each.data_type == BYTES}
    ports = {each.name for each in (*graph.input, *graph.output)}
    return ["bytes within the graph"] if inside - ports else []
