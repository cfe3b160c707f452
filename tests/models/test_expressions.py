"""Symbolic sizes of models are taken; those that grow without end, or are something else, are refused without evaluating them."""

import operator
import time

import pytest
import torch

from sensitometer.models.expressions import UnsafeError, check_arithmetic, check_expression

N = "Symbol('s77', positive=True, integer=True)"


@pytest.mark.parametrize(
    "text",
    [
        N,
        "s0",
        "2*s0 + 1",
        "((s0 - 1)//2) + 1",
        "-s0",
        "Integer(64)",
        f"Mul(Integer(2), {N})",
        f"Add(Mul(Integer(-3), {N}), Integer(9223372036854775807))",
        f"Pow({N}, Integer(2))",
        f"FloorDiv(Add({N}, Integer(-1)), Integer(2))",
        f"Max(Integer(1), Mul({N}, Symbol('s27', integer=True)))",
        f"Mod({N}, Integer(8))",
        f"Eq({N}, Integer(1))",
        "u0 >= 0",
        "(s0 > 1) & (s0 < 5)".replace(" & ", " and "),
    ],
)
def test_sizes_that_models_have(text):
    check_expression(text)


HOSTILE = {
    "tower": "10**10**10**10",
    "tower of calls": "Pow(Integer(10), Pow(Integer(10), Pow(Integer(10), Integer(10))))",
    "high power": "Pow(Integer(9), Integer(999999999))",
    "power of powers": "Pow(Pow(Pow(Pow(Integer(2), Integer(8)), Integer(8)), Integer(8)), Integer(8))",
    "power of a symbol": "Pow(Integer(2), Symbol('s0'))",
    "a symbol to a symbol": "s0**s0**s0",
    "half a power": "s0**0.5",
    "many digits": "9" * 1500,
    "expanded": "*".join(f"(s{number} + 1)" for number in range(30)),
    "power of a sum": "Pow(Add(s0, s1, s2, s3, s4), Integer(8))",
    "long": "+".join(["s0"] * 2000),
    "many parts": "+".join(["s0"] * 500),
    "deep": "(" * 90 + "s0" + ")" * 90 + "".join("+1" for _ in range(40)),
    "deep calls": "floor(" * 60 + "s0" + ")" * 60,
    "signs": "-" * 1900 + "1",
    "brackets": "(" * 1900,
    "a call": "__import__('os').mkdir('evil')",
    "another function": "Lambda(s0, s0)",
    "factorial": "factorial(Integer(999999))",
    "an attribute": "s0.evalf(1000000)",
    "a comprehension": "[s0 for s0 in range(10)]",
    "a lambda": "(lambda: 1)()",
    "a string": "'s0'",
    "a name": "os",
    "a symbol of another name": "Symbol('__import__')",
    "a keyword": "Symbol('s0', commutative=print(1))",
    "precision": "Float('1.0', precision=999999999)",
    "starred": "Add(*range(99))",
    "nothing": "",
    "two lines": "s0\nimport os",
    "a zero byte": "s0\0",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_expressions_that_are_not_evaluated(kind):
    begun = time.monotonic()
    with pytest.raises(UnsafeError):
        check_expression(HOSTILE[kind])
    assert time.monotonic() - begun < 1


def graph(*steps):
    """A graph that computes with the size of its input: each step is a function and its arguments, `last` or a number."""
    made = torch.fx.Graph()
    x = made.placeholder("x")
    last = made.call_function(torch.ops.aten.sym_size.int, (x, 0))
    values = made.call_function(torch.ops.aten.split.Tensor, (x, 1))
    for function, *arguments in steps:
        places = {"last": last, "values": values}
        last = made.call_function(function, tuple(places.get(argument, argument) for argument in arguments))
    return made


def check(made):
    from sensitometer.models.exported import _is_arithmetic, _is_size

    check_arithmetic(made.nodes, _is_arithmetic, _is_size)


def test_arithmetic_that_models_have():
    check(
        graph((operator.mul, "last", 64), (operator.add, "last", -1), (operator.floordiv, "last", 2), (operator.pow, "last", 2))
    )
    check(graph((torch.sym_float, "last"), (operator.mul, "last", 0.5), (operator.pow, "last", 0.5), (torch.sym_int, "last")))


@pytest.mark.parametrize(
    "steps",
    [
        [(operator.mul, "last", "last")] * 40,
        [(operator.pow, "last", "last")] * 3,
        [(operator.pow, 10, 10**9)],
        [(operator.pow, "last", 8)] * 9,
        [(operator.mul, "values", 10**9)],
        [(operator.add, "values", "values")] * 60,
        [(operator.mul, "last", 10**700)],
        [(operator.pow, "last", float("inf"))],
    ],
    ids=["squares", "tower", "high power", "powers", "a list many times", "lists", "large number", "infinite"],
)
def test_arithmetic_that_grows_without_end_is_refused(steps):
    with pytest.raises(UnsafeError):
        check(graph(*steps))
