"""Limited-memory BFGS on the whole training set, each network of a stack on its own."""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .line_search import CURVATURE, Answer, strong_wolfe

# The defaults of scipy's L-BFGS, which TensorFlow 1 calls: pairs kept, the largest entry of a gradient that is as good as 0, and
# the relative decrease of the loss that is none.
HISTORY = 10
GRADIENT_TOLERANCE = 1e-5
CHANGE_TOLERANCE = 2.2e-9
# Pairs of less curvature, relative to the gradients' change, would make the direction's length a matter of rounding.
LEAST_CURVATURE = 1e-10
# Weights whose products are summed at a time: temporary numbers stay in the cache.
PIECE = 2**15
# The state: each network has one row of the vectors, one column of the rings, one entry of the lists.
_VECTORS = ("points", "trials", "gradients", "directions")
_RINGS = ("steps", "changes", "curvatures")
_NUMBERS = ("kept", "values", "done", "finished", "begun")


@dataclass
class _Search:
    """One network's line search. It can be saved: its state is its beginning and the answers that it was sent."""

    curvature: float
    value: float
    slope: float
    first: float
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._steps: Generator[float, Answer, bool] = strong_wolfe(self.value, self.slope, self.first, self.curvature)
        self.step = next(self._steps)
        answers, self.answers = self.answers, []
        for answer in answers:
            self.tell(*answer)

    def tell(self, value: float, slope: float) -> bool | None:
        """Take the loss and slope at `step`; return None and set the next step, or whether the search ended well."""
        self.answers.append((value, slope))
        try:
            self.step = self._steps.send((value, slope))
        except StopIteration as end:
            return bool(end.value)
        return None


class LBFGS:
    r"""
    Limited-memory BFGS (Nocedal and Wright, algorithms 7.4 and 7.5) with a strong-Wolfe line search, for `S` networks at once.

    Its caller evaluates the loss and its gradient at `trials`, calls `tell`, and repeats. Each network has a history, a line
    search and a stopping state of its own, and takes one evaluation per round. (`torch.optim.LBFGS` of several networks has one
    direction, one step and one test of convergence for all.)

    A network is finished when the largest entry of its gradient is at most `gradient_tolerance`; or the relative decrease of its
    loss in an iteration at most `change_tolerance`; or no step down its gradient decreases the loss; or after `iterations`
    iterations; or when its first loss is not finite.

    Parameters
    ----------
    points
        The initial weights, `[S, P]`; copied.
    iterations, history, curvature
        The most iterations of each network, the number of pairs kept, and $c_2$ of the strong Wolfe conditions.
    renewed
        Whether the objective changes with every iteration, as with augmentation: a network is then evaluated once more between
        the end of an iteration and the beginning of the next.

    Attributes
    ----------
    points, trials
        Where the last iteration of each network ended, and where to evaluate next; `[S, P]`.
    done, finished, begun
        The iterations of each network, whether it is finished and left as it is, and whether it is at the beginning of an
        iteration, where a renewed objective may change; lists of `S`.
    """

    def __init__(
        self,
        points: Tensor,
        iterations: int,
        *,
        history: int = HISTORY,
        gradient_tolerance: float = GRADIENT_TOLERANCE,
        change_tolerance: float = CHANGE_TOLERANCE,
        curvature: float = CURVATURE,
        renewed: bool = False,
    ) -> None:
        S = len(points)
        self.iterations, self.history, self.curvature, self.renewed = iterations, history, curvature, renewed
        # A renewed objective is not at its minimum because one draw of it is.
        self.gradient_tolerance = 0.0 if renewed else gradient_tolerance
        self.change_tolerance = change_tolerance
        self.points, self.trials = points.clone(), points.clone()
        self.gradients, self.directions = torch.zeros_like(points), torch.zeros_like(points)
        # Pairs lie in a ring: the newest of network i is at place (kept[i] - 1) % history.
        self.steps, self.changes = (points.new_zeros(history, *points.shape) for _ in range(2))
        self.curvatures = points.new_zeros(history, S, dtype=torch.float64)
        self.kept = [0] * S
        self.values = [math.nan] * S
        self.done = [0] * S
        self.finished = [iterations == 0] * S
        self.begun = [True] * S
        self.searches: list[_Search | None] = [None] * S

    def tell(self, values: Tensor, gradients: Tensor) -> None:
        """Take the losses `[S]`, float64, and gradients `[S, P]` at `trials`, and set the next trials."""
        slopes = _dot(gradients, self.directions)
        largest = torch.linalg.vector_norm(gradients, torch.inf, dim=1).double()
        # One transfer from the device a round: the searches are Python's.
        numbers: list[list[float]] = torch.stack([values, slopes, largest], 1).tolist()
        moved, started, turning = [], [], []
        for i, (value, slope, steepest) in enumerate(numbers):
            search = self.searches[i]
            if self.finished[i]:
                continue
            if search is None:
                started.append(i)
                self.values[i] = value
                self.finished[i] = not math.isfinite(value) or steepest <= self.gradient_tolerance
                turning.append(i)
            elif (well := search.tell(value, slope)) is not None:
                self.searches[i] = None
                if well:
                    moved.append(i)
                    self._end_iteration(i, value, steepest)
                    self.begun[i] = self.renewed
                elif self.kept[i] == 0:
                    self.finished[i] = True
                else:
                    self.kept[i] = 0  # once more, down the gradient
                if not (well and self.renewed):
                    turning.append(i)
        self._keep(moved, gradients)
        for kept, new, rows in ((self.gradients, gradients, started + moved), (self.points, self.trials, moved)):
            if rows:
                kept[self._index(rows)] = _rows(new, rows)
        self._turn([i for i in turning if not self.finished[i]])
        # Each network goes from its point along its direction by the step of its search, and stays where there is none.
        steps = [search.step if search else 0.0 for search in self.searches]
        lengths = torch.tensor(steps, dtype=torch.float64, device=self.points.device).to(self.points)
        torch.addcmul(self.points, self.directions, lengths.unsqueeze(1), out=self.trials)

    def _end_iteration(self, i: int, value: float, steepest: float) -> None:
        before, self.values[i] = self.values[i], value
        self.done[i] += 1
        small = before - value <= self.change_tolerance * max(abs(before), abs(value), 1.0)
        converged = steepest <= self.gradient_tolerance or (small and not self.renewed)
        self.finished[i] = converged or self.done[i] >= self.iterations

    def _keep(self, moved: Sequence[int], gradients: Tensor) -> None:
        """Put the step and the gradient's change of the networks that moved into their histories."""
        if not moved:
            return
        steps = _rows(self.trials, moved) - _rows(self.points, moved)
        changes = _rows(gradients, moved) - _rows(self.gradients, moved)
        curvatures = _dot(steps, changes)
        enough = (curvatures > LEAST_CURVATURE * _dot(changes, changes)).tolist()
        for row, i in enumerate(moved):
            if enough[row]:
                place = self.kept[i] % self.history
                self.steps[place, i], self.changes[place, i] = steps[row], changes[row]
                self.curvatures[place, i] = curvatures[row]
                self.kept[i] += 1

    def _turn(self, turning: Sequence[int]) -> None:
        """Set new directions for some networks, and begin their line searches."""
        if not turning:
            return
        gradients = _rows(self.gradients, turning)
        directions = self._two_loops(turning, gradients)
        slopes = _dot(gradients, directions)
        uphill = ~(slopes < 0)
        if uphill.any():
            directions[uphill] = -gradients[uphill]
            slopes = _dot(gradients, directions)
            for row in uphill.nonzero().flatten().tolist():
                self.kept[turning[row]] = 0
        self.directions[self._index(turning)] = directions
        norms: list[float] = _dot(gradients, gradients).sqrt().tolist()
        for i, slope, norm in zip(turning, slopes.tolist(), norms, strict=True):
            # Without curvature to tell the length, the first trial moves the weights by at most 1.
            first = 1.0 if self.kept[i] else min(1.0, 1.0 / norm)
            self.searches[i] = _Search(self.curvature, self.values[i], slope, first)
            self.begun[i] = False

    def _two_loops(self, turning: Sequence[int], gradients: Tensor) -> Tensor:
        r"""Return $-H g$ of some networks, `[n, P]` (Nocedal and Wright, algorithm 7.4)."""
        kept = [self.kept[i] for i in turning]
        counts = torch.tensor(kept, device=gradients.device)
        q = -gradients
        loops = []
        for back in range(min(self.history, max(kept))):
            rows = [(self.kept[i] - 1 - back) % self.history * len(self.kept) + i for i in turning]
            step, change, curvature = (_rows(ring.flatten(0, 1), rows) for ring in (self.steps, self.changes, self.curvatures))
            # Networks that have fewer pairs are left alone by a factor of 0.
            rho = torch.where(back < counts, 1 / curvature, 0.0)
            alpha = rho * _dot(step, q)
            q.addcmul_(alpha.to(q).unsqueeze(1), change, value=-1)
            loops.append((step, change, rho, alpha))
        if loops:
            _, change, rho, _ = loops[0]
            length = torch.where(counts > 0, 1 / (rho * _dot(change, change)), 1.0)
            q *= length.to(q).unsqueeze(1)
        for step, change, rho, alpha in reversed(loops):
            beta = rho * _dot(change, q)
            q.addcmul_((alpha - beta).to(q).unsqueeze(1), step)
        return q

    def _index(self, rows: Sequence[int]) -> Tensor:
        return torch.tensor(rows, device=self.points.device)

    def select(self, staying: Sequence[int]) -> None:
        """Keep the networks at these places only."""
        where = self._index(staying)
        for name in _VECTORS:
            setattr(self, name, getattr(self, name)[where])
        for name in _RINGS:
            setattr(self, name, getattr(self, name)[:, where])
        for name in (*_NUMBERS, "searches"):
            setattr(self, name, [getattr(self, name)[i] for i in staying])

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return everything that decides how it goes on: tensors by name, and what JSON can hold."""
        searches = [search and (search.value, search.slope, search.first, search.answers) for search in self.searches]
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        return {name: getattr(self, name) for name in (*_VECTORS, *_RINGS)}, {**numbers, "searches": searches}

    def load_state(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        for name, tensor in tensors.items():
            setattr(self, name, tensor.to(self.points.device))
        for name in _NUMBERS:
            setattr(self, name, numbers[name])
        self.searches = [saved and _Search(self.curvature, *saved) for saved in numbers["searches"]]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner products of rows, `[S]`, in float64: float32 does not hold the squares of large or small gradients."""
    pieces = zip(a.split(PIECE, 1), b.split(PIECE, 1), strict=True)  # type: ignore[no-untyped-call]
    return torch.stack([(x.double() * y.double()).sum(1) for x, y in pieces]).sum(0)


def _rows(tensor: Tensor, rows: Sequence[int]) -> Tensor:
    """Return these rows: of a single network a view, which for the widest networks spares gigabytes."""
    return tensor[rows[0] : rows[0] + 1] if len(rows) == 1 else tensor[torch.tensor(rows, device=tensor.device)]
