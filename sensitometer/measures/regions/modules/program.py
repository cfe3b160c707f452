"""A module's exported program, sorted: its operations in order, and how they become the stages of a graph."""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ....errors import InvalidInputError
from ..graph import Calls, Graph, Linear, Pieces, Stage


@dataclass(eq=False)
class Op:
    """
    One operation of a program.

    Attributes
    ----------
    name, inputs
        Of what it returns, and of what it takes.
    run
        Evaluates it, from all values by name.
    kind
        `constant`: of parameters alone; `sized`: of parameters and the number of points; `affine` or `pieces`: of the points.
    shape, batch
        Of a value that is a tensor of points: the shape at one point, and which dimension the points are.
    source, pieces
        Of `pieces`: the pre-activations' name, and the operation, from the constants.
    place
        Where it is called, for people.
    """

    name: str
    inputs: tuple[str, ...]
    run: Callable[[Mapping[str, Any]], Any]
    kind: str
    shape: tuple[int, ...] = ()
    batch: int = 0
    source: str = ""
    pieces: Callable[[Mapping[str, Any]], Pieces] | None = None
    place: str = ""
    target: str = ""


@dataclass(frozen=True, eq=False)
class Program:
    """An exported module: its operations in order, its input's and output's names, and where its parameters come from."""

    ops: list[Op]
    input: str
    output: str
    parameters: dict[str, str]
    constants: dict[str, Any]

    @torch.no_grad()
    def bind(self, module: nn.Module) -> Graph:
        """Return the graph with the parameters of the module as they are now; InvalidInputError if they are not finite."""
        known: dict[str, Any] = {name: _double(value) for name, value in self.constants.items()}
        for name, target in self.parameters.items():
            known[name] = _double(operator.attrgetter(target)(module))
            if not known[name].isfinite().all():
                raise InvalidInputError(f"the model's weights must be finite; some of {target} are not")
        for op in self.ops:
            if op.kind == "constant":
                known[op.name] = op.run(known)
        by_name = {op.name: op for op in self.ops}
        stages: list[Stage] = []
        alive, calls = [self.input], list[Op]()
        for place, op in enumerate(self.ops):
            if op.kind == "affine":
                calls.append(op)
            if op.kind != "pieces":
                continue
            assert op.pieces is not None
            later = self._needed(place, by_name)
            outputs = tuple(dict.fromkeys([op.source, *later]))
            affine = self._affine(alive, calls, outputs, known, by_name)
            widths = {name: math.prod(by_name[name].shape) for name in outputs}
            width = max(sum(widths.values()), math.prod(op.shape) + sum(widths[name] for name in later))
            stages.append(Stage(op.place, affine, op.pieces(known), op.source, op.name, op.shape, later, width))
            alive, calls = [*later, op.name], []
        tail = self._calls(alive, calls, (self.output,), known, by_name)
        return Graph(tuple(stages), tail, self.input, by_name[self.input].shape, 1)

    def _needed(self, place: int, by_name: Mapping[str, Op]) -> tuple[str, ...]:
        """Return the values of points that were there before an operation, and are needed after it."""
        used = {name for op in self.ops[place + 1 :] for name in op.inputs} | {self.output}
        before = self.ops[:place]
        return tuple(op.name for op in before if op.kind in ("affine", "pieces", "input") and op.name in used)

    def _calls(
        self,
        alive: Sequence[str],
        calls: Sequence[Op],
        outputs: tuple[str, ...],
        known: Mapping[str, Any],
        by_name: Mapping[str, Op],
    ) -> Calls:
        """Return the affine map from what is alive to the outputs."""
        sized = [op for op in self.ops if op.kind == "sized"]
        needed = {name for op in calls for name in op.inputs}
        used_sizes: list[Op] = []
        for op in reversed(sized):
            if op.name in needed:
                used_sizes.insert(0, op)
                needed |= set(op.inputs)
        batch = {name: by_name[name].batch for name in (*alive, *outputs)}
        input_rank = by_name[self.input]

        def run(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
            values = dict(known)
            rows = len(next(iter(given.values())))
            # Sizes are asked of the points, which may be gone: of points that take no memory.
            values[self.input] = torch.empty(rows, *input_rank.shape, device="meta")
            for op in used_sizes:
                values[op.name] = op.run(values)
            for name, value in given.items():
                values[name] = value.movedim(0, batch[name]) if batch[name] else value
            for op in calls:
                values[op.name] = op.run(values)
            return {name: values[name].movedim(batch[name], 0) if batch[name] else values[name] for name in outputs}

        sizes = [math.prod(by_name[name].shape) for name in (*alive, *(op.name for op in calls))]
        return Calls(run, outputs, max(sizes, default=1))

    def _affine(
        self,
        alive: Sequence[str],
        calls: Sequence[Op],
        outputs: tuple[str, ...],
        known: Mapping[str, Any],
        by_name: Mapping[str, Op],
    ) -> Linear | Calls:
        """Return the affine map from what is alive to the outputs; `Linear` if it is one matrix product and nothing else."""
        products = [op for op in calls if op.target not in _SAME_NUMBERS]
        if len(alive) == len(outputs) == len(products) == 1 and products[0].target == "linear" and not products[0].batch:
            (op,) = products
            weight, bias = (known.get(name) for name in (*op.inputs[1:], "", "")[:2])
            flat = len(by_name[op.inputs[0]].shape) == 1
            if flat and isinstance(weight, Tensor) and math.prod(by_name[outputs[0]].shape) == len(weight):
                return Linear(weight.T.contiguous().unsqueeze(0), None if bias is None else bias.unsqueeze(0))
        return self._calls(alive, calls, outputs, known, by_name)


# Operations after which the numbers of each point are the same, in the same order, if the points come first on both sides.
_SAME_NUMBERS = {
    "view",
    "_unsafe_view",
    "reshape",
    "flatten",
    "clone",
    "alias",
    "detach",
    "contiguous",
    "dropout",
    "to",
    "_to_copy",
}


def _double(value: Any) -> Any:
    return value.detach().cpu().double() if isinstance(value, Tensor) and value.is_floating_point() else value
