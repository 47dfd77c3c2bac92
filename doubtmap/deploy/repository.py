"""A folder of NVIDIA's Triton Inference Server: `config.pbtxt`, and the ONNX file below it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from doubtmap.errors import ModelError

TYPES = {"float32": "TYPE_FP32", "uint8": "TYPE_UINT8", "int32": "TYPE_INT32"}
BATCH = 8
"""Most images that the server puts together."""


class Word(str):
    """A name of an enumeration, which the text format writes without quotation marks."""


def config(
    name: str, inputs: Mapping[str, Any], outputs: Mapping[str, tuple[str, Sequence[int]]]
) -> dict[str, Any]:
    """What the server is to know.

    Args:
        name: of the model: of its folder.
        inputs: `name`, `type` and `dims` of the images, without their batch axis; -1 where free.
        outputs: type and dims of each, without the batch axis.

    Reference:
        Triton Inference Server, model configuration,
        https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_configuration.html
    """
    return {
        "name": name,
        "backend": "onnxruntime",
        "max_batch_size": BATCH,
        "input": [_port(inputs["name"], inputs["type"], inputs["dims"])],
        "output": [_port(each, *how) for each, how in outputs.items()],
        "dynamic_batching": {},
    }


def _port(name: str, kind: str, dims: Sequence[int]) -> dict[str, Any]:
    return {"name": name, "data_type": Word(TYPES[kind]), "dims": list(dims)}


def text_of(message: Mapping[str, Any], indent: str = "") -> str:
    """A message in the text format of protocol buffers."""
    lines = []
    for name, value in message.items():
        several = isinstance(value, list) and value and isinstance(value[0], Mapping)
        for each in value if several else [value]:
            if isinstance(each, Mapping):
                lines.append(f"{indent}{name} {{\n{text_of(each, indent + '  ')}{indent}}}\n")
            else:
                lines.append(f"{indent}{name}: {_plain(each)}\n")
    return "".join(lines)


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_plain, value))}]"
    if isinstance(value, str) and not isinstance(value, Word):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    return str(value)


REPEATED = ("input", "output")
"""Fields that are lists even where there is one."""
TOKEN = re.compile(r'\s+|#[^\n]*|("(?:[^"\\]|\\.)*"|[{}\[\]:,]|[\w.+-]+)')


def read(text: str) -> dict[str, Any]:
    """What a `config.pbtxt` says: messages as dictionaries, repeated ones as lists.

    Raises:
        ModelError: for a text that is none.
    """
    tokens, at = [], 0
    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None:
            raise ModelError(f"config.pbtxt: expected a message, got {text[at : at + 20]!r}.")
        tokens += [found[1]] if found[1] else []
        at = found.end()
    return _message(iter([*tokens, "}"]))


def _message(tokens: Iterator[str]) -> dict[str, Any]:
    message: dict[str, Any] = {}
    try:
        while (name := next(tokens)) != "}":
            following = next(tokens)
            value = _message(tokens) if following == "{" else _value(next(tokens), tokens)
            if name in REPEATED:
                message.setdefault(name, []).append(value)
            else:
                message[name] = value
    except (StopIteration, ValueError) as error:
        raise ModelError("config.pbtxt: expected a whole message, got a part of one.") from error
    return message


def _value(token: str, tokens: Iterator[str]) -> Any:
    if token == "[":
        values = []
        while (token := next(tokens)) != "]":
            values += [] if token == "," else [_value(token, tokens)]
        return values
    if token.startswith('"'):
        return re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], token[1:-1])
    if not re.fullmatch(r"[\w.+-]+", token):
        raise ValueError(token)
    return int(token) if re.fullmatch(r"-?\d+", token) else Word(token)
