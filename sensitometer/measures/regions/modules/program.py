"""A module's exported program, sorted: its operations in order, and how they become the stages of a graph."""

import functools
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ....errors import InvalidInputError
from ..graph import Calls, Graph, Linear, Pieces, Stage
from .operations import PiecesOf
from .running import Run


@dataclass(eq=False)
class Op:
    """One operation of a program."""

    name: str  # of its result
    inputs: tuple[str, ...]  # the names of the values that it takes
    run: Run
    # `constant`: of parameters alone; `sized`: of parameters and the number of points; `affine` or `pieces`: of the points.
    kind: str
    shape: tuple[int, ...] = ()  # of a result at one point
    batch: int = 0  # the dimension of the points in the result
    # For `pieces` alone: the pre-activations' name, the operation or how to get it from the constants, and a name for people.
    source: str = ""
    pieces: Pieces | PiecesOf | None = None
    label: str = ""
    target: str = ""  # the operator, for `affine` alone


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
        last_use = {name: place for place, op in enumerate(self.ops) for name in op.inputs} | {self.output: len(self.ops)}
        stages: list[Stage] = []
        alive, calls = [self.input], list[Op]()
        for place, op in enumerate(self.ops):
            if op.kind == "affine":
                calls.append(op)
            if op.kind != "pieces":
                continue
            assert op.pieces is not None
            pieces = op.pieces if isinstance(op.pieces, Pieces) else op.pieces(known)
            later = tuple(name for name in (*alive, *(call.name for call in calls)) if last_use.get(name, 0) > place)
            outputs = tuple(dict.fromkeys([op.source, *later]))
            widths = {name: math.prod(self.by_name[name].shape) for name in outputs}
            width = max(sum(widths.values()), math.prod(op.shape) + sum(widths[name] for name in later))
            affine = self._affine(alive, calls, outputs, known)
            stages.append(Stage(op.label, affine, pieces, op.source, op.name, op.shape, later, width))
            alive, calls = [*later, op.name], []
        return Graph(tuple(stages), self._calls(alive, calls, (self.output,), known), self.input, 1)

    @functools.cached_property
    def by_name(self) -> dict[str, Op]:
        """The operations by their names."""
        return {op.name: op for op in self.ops}

    def _calls(self, alive: Sequence[str], calls: Sequence[Op], outputs: tuple[str, ...], known: Mapping[str, Any]) -> Calls:
        """Return the affine map from what is alive to the outputs."""
        needed = {name for op in calls for name in op.inputs}
        sizes: list[Op] = []
        for op in reversed(self.ops):
            if op.kind == "sized" and op.name in needed:
                sizes.insert(0, op)
                needed |= set(op.inputs)
        batch = {name: self.by_name[name].batch for name in (*alive, *outputs)}
        point = self.by_name[self.input].shape

        def run(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
            values = dict(known)
            rows = len(next(iter(given.values())))
            # Sizes are asked of the points, which may be gone: of points that take no memory.
            values[self.input] = torch.empty(rows, *point, device="meta")
            for op in sizes:
                values[op.name] = op.run(values)
            for name, value in given.items():
                values[name] = value.movedim(0, batch[name]) if batch[name] else value
            for op in calls:
                values[op.name] = op.run(values)
            return {name: values[name].movedim(batch[name], 0) if batch[name] else values[name] for name in outputs}

        numbers = [math.prod(self.by_name[name].shape) for name in (*alive, *(op.name for op in calls))]
        return Calls(run, max(numbers))

    def _affine(
        self, alive: Sequence[str], calls: Sequence[Op], outputs: tuple[str, ...], known: Mapping[str, Any]
    ) -> Linear | Calls:
        """Return the affine map from what is alive to the outputs; `Linear` if it is one matrix product and nothing else."""
        products = [op for op in calls if op.target not in _SAME_NUMBERS]
        if len(alive) == len(outputs) == len(products) == 1 and products[0].target == "linear" and not products[0].batch:
            (op,) = products
            weight, bias = (known.get(name) for name in (*op.inputs[1:], "", "")[:2])
            flat = len(self.by_name[op.inputs[0]].shape) == 1
            if flat and isinstance(weight, Tensor) and math.prod(self.by_name[outputs[0]].shape) == len(weight):
                return Linear(weight.T.contiguous().unsqueeze(0), None if bias is None else bias.unsqueeze(0))
        return self._calls(alive, calls, outputs, known)


# Operations after which the numbers of each point are the same, in the same order, if the points come first on both sides.
_SAME_NUMBERS = {
    *("view", "_unsafe_view", "reshape", "flatten", "clone", "alias", "detach", "contiguous", "dropout", "to", "_to_copy"),
}


def _double(value: Any) -> Any:
    return value.detach().cpu().double() if isinstance(value, Tensor) and value.is_floating_point() else value
