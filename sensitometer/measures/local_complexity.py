r"""
Local complexity: how many units change their linear piece near a point (Humayun et al. 2023, arXiv:2310.12977).

With $v_1, \ldots, v_P$ orthonormal directions, the same for all points, and $r = \rho \|x\|_2$, the neighbours of a point are
$x \pm r v_j$, the corners of a cross-polytope. The measure is the number of hidden units u whose code differs among them:

$$ \mathrm{LC}(x) = \sum_u \left[ \min_{j, \pm} c_u(x \pm r v_j) < \max_{j, \pm} c_u(x \pm r v_j) \right] $$

Each such unit has a boundary that cuts the cross-polytope. A boundary that enters and leaves it between the corners is not seen.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..activations import activation
from ..errors import InvalidInputError, check_whole_number
from ..models.adapting import AdaptedModel, unwrapped
from ..networks import MLP, MLPStack
from ..randomness import generator
from .jacobian.norm import check_arguments
from .module_codes import ModuleCodes
from .sampled import codes_of, preactivations

DIRECTIONS = 20
# Numbers in a chunk of neighbours, or of their units: of a layer of an MLP, of all layers of any other model.
MLP_CHUNK = 2**18
MODULE_CHUNK = 2**22


def local_complexity(
    model: MLP | MLPStack | Callable[..., Any],
    x: Tensor,
    *,
    radius: float = 0.05,
    directions: int | None = None,
    seed: int = 0,
    output: str | int | None = None,
) -> Tensor:
    r"""
    Return how many hidden units change their linear piece near each point: the module's docstring has the formula.

    Parameters
    ----------
    model
        An `MLP`, an `MLPStack`, or any module or callable that maps points `[n, ...]` to outputs, each from its own point alone,
        and calls activations that `ModuleCodes` knows. A smooth activation has one boundary, where its argument changes sign. A
        model of half precision is measured in a float32 copy.
    x
        The points: `[N, D]` for an `MLP` or `MLPStack`, `[N, ...]` for any other model.
    radius
        The distance of the neighbours over the norm of the point, $\rho$; more than 0. Codes are taken in the model's own
        precision: the radius should be far above it.
    directions
        The number of directions P, at most the number of inputs; the point has 2 P neighbours. None: 20, or all dimensions of
        inputs that have fewer.
    seed
        Seed of the random directions.
    output
        As in `jacobian_norm`, of a model that returns several.

    Returns
    -------
    Tensor
        int64 `[N]`, or `[S, N]` for a stack.

    Raises
    ------
    InvalidInputError
        An argument is not as above.

    Examples
    --------
    >>> import torch
    >>> from sensitometer.measures import local_complexity
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    >>> model[0].weight.data, model[0].bias.data = torch.eye(2), torch.tensor([-1.0, -5.0])
    >>> local_complexity(model, torch.tensor([[1.0, 0.0], [3.0, 5.0]]))
    tensor([1, 1])
    """
    check_arguments(x, "logits", None)
    if not isinstance(radius, int | float) or isinstance(radius, bool) or not 0 < radius < float("inf"):
        raise InvalidInputError(f"radius must be a number above 0, such as 0.05; got {radius!r}")
    model = unwrapped(model)
    D = x[0].numel()
    P = check_whole_number("directions", min(DIRECTIONS, D) if directions is None else directions, most=D)
    frame = _frame(D, P, check_whole_number("seed", seed, least=0))
    with torch.no_grad():
        if isinstance(model, MLP | MLPStack):
            return _of_networks(model, x, radius, frame)
        adapted = AdaptedModel(model, x, output=output)
        return _of_module(adapted, adapted.points(x), radius, frame)


def _frame(D: int, P: int, seed: int) -> Tensor:
    """Return the neighbours of the point 0 at distance 1: `[v_1, ..., v_P, -v_1, ..., -v_P]`, float64 `[2 P, D]`."""
    directions = torch.linalg.qr(torch.randn(D, P, generator=generator(seed, "local complexity"), dtype=torch.float64)).Q.T
    return torch.cat([directions, -directions])


def _of_networks(model: MLP | MLPStack, x: Tensor, radius: float, frame: Tensor) -> Tensor:
    inputs = model.weights[0].shape[-1]
    if x.ndim != 2 or x.shape[1] != inputs:
        raise InvalidInputError(f"x must be points [N, {inputs}]; got {list(x.shape)}")
    if isinstance(model, MLP):
        return _of_network(model, x, radius, frame)
    return torch.stack([_of_network(model[place], x, radius, frame) for place in range(len(model))])


def _of_network(network: MLP, x: Tensor, radius: float, frame: Tensor) -> Tensor:
    """Return the measure of one network, int64 `[N]`; the first layer is linear, and multiplied by points and frame alone."""
    weight = network.weights[0]
    x = x.to(weight)
    radii = radius * x.norm(dim=1)
    centres, offsets = x @ weight.T, frame.to(weight) @ weight.T
    boundaries = activation(network.activation).boundaries
    counts = []
    size = max(1, MLP_CHUNK // (len(frame) * max(len(weight) for weight in network.weights)))
    for place in (slice(start, start + size) for start in range(0, len(x), size)):
        z = (centres[place].unsqueeze(1) + radii[place].view(-1, 1, 1) * offsets).flatten(0, 1)
        n = len(centres[place])
        count = torch.zeros(n, dtype=torch.int64, device=x.device)
        for values in _hidden(network, z):
            codes = codes_of(values, boundaries).view(n, len(frame), -1)
            count += (codes.amin(1) < codes.amax(1)).sum(1)
        counts.append(count)
    return torch.cat(counts)


def _hidden(network: MLP, z: Tensor) -> Iterator[Tensor]:
    """Yield the pre-activations of the hidden layers, from the first layer's `z`; the next overwrites them."""
    for _, values in zip(network.weights[1:], preactivations(network, z), strict=False):
        yield values


def _of_module(model: Callable[[Tensor], Tensor], x: Tensor, radius: float, frame: Tensor) -> Tensor:
    """Return the measure of any other model, int64 `[N]`: a point's neighbours in parts, where memory is short for all."""
    codes_at = ModuleCodes(model, x[: min(len(x), 7)])
    units = sum(codes.shape[1] for codes in codes_at(x[:1]))
    rows = max(1, MODULE_CHUNK // max(units, x[0].numel()))
    size, part = max(1, rows // len(frame)), min(rows, len(frame))
    frame = frame.to(x)
    counts = []
    for points in torch.split(x, size):
        flat = points.flatten(1)
        radii = radius * flat.norm(dim=1)
        lowest: list[Tensor] = []
        highest: list[Tensor] = []
        for offsets in torch.split(frame, part):
            neighbours = flat.unsqueeze(1) + radii.view(-1, 1, 1) * offsets
            layers = [codes.view(len(points), len(offsets), -1) for codes in codes_at(neighbours.view(-1, *x.shape[1:]))]
            lows, highs = [codes.amin(1) for codes in layers], [codes.amax(1) for codes in layers]
            lowest = list(map(torch.minimum, lows, lowest or lows))
            highest = list(map(torch.maximum, highs, highest or highs))
        counts.append(torch.stack([(low < high).sum(1) for low, high in zip(lowest, highest, strict=True)]).sum(0))
    return torch.cat(counts)
