"""
Symbolic sizes that a file of a stranger states, such as `Mul(Integer(8), Symbol('s0'))`, and whether they are safe to evaluate.

The numbers of some grow without end: `Pow(10, Pow(10, Pow(10, 10)))`, or a product of sums, multiplied out. So an expression is
read here first, without evaluating anything: how many bits its value takes at most, and how many terms it has when it is
multiplied out. The same holds for arithmetic on sizes in a graph, node by node.
"""

import ast
import operator
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

LONGEST = 2000
# Limits: far above what models have, and low enough to be evaluated at once.
MOST_BITS, MOST_TERMS, MOST_PARTS, DEEPEST, LARGEST_POWER = 2048, 64, 100, 16, 8
# A size has at most this many bits.
SIZE_BITS = 64

_SYMBOL = re.compile(r"[suz]\w?\d{1,9}|zuf\d{1,9}|zf\d{1,9}", re.ASCII)
_ASSUMPTIONS = {
    *("integer", "positive", "nonnegative", "negative", "nonpositive", "nonzero", "zero", "real", "finite", "even", "odd"),
    *("extended_real", "rational"),
}
_SUMS = {"Add", "Max", "Min"}
_PRODUCTS = {"Mul"}
_POWERS = {"Pow", "PowByNatural"}
# Their value is no larger than that of their arguments.
_OTHERS = {
    *("Mod", "PythonMod", "FloorDiv", "CleanDiv", "CeilDiv", "CeilToInt", "FloorToInt", "IntTrueDiv", "FloatTrueDiv"),
    *("TruncToInt", "ToFloat", "Identity", "Rational", "floor", "ceiling", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "Equality"),
    *("Unequality", "StrictLessThan", "LessThan", "StrictGreaterThan", "GreaterThan", "And", "Or", "Not"),
}


class UnsafeError(ValueError):
    """An expression is none that is evaluated."""


class _Size(NamedTuple):
    """The most that an expression may come to."""

    bits: int
    terms: int


def check_expression(text: str) -> None:
    """Raise UnsafeError unless a symbolic size is arithmetic on whole numbers and symbols, and small, however it is evaluated."""
    if len(text) > LONGEST:
        raise UnsafeError("it is too long")
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UnsafeError("it is no expression") from error
    if sum(1 for _ in ast.walk(tree)) > 4 * MOST_PARTS:
        raise UnsafeError("it has too many parts")
    _measure(tree, 0)


def _measure(node: ast.expr, depth: int) -> _Size:
    """Return the most that a part comes to; UnsafeError if that is too much, or the part is of another kind."""
    if depth > DEEPEST:
        raise UnsafeError("it is nested too deeply")
    size = _measured(node, depth + 1)
    if size.bits > MOST_BITS or size.terms > MOST_TERMS:
        raise UnsafeError("it grows too large")
    return size


def _measured(node: ast.expr, depth: int) -> _Size:
    match node:
        case ast.Constant(value=bool()):
            return _Size(1, 1)
        case ast.Constant(value=int() as number):
            return _Size(number.bit_length(), 1)
        case ast.Name(id="True" | "False" | "oo"):
            return _Size(1, 1)
        case ast.Name(id=name) if _SYMBOL.fullmatch(name):
            return _Size(SIZE_BITS, 1)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() | ast.Not(), operand=operand):
            return _measure(operand, depth)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_measure(left, depth), _whole(right))
        case ast.BinOp(left=left, op=kind, right=right):
            sizes = [_measure(left, depth), _measure(right, depth)]
            if isinstance(kind, ast.Mult):
                return _product(sizes)
            if isinstance(kind, ast.Add | ast.Sub):
                return _sum(sizes)
            if isinstance(kind, ast.Div | ast.FloorDiv | ast.Mod):
                return _largest(sizes)
        case ast.Compare(left=left, comparators=others):
            return _largest([_measure(part, depth) for part in (left, *others)])
        case ast.BoolOp(values=values):
            return _largest([_measure(part, depth) for part in values])
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords):
            return _called(name, arguments, keywords, depth)
    raise UnsafeError("it has a part of another kind")


def _called(name: str, arguments: list[ast.expr], keywords: list[ast.keyword], depth: int) -> _Size:
    if name == "Symbol":
        flags = all(keyword.arg in _ASSUMPTIONS and isinstance(keyword.value, ast.Constant | ast.Name) for keyword in keywords)
        match arguments:
            case [ast.Constant(value=str() as symbol)] if flags and _SYMBOL.fullmatch(symbol):
                return _Size(SIZE_BITS, 1)
        raise UnsafeError("it has a symbol of another kind")
    if keywords:
        raise UnsafeError("it has a part of another kind")
    if name in ("Integer", "Float") and len(arguments) == 1:
        return _Size(max(1, abs(_whole(arguments[0])).bit_length()), 1)
    if name in _POWERS and len(arguments) == 2:
        return _power(_measure(arguments[0], depth), _whole(arguments[1]))
    if name in _SUMS | _PRODUCTS | _OTHERS and arguments:
        sizes = [_measure(argument, depth) for argument in arguments]
        return (_sum if name in _SUMS else _product if name in _PRODUCTS else _largest)(sizes)
    raise UnsafeError("it calls another function")


def _whole(node: ast.expr) -> int:
    """Return the whole number that a part is: `2`, `-1` or `Integer(2)`."""
    match node:
        case ast.Constant(value=int() as number):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_whole(operand)
        case ast.Call(func=ast.Name(id="Integer"), args=[argument], keywords=[]) if not isinstance(argument, ast.Call):
            return _whole(argument)
    raise UnsafeError("it has a power or a number that is no whole one")


def _sum(sizes: list[_Size]) -> _Size:
    return _Size(max(size.bits for size in sizes) + len(sizes).bit_length(), sum(size.terms for size in sizes))


def _product(sizes: list[_Size]) -> _Size:
    terms = 1
    for size in sizes:
        terms *= size.terms
    return _Size(sum(size.bits for size in sizes), terms)


def _largest(sizes: list[_Size]) -> _Size:
    return _Size(max(size.bits for size in sizes), sum(size.terms for size in sizes))


def _power(base: _Size, exponent: int) -> _Size:
    if abs(exponent) > LARGEST_POWER:
        raise UnsafeError("it has a high power")
    return _Size(base.bits * max(1, abs(exponent)), base.terms ** abs(exponent))


# --- arithmetic in graphs

_GROWING: dict[Callable[..., Any], Callable[[list[_Size]], _Size]] = {
    operator.mul: _product,
    operator.add: _sum,
    operator.sub: _sum,
}


def check_arithmetic(nodes: Iterable[Any], is_arithmetic: Callable[[Any], bool], is_size: Callable[[Any], bool]) -> None:
    """
    Raise UnsafeError if arithmetic on sizes in a graph may grow without end, or is on something else than sizes.

    Parameters
    ----------
    nodes
        The nodes of a `torch.fx.Graph`, in order.
    is_arithmetic
        Whether the target of a node is a function of Python on numbers.
    is_size
        Whether the target of a node gives a number.
    """
    sizes: dict[Any, _Size] = {}
    for node in nodes:
        if node.op == "placeholder" or (node.op == "call_function" and is_size(node.target)):
            sizes[node] = _Size(SIZE_BITS, 1)
        elif node.op == "call_function" and is_arithmetic(node.target):
            sizes[node] = _of_node(node, sizes)


def _of_node(node: Any, sizes: dict[Any, _Size]) -> _Size:
    operands = []
    for argument in (*node.args, *node.kwargs.values()):
        if isinstance(argument, int | float):
            operands.append(_Size(int(argument).bit_length() if abs(argument) < 2**SIZE_BITS else MOST_BITS + 1, 1))
        elif argument in sizes:
            operands.append(sizes[argument])
        else:
            raise UnsafeError(f"{node.name} computes with something else than sizes")
    if node.target is operator.pow:
        exponent = node.args[1]
        if not isinstance(exponent, int | float) or not abs(exponent) <= LARGEST_POWER:
            raise UnsafeError(f"{node.name} is a high power of a size")
        size = _power(operands[0], int(exponent))
    else:
        size = _GROWING.get(node.target, _largest)(operands)
    if size.bits > MOST_BITS:
        raise UnsafeError(f"{node.name} grows too large")
    # Numbers alone: nothing is multiplied out.
    return _Size(size.bits, 1)
