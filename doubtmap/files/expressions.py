"""Expressions in a `.pt2` archive, which PyTorch's reader evaluates: arithmetic and no more."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

MOST_TEXT, MOST_BITS, MOST_POWER = 50_000, 4096, 64
CHARACTERS = re.compile(r"[\w ,.()\[\]'+\-*/%<>=!&|~]*", re.ASCII)
"""No line ends, comments, double quotes, braces, lambdas' colons, or letters beyond ASCII."""
SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
COUNTED = re.compile(r"(?:u|zuf)[\d_]{6,}")
"""Symbols of sizes that depend on data, which the reader counts up to one by one."""
NUMBER = re.compile(r"-?\d{1,30}(\.\d{0,30})?(e[+-]?\d{1,3})?")
POWERS = {"Pow", "PowByNatural", "FloatPow", "LShift", "RShift"}
FUNCTIONS = POWERS | {
    "Abs", "Add", "And", "CeilDiv", "CeilToInt", "CleanDiv", "Equality", "ExprCondPair",
    "FloatTrueDiv", "FloorDiv", "FloorToInt", "GreaterThan", "ITE", "Identity", "IntTrueDiv",
    "IsNonOverlappingAndDenseIndicator", "LessThan", "Max", "Min", "Mod", "ModularIndexing",
    "Mul", "Not", "Or", "Piecewise", "PythonMod", "RoundDecimal", "RoundToInt",
    "StrictGreaterThan", "StrictLessThan", "ToFloat", "TruncToFloat", "TruncToInt",
    "Unequality", "Where", "ceiling", "floor",
}  # fmt: skip
"""Classes of SymPy and of PyTorch beside it, as `srepr` writes them."""
ASSUMPTIONS = {
    "integer", "positive", "nonnegative", "negative", "nonpositive", "nonzero", "zero", "real",
    "finite", "even", "odd", "rational", "extended_real", "commutative", "infinite", "complex",
}  # fmt: skip
CONSTANTS = {"true", "false", "oo", "int_oo"}
IN_GUARDS = {"max", "min", "abs", "float", "int"}
METHODS = {"size": 0, "stride": 0, "storage_offset": 0}
ARITHMETIC = (
    ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Div, ast.Mod, ast.Pow, ast.USub, ast.UAdd,
    ast.Not, ast.And, ast.Or, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
    ast.BitAnd, ast.BitOr, ast.Invert,
)  # fmt: skip


class Refused(Exception):
    """What was found in an archive that is not known to be safe, as a noun."""


def check_size(text: str) -> None:
    """Hold the expression of a size, which SymPy would evaluate, to arithmetic on symbols.

    Args:
        text: as `sympy.srepr` writes it, such as `Mul(Integer(8), Symbol('s0', integer=True))`, or
            as plain arithmetic.

    Raises:
        Refused: for any other call or name, and for numbers that would take long to compute.
    """
    _bits(_parsed(text, "size"), _of_size)


def check_guard(text: str) -> None:
    """Hold a guard, which Python would evaluate, to comparisons of the inputs' sizes.

    Args:
        text: such as `L['x'].size()[2] % 8 == 0`.

    Raises:
        Refused: for anything else.
    """
    _bits(_parsed(text, "guard"), _of_guard)


def _parsed(text: str, what: str) -> ast.expr:
    if len(text) > MOST_TEXT or not CHARACTERS.fullmatch(text):
        raise Refused(f"the {what} {text[:60]!r}")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise Refused(f"the {what} {text[:60]!r}") from None


def _bits(node: ast.expr, other: Callable[[ast.expr], int]) -> int:
    """How many bits the value may have, of symbols 64; what is no arithmetic is asked of `other`.

    Raises:
        Refused: for a value that may have more than `MOST_BITS`.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        found = int(node.value).bit_length() if abs(node.value) < 1e300 else MOST_BITS + 1
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ARITHMETIC):
        found = _bits(node.operand, other)
    elif isinstance(node, ast.BoolOp):
        found = max(_bits(each, other) for each in node.values)
    elif isinstance(node, ast.Compare) and all(isinstance(op, ARITHMETIC) for op in node.ops):
        found = max(_bits(each, other) for each in (node.left, *node.comparators))
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        found = _bits(node.left, other) * _power(node.right)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ARITHMETIC):
        found = _bits(node.left, other) + _bits(node.right, other) + 1
    else:
        found = other(node)
    if found > MOST_BITS:
        raise Refused("a size or guard with numbers beyond all use")
    return found


def _power(node: ast.expr) -> int:
    """An exponent, which is a small number."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return _power(node.operand)
    if isinstance(node, ast.Call) and _called(node) in ("Integer", "Rational") and node.args:
        return max(map(_power, node.args))
    value: object = getattr(node, "value", None)
    if not isinstance(value, int | float) or not 0 <= value <= MOST_POWER:
        raise Refused(f"the power {ast.unparse(node)[:60]!r}")
    return int(value) + 1


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _of_size(node: ast.expr) -> int:
    """Bits of a symbol, a number or a call of SymPy's."""
    if isinstance(node, ast.Name):
        return _symbol(node.id) if node.id not in CONSTANTS else 1
    if not isinstance(node, ast.Call):
        raise Refused(f"{ast.unparse(node)[:60]!r} in a size")
    name = _called(node)
    if name == "Symbol" and len(node.args) == 1 and all(map(_assumed, node.keywords)):
        return _symbol(getattr(node.args[0], "value", None))
    if name == "Float" and len(node.args) == 1 and all(map(_precise, node.keywords)):
        return _number(getattr(node.args[0], "value", None))
    if node.keywords:
        raise Refused(f"{ast.unparse(node)[:60]!r} in a size")
    if name in ("Integer", "Rational"):
        return sum(_bits(each, _no_other) for each in node.args)
    if name in POWERS and len(node.args) == 2:
        return _bits(node.args[0], _of_size) * _power(node.args[1])
    if name not in FUNCTIONS:
        raise Refused(f"{ast.unparse(node)[:60]!r} in a size")
    return sum(_bits(each, _of_size) for each in node.args) + 1 if node.args else 1


def _no_other(node: ast.expr) -> int:
    raise Refused(f"{ast.unparse(node)[:60]!r} for a number")


def _symbol(name: object) -> int:
    plain = isinstance(name, str) and SYMBOL.fullmatch(name) and "__" not in name
    if not plain or COUNTED.fullmatch(str(name)):
        raise Refused(f"the symbol {str(name)[:60]!r}")
    return 64


def _number(text: object) -> int:
    if not isinstance(text, str) or not NUMBER.fullmatch(text):
        raise Refused(f"the number {str(text)[:60]!r}")
    return 64


def _assumed(keyword: ast.keyword) -> bool:
    value = getattr(keyword.value, "value", None)
    return keyword.arg in ASSUMPTIONS and isinstance(value, bool)


def _precise(keyword: ast.keyword) -> bool:
    value = getattr(keyword.value, "value", None)
    return keyword.arg in ("precision", "dps") and type(value) is int and 0 < value <= 64


def _of_guard(node: ast.expr) -> int:
    """Bits of a side of an input, or of the largest of several."""
    if isinstance(node, ast.Subscript) and type(_index(node)) is int:
        return _of_guard(node.value)
    if isinstance(node, ast.Call) and not node.keywords:
        if _called(node) in IN_GUARDS or _dotted(node.func) in ALLOWED_CALLS:
            return sum(_bits(each, _of_guard) for each in node.args) + 1
        if isinstance(node.func, ast.Attribute) and node.func.attr in METHODS and not node.args:
            _input(node.func.value)
            return 64
    _input(node)
    return 64


ALLOWED_CALLS = {
    "math.ceil", "math.floor", "math.trunc", "math.sqrt", "torch.sym_float", "torch.sym_int",
    "torch.sym_max", "torch.sym_min", "torch.sym_not", "torch._sym_sqrt",
}  # fmt: skip


def _dotted(node: ast.expr) -> str:
    plain = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    return f"{node.value.id}.{node.attr}" if plain else ""  # type: ignore[attr-defined]


def _index(node: ast.Subscript) -> object:
    return getattr(node.slice, "value", None)


def _input(node: ast.expr) -> None:
    """Hold a node to `L['name']`, or to a part of that by name or place."""
    while isinstance(node, ast.Subscript):
        index = _index(node)
        if not (type(index) is int or (isinstance(index, str) and SYMBOL.fullmatch(index))):
            raise Refused(f"{ast.unparse(node)[:60]!r} in a guard")
        node = node.value
    if not isinstance(node, ast.Name) or node.id != "L":
        raise Refused(f"{ast.unparse(node)[:60]!r} in a guard")
