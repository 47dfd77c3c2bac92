"""What a `.pt2` archive may hold before PyTorch's reader, which runs what it reads, sees it.

The reader evaluates sizes and guards as Python, looks operators up by any dotted path below
`torch`, writes names into source code that it executes, and unpickles. So every member, every
string and every type is held to what `torch.export.save` writes of a network, by its place.
"""

from __future__ import annotations

import dataclasses
import enum
import io
import json
import math
import re
import types
import typing
import zipfile
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch

from doubtmap.errors import ModelError
from doubtmap.files.expressions import Refused, check_guard, check_size

TRIED = ("2.13",)
"""Versions of PyTorch whose reader the attacks in the tests were made for."""
MOST_JSON = 1 << 26
MEMBERS = re.compile(
    r"(models/model\.json|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)|data/sample_inputs/model\.pt"
    r"|extra/[\w./ -]*|archive_format|archive_version|byteorder|\.data/(version|serialization_id))"
)
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,999}")
PATH = re.compile(r"[\w.:/ -]{0,999}", re.ASCII)
"""Of a module or a weight: written into source code between quotes."""
KEY = re.compile(r"[^\"'\\\x00-\x1f]{0,999}")
DOTTED = re.compile(r"[\w.<>]{0,999}", re.ASCII)
OPERATOR = re.compile(r"torch\.ops\.(aten|torchvision|quantized_decomposed)\.(\w+)\.(\w+)")
ON_SIZES = re.compile(
    r"_operator\.(eq|ne|le|ge|lt|gt|neg|pos|mul|add|sub|floordiv|mod|pow|truediv|and_|or_|lshift"
    r"|rshift)|torch\.(sym_(not|int|float|ite|max|min|sqrt)|_sym_sqrt)|math\.(trunc|floor|ceil)"
)
OF_GRAPHS = re.compile(
    r"torch\.ops\.higher_order\.(cond|while_loop|map_impl|scan|associative_scan|out_dtype"
    r"|wrap_with_set_grad_enabled|wrap_with_autocast)"
)
WORDS = {
    "UPLO", "activation", "approximate", "assert_msg", "device_type", "driver", "equation",
    "indexing", "interpolation", "mode", "norm", "ord", "p", "pad_mode", "padding",
    "padding_side", "reduce", "rounding_mode", "side",
}  # fmt: skip
"""Arguments of operators that are text: none is the name of a file."""
TREES = re.compile(r"builtins\.(tuple|list|dict)|collections\.OrderedDict|[A-Za-z_][\w.]*")


def check_archive(path: Path) -> None:
    """Refuse a `.pt2` archive with anything in it that could run when PyTorch opens it.

    Args:
        path: of a file that `torch.export.save` may have written.

    Raises:
        ModelError: for what is not known to be safe, and for a PyTorch that this was not tried on.
    """
    version = ".".join(torch.__version__.split(".")[:2])
    if version not in TRIED:
        raise ModelError(
            f"{path}: expected PyTorch {' or '.join(TRIED)}, whose reader of .pt2 files was tried "
            f"with files that run code, got {torch.__version__}. Pass --trust (trust=True) if you "
            f"know who made the file, or export the network to ONNX."
        )
    try:
        _check_members(path)
    except Refused as error:
        raise ModelError(
            f"{path}: expected a program with nothing in it that could run while it is opened, got "
            f"{error}. Export the network again, or pass --trust (trust=True) if you know who made "
            f"the file."
        ) from error


def _check_members(path: Path) -> None:
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        root = _stored(archive, size)
        for name in archive.namelist():
            _check_member(name.removeprefix(f"{root}/"), name)
    reader = torch._C.PyTorchFileReader(str(path))  # the one that will open it
    records = {name: reader.get_record_size(name) for name in reader.get_all_records()}
    for name in records:
        _check_member(name)
    if sum(records.values()) > size:
        raise Refused("members that are larger than the file")

    def read(name: str) -> Any:
        if records.get(name, MOST_JSON + 1) > MOST_JSON:
            raise Refused(f"no {name} of less than {MOST_JSON >> 20} MB")
        return json.loads(reader.get_record(name).decode())

    from torch._export.serde import schema

    _check(schema.ExportedProgram, read("models/model.json"), "model")
    for folder in ("weights", "constants"):
        config = read(f"data/{folder}/model_{folder}_config.json")
        _check(schema.PayloadConfig, config, folder)
        for payload in config["config"].values():
            _check_payload(payload, records[f"data/{folder}/{payload['path_name']}"])
    _check_samples(reader.get_record("data/sample_inputs/model.pt"))


def _check_member(name: str, whole: str = "") -> None:
    """Refuse a member that no network needs, and one (`whole`) that lies outside of the folder."""
    if name == whole or not MEMBERS.fullmatch(name):
        raise Refused(f"the member {name[:80]!r}")


def _stored(archive: zipfile.ZipFile, size: int) -> str:
    """The folder that all lies in; nothing is compressed, twice there, or larger than the file."""
    members = archive.infolist()
    names = [member.filename for member in members]
    if len({name.lower() for name in names}) < len(names):
        raise Refused("two members of one name")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise Refused("a compressed member")
    if sum(member.file_size for member in members) > size:
        raise Refused("members that are larger than the file")
    return names[0].partition("/")[0] if names else ""


def _check_payload(payload: Mapping[str, Any], size: int) -> None:
    """Refuse pickled weights, and a tensor that is larger than what is stored of it."""
    if payload["use_pickle"] or payload["tensor_meta"] is None:
        raise Refused("a weight that is pickled")
    if not re.fullmatch(r"(weight|tensor)_\d+", payload["path_name"]):
        raise Refused(f"a weight in {payload['path_name'][:80]!r}")
    sides = [side["as_int"] for side in payload["tensor_meta"]["sizes"]]
    if not size and math.prod(sides):
        raise Refused(f"a weight of {sides} without its numbers")


def _check_samples(data: bytes) -> None:
    """Sample inputs, if any, as an archive of `torch.save` that is not compressed.

    It is read by PyTorch's reader for tensors only, which runs nothing that it finds.
    """
    if not data:
        return
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise Refused("sample inputs that torch.save did not write")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        root = _stored(archive, len(data))
        if any(name.startswith(f"{root}/code/") for name in archive.namelist()):
            raise Refused("a program among the sample inputs")


def _check(kind: Any, value: Any, place: str) -> None:
    """Hold a value to a type of PyTorch's schema, and each text to the rule of its place."""
    outer, inner = typing.get_origin(kind), typing.get_args(kind)
    if outer in (typing.Union, types.UnionType):
        if value is not None:
            _check(next(each for each in inner if each is not type(None)), value, place)
    elif outer is list:
        for each in _as(list, value, place):
            _check(inner[0], each, place)
    elif outer is dict:
        for key, each in _as(dict, value, place).items():
            _rule(f"{place}[]")(key, place)
            _check(inner[1], each, f"{place}.{key}" if f"{place}.{key}" in RULES else place)
    elif dataclasses.is_dataclass(kind):
        _check_fields(kind, _as(dict, value, place))
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        kind(_as(int, value, place))
    elif kind is float and value in ("Infinity", "-Infinity", "NaN"):
        return
    elif kind is float:
        _as((int, float), value, place)
    else:
        _as(kind, value, place)
        if kind is str:
            _rule(place)(value, place)


def _check_fields(kind: Any, value: Mapping[str, Any]) -> None:
    from torch._export.serde.union import _Union

    if any(value[key] for key in value if "custom_obj" in key):
        raise Refused("an object with code of its own")
    hints = _fields(kind)
    if issubclass(kind, _Union) and (len(value) != 1 or not set(value) <= set(hints)):
        raise Refused(f"{sorted(value)[:3]} for {kind.__name__}")
    for name in hints.keys() & value.keys():
        _check(hints[name], value[name], f"{kind.__name__}.{name}")


@cache
def _fields(kind: Any) -> dict[str, Any]:
    from torch._export.serde import schema

    return typing.get_type_hints(kind, globalns=vars(schema))


def _as(kind: type | tuple[type, ...], value: Any, place: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise Refused(f"{type(value).__name__} {str(value)[:60]!r} for {place}")
    return value


def _matching(pattern: re.Pattern[str]) -> Callable[[str, str], None]:
    def check(text: str, place: str) -> None:
        if not pattern.fullmatch(text):
            raise Refused(f"{text[:80]!r} for {place}")

    return check


@lru_cache(maxsize=4096)
def _check_target(text: str, place: str) -> None:
    """An operator by name: of PyTorch's own, without the few that reach files."""
    if ON_SIZES.fullmatch(text) or OF_GRAPHS.fullmatch(text):
        return
    match = OPERATOR.fullmatch(text)
    packet = getattr(getattr(torch.ops, match[1]), match[2], None) if match else None
    overload = getattr(packet, match[3], None) if match else None
    if not isinstance(overload, torch._ops.OpOverload):
        raise Refused(f"{text[:80]!r} for an operator")
    if any(map(_reaches_out, overload._schema.arguments)):
        raise Refused(f"the operator {text[:80]!r}")


def _reaches_out(argument: Any) -> bool:
    kind = str(argument.type)
    return ("str" in kind and argument.name not in WORDS) or any(
        word in kind for word in ("Any", "Storage", "Stream", "RRef", "Future", "classes")
    )


def _check_tree(text: str, place: str) -> None:
    """The structure of inputs or outputs: known types, and keys that are plain text."""
    _, tree = json.loads(text)
    trees = [tree]
    while trees:
        tree = trees.pop()
        kind, context = tree["type"], tree["context"]
        if kind is not None and not TREES.fullmatch(_as(str, kind, place)):
            raise Refused(f"{kind[:80]!r} for {place}")
        if kind == "collections.defaultdict" or not isinstance(context, str | None):
            raise Refused(f"a {kind} for {place}")
        keys = NAME if place.endswith("in_spec") else KEY
        for key in _leaves(_context(context)):
            if isinstance(key, str) and not keys.fullmatch(key):
                raise Refused(f"the key {key[:80]!r} for {place}")
        trees += tree["children_spec"]


def _context(text: str | None) -> Any:
    try:
        return json.loads(text or "null")
    except ValueError:  # the name of a named tuple, as it is
        return text


def _leaves(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        raise Refused("an object among the keys of inputs or outputs")
    for each in value if isinstance(value, list) else [value]:
        yield from _leaves(each) if isinstance(each, list | dict) else [each]


def _check_functions(text: str, place: str) -> None:
    """Functions that are looked up by name below `torch`, and never called."""
    for name in re.split("[,;]", text):
        _matching(DOTTED)(name, place)


def _free(text: str, place: str) -> None:
    """Text that is only ever data."""


RULES: dict[str, Callable[[str, str], None]] = {
    "SymExpr.expr_str": lambda text, place: check_size(text),
    "ExportedProgram.guards_code": lambda text, place: check_guard(text),
    "Node.target": _check_target,
    "Argument.as_operator": _check_target,
    "Node.metadata": _free,
    "Node.metadata.source_fn_stack": _check_functions,
    "ModuleCallSignature.in_spec": _check_tree,
    "ModuleCallSignature.out_spec": _check_tree,
    "NamedArgument.name": lambda text, place: _matching(NAME)(text or "_", place),
    "Device.type": _matching(re.compile("[a-z]{1,20}")),
    "ExportedProgram.verifiers": _matching(re.compile("[A-Z_]{0,40}")),
    "ExportedProgram.torch_version": _free,
    "ExportedProgram.opset_version[]": _matching(DOTTED),
    "Argument.as_string": _free,
    "Argument.as_strings": _free,
    "ExportedProgram.range_constraints[]": lambda text, place: check_size(text),
    "ConstantValue.as_string": _matching(KEY),
    "GraphModule.metadata": _free,
    "GraphModule.metadata[]": _matching(KEY),
    "Node.metadata[]": _matching(KEY),
    "GraphModule.treespec_namedtuple_fields[]": _matching(DOTTED),
    **{
        place: _matching(PATH)
        for place in (
            "InputToParameterSpec.parameter_name", "InputToBufferSpec.buffer_name",
            "InputToTensorConstantSpec.tensor_constant_name", "BufferMutationSpec.buffer_name",
            "ParameterMutationSpec.parameter_name", "GradientToParameterSpec.parameter_name",
            "ModuleCallEntry.fqn", "PayloadConfig.config[]", "PayloadMeta.path_name",
        )
    },
}  # fmt: skip
"""By class and field of PyTorch's schema, keys of tables with []; all others are names."""


def _rule(place: str) -> Callable[[str, str], None]:
    return RULES.get(place, _matching(NAME))
