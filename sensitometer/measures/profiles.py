r"""
Profiles along a path (paper, Figure 2): the density of transitions and the Jacobian norm as functions of the angle.

The angle of a path runs from 0 to $2\pi$: an ellipse's own, and on a polyline $2\pi$ times the share of the parameter's span. At
angles of one's own, such as those of the training points, the norms are `jacobian_norm(model, path.points(angles))`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InvalidInputError, check_whole_number, counted
from ..models.adapting import as_model_takes, shape_taken, unwrapped
from ..networks import MLP, MLPStack, as_stack
from ..paths import Path
from .jacobian.norm import jacobian_norm
from .regions.transitions import transitions


@dataclass(frozen=True)
class PathProfile:
    """
    Sensitivity along one path, in bins of equal angle.

    Attributes
    ----------
    angle
        float64 `[bins]`, the middle of each bin, in radians.
    transition_density
        float64 `[S, bins]`: transitions per radian in each bin.
    jacobian_norm
        float64 `[S, bins]`: at the middle of each bin.
    """

    angle: Tensor
    transition_density: Tensor
    jacobian_norm: Tensor

    def __repr__(self) -> str:
        return f"PathProfile({counted(len(self.jacobian_norm), 'network')}, {counted(len(self.angle), 'bin')})"


def path_profile(
    model: MLP | MLPStack | Callable[[Tensor], Tensor],
    path: Path,
    *,
    bins: int = 128,
    of: str = "probabilities",
    method: str = "exact",
    samples: int = 2**20,
) -> PathProfile:
    """
    Return the density of transitions and the Jacobian norm of networks along a path (paper, S4.1, Figure 2).

    Parameters
    ----------
    model
        An `MLPStack`, or a single model, which is a stack of one here: an `MLP`, or any module that maps points to logits.
    path
        A path of the model's inputs.
    bins
        The number of equal angles that the path is divided into.
    of
        As in `jacobian_norm`.
    method, samples
        As in `transitions`.

    Raises
    ------
    InvalidInputError
        An argument is not as above.
    """
    bins = check_whole_number("bins", bins)
    if not isinstance(path, Path):
        raise InvalidInputError(f"path must be a Polyline or an Ellipse; got {type(path).__name__}")
    model = unwrapped(model)
    measured = as_stack(model) if isinstance(model, MLP | MLPStack) else model
    count = transitions(measured, path, method=method, samples=samples, positions=True)
    positions = count.positions if isinstance(measured, MLPStack) else [count.positions]
    densities = [_density(torch.cat(layers or [torch.zeros(0)]), path.span, bins) for layers in positions]
    angle = (torch.arange(bins, dtype=torch.float64) + 0.5) * (2 * math.pi / bins)
    points = path.points(angle * (path.span / (2 * math.pi)))
    if isinstance(measured, MLPStack):
        points = points.flatten(1).to(measured.weights[0])
    else:
        points = as_model_takes(measured, points)
        points = points.reshape(-1, *shape_taken(measured, points))
    norms = jacobian_norm(measured, points, of=of).double().cpu()
    return PathProfile(angle, torch.stack(densities), norms.view(len(densities), bins))


def _density(positions: Tensor, span: float, bins: int) -> Tensor:
    """Return transitions per radian in each bin, `[bins]`, from their parameters on the path."""
    place = (positions.double().cpu() * (bins / span)).long().clamp(max=bins - 1)
    return torch.bincount(place, minlength=bins).double() * (bins / (2 * math.pi))
