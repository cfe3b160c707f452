"""The measures of a network's sensitivity to its inputs."""

from .bounds import JacobianBounds, PointValues, jacobian_bounds, point_values
from .jacobian.estimate import JacobianNormEstimate, jacobian_norm_estimate
from .jacobian.norm import jacobian_norm, jacobian_norms
from .profiles import AverageProfile, PathProfile, average_profile, path_profile
from .regions.curvature import curvature
from .regions.slices import ExactBoundaries, SampledBoundaries, boundaries, class_map
from .regions.transitions import TransitionCount, transitions

__all__ = [
    "AverageProfile",
    "ExactBoundaries",
    "JacobianBounds",
    "JacobianNormEstimate",
    "PathProfile",
    "PointValues",
    "SampledBoundaries",
    "TransitionCount",
    "average_profile",
    "boundaries",
    "class_map",
    "curvature",
    "jacobian_bounds",
    "jacobian_norm",
    "jacobian_norm_estimate",
    "jacobian_norms",
    "path_profile",
    "point_values",
    "transitions",
]
