"""The softmax's Jacobian times vectors, against whole matrices from decimals."""

import pytest
import torch
from reference import softmax_jacobian

from sensitometer.measures.jacobian.softmax import through_softmax


@pytest.mark.parametrize("sharpness", [0.1, 1.0, 30.0, 300.0])
@pytest.mark.parametrize("classes", [1, 2, 10])
def test_products_are_those_of_the_whole_matrix(classes, sharpness):
    stream = torch.Generator().manual_seed(classes)
    logits = sharpness * torch.randn(4, classes, generator=stream, dtype=torch.float64)
    v = torch.randn(4, classes, 3, generator=stream, dtype=torch.float64)
    expected = torch.stack([softmax_jacobian(point) for point in logits]) @ v
    rows, factor = through_softmax(logits.unsqueeze(2), v.clone())
    # Relative to the largest entry of each product, which may be far below 1e-16.
    scale = expected.abs().amax((1, 2), keepdim=True)
    torch.testing.assert_close(rows * factor.unsqueeze(1) / scale, expected / scale, rtol=1e-12, atol=1e-14, equal_nan=True)
