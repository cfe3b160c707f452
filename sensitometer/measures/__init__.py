"""The measures of a network's sensitivity to its inputs."""

from .jacobian.estimate import JacobianNormEstimate, jacobian_norm_estimate
from .jacobian.maps import sensitivity_maps
from .jacobian.norm import jacobian_norm, jacobian_norms
from .local_complexity import local_complexity
from .points import PointValues, point_values
from .profiles import PathProfile, path_profile
from .regions.curvature import curvature
from .regions.slices import ExactBoundaries, SampledBoundaries, boundaries, class_map
from .regions.transitions import TransitionCount, transitions

__all__ = [
    "ExactBoundaries",
    "JacobianNormEstimate",
    "PathProfile",
    "PointValues",
    "SampledBoundaries",
    "TransitionCount",
    "boundaries",
    "class_map",
    "curvature",
    "jacobian_norm",
    "jacobian_norm_estimate",
    "jacobian_norms",
    "local_complexity",
    "path_profile",
    "point_values",
    "sensitivity_maps",
    "transitions",
]
