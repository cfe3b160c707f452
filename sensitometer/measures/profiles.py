r"""
Profiles along a path (paper, Figure 2): the density of transitions and the Jacobian norm as functions of the angle.

The angle of a path runs from 0 to $2\pi$: an ellipse's own, and on a polyline $2\pi$ times the share of the parameter's span. At
angles of one's own, such as those of the training points, the norms are `jacobian_norm(model, path.points(angles))`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InvalidInputError
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
        float64 `[S, bins]`: transitions in a bin over its width, a radian.
    jacobian_norm
        float64 `[S, bins]`: at the middle of each bin.
    """

    angle: Tensor
    transition_density: Tensor
    jacobian_norm: Tensor


@dataclass(frozen=True)
class AverageProfile:
    """
    The mean over networks of what `PathProfile` has, and its standard error: standard deviation over the root of their number.

    Attributes
    ----------
    angle, transition_density, transition_density_sem, jacobian_norm, jacobian_norm_sem
        float64 `[bins]`; the errors of a single network are nan.
    networks
        How many they are.
    """

    angle: Tensor
    transition_density: Tensor
    transition_density_sem: Tensor
    jacobian_norm: Tensor
    jacobian_norm_sem: Tensor
    networks: int


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
        Into how many equal angles the path is divided.
    of
        As in `jacobian_norm`.
    method, samples
        How transitions are counted: see `transitions`.

    Raises
    ------
    InvalidInputError
        An argument is not as above.
    """
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
        raise InvalidInputError(f"bins must be a whole number of at least 1; got {bins!r}")
    if not isinstance(path, Path):
        raise InvalidInputError(f"path must be a Polyline or an Ellipse; got {type(path).__name__}")
    network = isinstance(model, MLP | MLPStack)
    measured = as_stack(model) if isinstance(model, MLP | MLPStack) else model
    found = transitions(measured, path, method=method, samples=samples, positions=True)
    densities = [
        _density(torch.cat(layers or [torch.zeros(0)]), path.span, bins)
        for layers in (found.positions if network else [found.positions])
    ]
    angle = (torch.arange(bins, dtype=torch.float64) + 0.5) * (2 * math.pi / bins)
    points = path.points(angle * (path.span / (2 * math.pi)))
    if isinstance(measured, MLPStack):
        points = points.flatten(1).to(measured.weights[0])
    norms = jacobian_norm(measured, points, of=of).double().cpu()
    return PathProfile(angle, torch.stack(densities), norms if network else norms.unsqueeze(0))


def _density(positions: Tensor, span: float, bins: int) -> Tensor:
    """Return transitions a radian in each bin, `[bins]`, from the parameters at which they are."""
    place = (positions.double().cpu() * (bins / span)).long().clamp(max=bins - 1)
    return torch.bincount(place, minlength=bins).double() * (bins / (2 * math.pi))


def average_profile(profiles: Sequence[PathProfile]) -> AverageProfile:
    """
    Average profiles of one path or of a path for each network, every network of each profile counting once (paper, A.5.1).

    Raises
    ------
    InvalidInputError
        There are none, or their bins differ.
    """
    if not isinstance(profiles, Sequence) or not profiles or not all(isinstance(one, PathProfile) for one in profiles):
        raise InvalidInputError("profiles must be a list of PathProfile, at least one")
    bins = {len(one.angle) for one in profiles}
    if len(bins) > 1:
        raise InvalidInputError(f"profiles must have the same bins; got {', '.join(map(str, sorted(bins)))}")
    densities, density_errors = _mean_and_error(torch.cat([one.transition_density for one in profiles]))
    norms, norm_errors = _mean_and_error(torch.cat([one.jacobian_norm for one in profiles]))
    networks = sum(len(one.jacobian_norm) for one in profiles)
    return AverageProfile(profiles[0].angle, densities, density_errors, norms, norm_errors, networks)


def _mean_and_error(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean over the first dimension and its standard error, nan where it is 1 long."""
    error = values.std(0) / math.sqrt(len(values)) if len(values) > 1 else torch.full_like(values[0], math.nan)
    return values.mean(0), error
