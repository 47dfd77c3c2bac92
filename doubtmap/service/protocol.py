"""The open inference protocol, version 2, as KServe, Triton and others speak it: JSON and binary.

Reference:
    Open Inference Protocol (KServe, 2024), https://github.com/kserve/open-inference-protocol;
    Binary Tensor Data Extension (NVIDIA Triton, 2024),
    https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from doubtmap.service.answers import Answer, Answering
from doubtmap.service.limits import Limits, Refusal, check_images
from doubtmap.version import __version__

Json = dict[str, Any]
HEADER = "Inference-Header-Content-Length"
"""Says how long the JSON is, where tensors follow it as bytes."""
_JSON = 10_000_000
"""Bytes; read into Python's lists, JSON can take thirty times as many."""
_LISTED = 4_000_000
"""Numbers of an answer in JSON, of which each takes a hundred bytes while it is written."""
INPUT = "images"
VERSION = "1"
_KINDS: dict[str, type[np.generic]] = {"UINT8": np.uint8, "FP32": np.float32}
_NAMES = {np.dtype(np.uint8): "UINT8", np.dtype(np.int32): "INT32", np.dtype(np.float32): "FP32"}
_ORDER = "(N, {bands}, H, W)"


@dataclass(frozen=True, eq=False)
class Asked:
    """A request of the protocol.

    Args:
        images: `(N, K, H, W)` uint8, or float32 in [0, 1].
        outputs: their names, and whether each is wanted as bytes.
        id: to be said back; None for none.
    """

    images: Tensor
    outputs: dict[str, bool] = field(default_factory=dict)
    id: str | None = None


def server() -> Json:
    """What the server says of itself."""
    return {"name": "doubtmap", "version": __version__, "extensions": ["binary_tensor_data"]}


def model(answering: Answering) -> Json:
    """What the server says of its model."""
    bands = answering.bands or 3
    kind = "UINT8" if answering.classes <= 256 else "INT32"
    return {
        "name": answering.name,
        "versions": [VERSION],
        "platform": "doubtmap",
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, bands, -1, -1]}],
        "outputs": [
            {"name": "classes", "datatype": kind, "shape": [-1, -1, -1]},
            *(
                {"name": name, "datatype": "FP32", "shape": [-1, -1, -1]}
                for name in answering.scores
            ),
        ],
    }


def read_request(
    content: bytes, header_length: str | None, answering: Answering, limits: Limits
) -> Asked:
    """Read the body of an inference request.

    Args:
        content: JSON, and after it tensors as bytes where the header says where it ends.
        header_length: what `HEADER` says; None without it.
        answering: who is asked.
        limits: on the pixels of all images.

    Raises:
        Refusal: 400 for what cannot be read, 413 for too many pixels.
    """
    length = _length(content, header_length)
    if length > _JSON:
        raise Refusal(
            413,
            f"expected at most {_JSON / 1e6:g} MB of JSON, got more. Send tensors as bytes behind "
            f"it (binary_data_size).",
        )
    asked = _json(content[:length])
    outputs = _outputs(asked, answering)
    inputs = asked.get("inputs")
    if not (isinstance(inputs, list) and len(inputs) == 1 and isinstance(inputs[0], dict)):
        _refuse(f"expected one input, {INPUT}, got {_told(inputs)}")
    given: Json = inputs[0]
    if given.get("name") != INPUT:
        _refuse(f"expected the input {INPUT}, got {_told(given.get('name'))}")
    kind = given.get("datatype")
    if not isinstance(kind, str) or kind not in _KINDS:
        _refuse(f"expected {INPUT} of datatype UINT8 or FP32, got {_told(kind)}")
    shape = _shape(given.get("shape"), answering.bands or 3, limits)
    _check_listed(outputs, shape)
    binary = _parameters(given).get("binary_data_size")
    if binary is None:
        if length != len(content):
            _refuse("expected binary_data_size with the bytes after the JSON, got none")
        values = _listed(given.get("data"), kind, shape)
    else:
        values = _packed(content[length:], binary, kind, shape)
    if kind == "FP32" and not bool((values >= 0).all() and (values <= 1).all()):
        _refuse(f"expected {INPUT} of FP32 in [0, 1], got other values, or NaN")
    name = asked.get("id")
    return Asked(torch.from_numpy(values), outputs, name if isinstance(name, str) else None)


def write_answer(
    wanted: Mapping[str, bool], answers: Sequence[Answer], name: str, id: str | None = None
) -> tuple[bytes, int]:
    """The body of the response, and the length of its JSON; tensors as bytes follow that.

    Args:
        wanted: outputs, and whether each is wanted as bytes.
        answers: of its images, all of one size.
        name: of the model.
        id: of the request.
    """
    outputs, tail = [], []
    for output, binary in wanted.items():
        values: NDArray[Any] = np.stack(
            [each.classes if output == "classes" else each.doubts[output] for each in answers]
        )
        about: Json = {
            "name": output,
            "datatype": _NAMES[values.dtype],
            "shape": list(values.shape),
        }
        if binary:
            tail.append(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
            about["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            about["data"] = values.ravel().tolist()
        outputs.append(about)
    said: Json = {"model_name": name, "model_version": VERSION, "outputs": outputs}
    if id is not None:
        said["id"] = id
    head = json.dumps(said, separators=(",", ":")).encode()
    return b"".join([head, *tail]), len(head)


def _refuse(why: str) -> NoReturn:
    raise Refusal(400, f"{why}. Correct the request.")


def _told(value: object) -> str:
    """A value of the request, cut short."""
    text = repr(value) if not isinstance(value, list | dict) else f"{type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _length(content: bytes, said: str | None) -> int:
    if said is None:
        return len(content)
    if not (said.isascii() and said.isdecimal() and len(said) < 12 and int(said) <= len(content)):
        _refuse(f"expected {HEADER} to be at most the {len(content)} bytes sent, got {_told(said)}")
    return int(said)


def _json(content: bytes) -> Json:
    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is no number of JSON")

    try:
        read = json.loads(content, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        _refuse(f"expected JSON, got something else ({str(error)[:80]})")
    if not isinstance(read, dict):
        _refuse(f"expected a JSON object, got {_told(read)}")
    return read


def _parameters(of: Json) -> Json:
    found = of.get("parameters", {})
    if not isinstance(found, dict):
        _refuse(f"expected parameters to be an object, got {_told(found)}")
    if strange := [name for name in found if str(name).startswith("shared_memory")]:
        _refuse(f"expected tensors in the request, got {strange[0]}, which is not served")
    return found


def _outputs(asked: Json, answering: Answering) -> dict[str, bool]:
    usual = _parameters(asked).get("binary_data_output", False) is True
    known = ("classes", *answering.scores)
    wanted = asked.get("outputs") or [{"name": name} for name in known]
    if not isinstance(wanted, list) or not all(isinstance(each, dict) for each in wanted):
        _refuse(f"expected outputs to be a list of objects, got {_told(wanted)}")
    found = {}
    for each in wanted:
        name = each.get("name")
        if not isinstance(name, str) or name not in known or name in found:
            _refuse(f"expected outputs of {', '.join(known)}, each once, got {_told(name)}")
        found[name] = _parameters(each).get("binary_data", usual) is True
    return found


def _shape(said: object, bands: int, limits: Limits) -> tuple[int, ...]:
    order = _ORDER.format(bands=bands)
    if not isinstance(said, list) or len(said) != 4:
        _refuse(f"expected {INPUT} of shape {order}, got {said if said else 'none'!s:.60}")
    if not all(type(side) is int and 0 < side < 2**31 for side in said) or said[1] != bands:
        _refuse(f"expected {INPUT} of shape {order}, got {said!s:.60}")
    count, _, height, width = said
    check_images(limits, count, height, width)
    return tuple(said)


def _check_listed(outputs: Mapping[str, bool], shape: tuple[int, ...]) -> None:
    """Refuse an answer in JSON that would take too much memory."""
    count = shape[0] * shape[2] * shape[3] * sum(not binary for binary in outputs.values())
    if count > _LISTED:
        raise Refusal(
            413,
            f"expected an answer of at most {_LISTED / 1e6:g} million numbers in JSON, got "
            f"{count / 1e6:.3g} million. Ask for bytes (binary_data_output).",
        )


def _listed(data: object, kind: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Numbers in lists, flat or nested."""
    if not isinstance(data, list):
        _refuse(f"expected data as a list of numbers, got {_told(data)}")
    try:
        values = np.asarray(data)
    except (ValueError, OverflowError):
        _refuse("expected data as a list of numbers, got lists of other lengths or numbers")
    if values.dtype.kind not in ("iu" if kind == "UINT8" else "iuf"):
        _refuse(f"expected data of {kind}, got numbers of another kind, or none")
    if (
        values.ndim not in (1, 4)
        or values.size != math.prod(shape)
        or (values.ndim == 4 and values.shape != shape)
    ):
        _refuse(f"expected {math.prod(shape)} numbers for the shape {list(shape)}, got others")
    if kind == "UINT8" and (values.min() < 0 or values.max() > 255):
        _refuse(f"expected data of UINT8 in 0 to 255, got {values.min()} to {values.max()}")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values.reshape(shape).astype(_KINDS[kind]))


def _packed(tail: bytes, said: object, kind: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Numbers as little-endian bytes."""
    form = np.dtype(_KINDS[kind])
    expected = math.prod(shape) * form.itemsize
    if type(said) is not int or said != expected or len(tail) != expected:
        _refuse(
            f"expected {expected} bytes for the shape {list(shape)} of {kind}, got {len(tail)}, "
            f"and binary_data_size {_told(said)}"
        )
    values: NDArray[Any] = np.frombuffer(tail, form.newbyteorder("<")).reshape(shape).astype(form)
    return values
