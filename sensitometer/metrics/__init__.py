"""The measures of a network's sensitivity to its inputs."""

from .jacobian import jacobian_norm, jacobian_norms

__all__ = ["jacobian_norm", "jacobian_norms"]
