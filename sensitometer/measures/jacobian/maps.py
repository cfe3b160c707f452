r"""
Input-sensitivity maps: how much each pixel of an image moves the probabilities, or the logits.

The map of a point is the norm of the Jacobian's columns that belong to a pixel, over the C outputs and the pixel's channels k:

$$ m_{hw} = \sqrt{ \sum_{c=1}^C \sum_k \left( \frac{\partial g_c}{\partial x_{khw}} \right)^2 }, \qquad
   \sum_{hw} m_{hw}^2 = \|J\|_F^2 $$
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...errors import InvalidInputError
from ...models.adapting import Inputs, shape_taken, unwrapped
from ...networks import MLP
from .norm import adapted_model, check_arguments, check_outputs
from .pullback import jacobian_rows, plan_for, row_slopes, tracked


def sensitivity_maps(
    model: Callable[..., Any],
    x: Tensor,
    *,
    of: str = "probabilities",
    output: str | int | None = None,
    inputs: Inputs | None = None,
) -> Tensor:
    r"""
    Return the norm of the Jacobian at each pixel of each image; the squares of a map add up to the square of `jacobian_norm`.

    Parameters
    ----------
    model, of, output, inputs
        As in `jacobian_norm`. An `MLP`, and a model that does not take images, gets them flattened.
    x
        Images `[N, channels, height, width]`.

    Returns
    -------
    Tensor
        `[N, height, width]`, of the type and on the device of `x`.

    Raises
    ------
    InvalidInputError
        An argument is not as above.

    Examples
    --------
    >>> import torch
    >>> from sensitometer.measures import sensitivity_maps
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2, bias=False))
    >>> model[1].weight.data = torch.tensor([[3.0, 0.0, 0.0, 0.0], [4.0, 0.0, 0.0, 2.0]])
    >>> sensitivity_maps(model, torch.zeros(1, 1, 2, 2), of="logits")
    tensor([[[5., 0.],
             [0., 2.]]])
    """
    check_arguments(x, of, None)
    if x.ndim != 4:
        raise InvalidInputError(f"x must be images [N, channels, height, width]; got {list(x.shape)}")
    model = unwrapped(model)
    points = x
    if isinstance(model, MLP):
        model = MLP([weight.detach().double() for weight in model.weights], model.activation)
        points = x.flatten(1).double()
    elif inputs is None:
        points = x.reshape(-1, *shape_taken(model, x))
    adapted = adapted_model(model, points, output=output, inputs=inputs)
    check_outputs(of, adapted.example)
    plan = plan_for(adapted, points, None, of)
    maps = []
    for start in range(0, len(x), plan.points):
        place = slice(start, start + plan.points)
        tracked_points, outputs = tracked(adapted, points, place)
        rows = jacobian_rows(of, outputs)
        squares = torch.zeros(len(outputs), *x.shape[2:], dtype=torch.float64, device=x.device)
        for slopes in row_slopes(tracked_points, outputs, rows, plan):
            squares += slopes.double().reshape(-1, len(outputs), *x.shape[1:]).square().sum((0, 2))
        maps.append(squares.sqrt() * rows.factor.view(-1, 1, 1))
    return torch.cat(maps).to(x.dtype)
