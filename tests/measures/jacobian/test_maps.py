"""Input-sensitivity maps against autograd, one output and one image at a time."""

import pytest
import torch
from torch import nn

from sensitometer.measures import jacobian_norm, sensitivity_maps
from sensitometer.networks import MLP


def normals(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def twin(function, image, classes):
    """Return the map of one image: for each output its gradient, squared and summed over channels."""
    total = torch.zeros(image.shape[1:], dtype=torch.float64)
    for c in range(classes):
        x = image.clone().requires_grad_()
        (slope,) = torch.autograd.grad(function(x[None])[0, c], x)
        total += slope.square().sum(0)
    return total.sqrt()


def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(24, 5)).double()


@pytest.mark.parametrize("of", ["probabilities", "logits"])
def test_maps_of_any_model(of):
    model, x = convolutional(), normals(4, 3, 5, 4)
    function = model if of == "logits" else lambda points: model(points).softmax(1)
    maps = sensitivity_maps(model, x, of=of)
    torch.testing.assert_close(maps, torch.stack([twin(function, image, 5) for image in x]), rtol=1e-10, atol=0)
    torch.testing.assert_close(maps.square().sum((1, 2)).sqrt(), jacobian_norm(model, x, of=of), rtol=1e-10, atol=0)


def test_a_network_of_this_package_gets_the_images_flattened():
    network = MLP([0.1 * normals(8, 60), normals(5, 8)], "relu")
    x = normals(4, 3, 5, 4)
    expected = torch.stack([twin(lambda points: network(points.flatten(1)).softmax(1), image, 5) for image in x])
    maps = sensitivity_maps(network, x)
    torch.testing.assert_close(maps, expected, rtol=1e-10, atol=0)
    single = MLP([weight.float() for weight in network.weights], "relu")
    found = sensitivity_maps(single, x.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=0)


def test_confident_points_keep_their_maps():
    layer = nn.Linear(4, 2, bias=False).double()
    layer.weight.data = torch.tensor([[50.0, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.float64)
    (image,) = sensitivity_maps(nn.Sequential(nn.Flatten(), layer), torch.tensor([[[[1.0, 0], [0, 0]]]], dtype=torch.float64))
    p = torch.tensor(-50.0, dtype=torch.float64).sigmoid()
    torch.testing.assert_close(image[0, 0], 50 * 2**0.5 * p * (1 - p), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("x", "of", "expected"),
    [
        (torch.zeros(2, 60), "logits", r"x must be images \[N, channels, height, width\]; got \[2, 60\]"),
        (torch.zeros(2, 3, 5, 4), "odds", "of must be one of"),
    ],
)
def test_bad_input_is_refused(refused, x, of, expected):
    with refused(expected):
        sensitivity_maps(convolutional(), x, of=of)
