"""Figure 2 on real data: sensitivity dips at training points along fitted ellipses, and is even along random ones."""

import math
import os

import pytest
import torch

from sensitometer import Configuration, load_dataset, paths
from sensitometer.measures import path_profile
from sensitometer.training import Schedule, train_stack

pytestmark = [
    pytest.mark.slow,
    pytest.mark.real_data,
    pytest.mark.skipif("SENSITOMETER_DATA" not in os.environ, reason="SENSITOMETER_DATA is not set"),
]
NETWORKS, ELLIPSES, BINS = 16, 3, 96


@pytest.fixture(scope="module")
def profiles():
    """The average profiles of 16 networks of 20 layers of 200 ReLUs, each along ellipses of its own, by the kind of ellipse."""
    dataset = load_dataset("mnist", train_points=2000)
    configurations = [
        Configuration("mnist", 200, 20, learning_rate=0.01, batch_size=100, steps=4000, seed=seed)
        for seed in range(1, NETWORKS + 1)
    ]
    kinds = {"random": [], "different": [], "same": []}
    for configuration in configurations:
        (trained,) = train_stack([configuration], dataset, schedule=Schedule(stop_at_accuracy=1.0))
        assert trained.state == "fitted"
        draw = torch.Generator().manual_seed(configuration.seed)
        order = torch.randperm(len(dataset.train.y), generator=draw)
        x, y = dataset.train.x[order], dataset.train.y[order]
        for label in range(ELLIPSES):
            ellipses = {
                "random": paths.random_ellipse(784, draw),
                "different": paths.fitted_ellipse(*(x[y == label + step][0] for step in (0, 3, 6))),
                "same": paths.fitted_ellipse(*x[y == label][:3]),
            }
            for kind, path in ellipses.items():
                kinds[kind].append(path_profile(trained.network, path, bins=BINS))
    return kinds


def at_and_between(kind, name):
    """For each ellipse the mean near the three training points (0.2 radians), and half-way between; `[48]` each."""
    angle = kind[0].angle
    values = torch.cat([getattr(profile, name) for profile in kind])
    turned = torch.remainder(angle - math.pi / 3, 2 * math.pi / 3)
    near = torch.minimum(turned, 2 * math.pi / 3 - turned)
    return values[:, near < 0.2].mean(1), values[:, near > math.pi / 3 - 0.2].mean(1)


def difference(kind, name):
    """The mean over networks of log(at / between), that of a network being the mean over its ellipses, and its standard error."""
    at, between = at_and_between(kind, name)
    logs = (at / between).log().view(NETWORKS, ELLIPSES).mean(1)
    return float(logs.mean()), float(logs.std() / math.sqrt(len(logs)))


@pytest.mark.parametrize("name", ["transition_density", "jacobian_norm"])
@pytest.mark.parametrize("kind", ["different", "same"])
def test_sensitivity_is_lower_at_training_points_than_between_them(profiles, kind, name):
    mean, error = difference(profiles[kind], name)
    # Ellipses through points of one class stay among points of that class, and dip far less.
    assert mean + {"different": 3, "same": 2}[kind] * error < 0


@pytest.mark.parametrize("name", ["transition_density", "jacobian_norm"])
def test_sensitivity_is_even_along_random_ellipses(profiles, name):
    mean, error = difference(profiles["random"], name)
    assert abs(mean) < 3 * error
    assert abs(mean) < 0.25 * abs(difference(profiles["different"], name)[0])


@pytest.mark.parametrize("name", ["transition_density", "jacobian_norm"])
def test_sensitivity_is_lower_within_a_class_than_between_classes(profiles, name):
    same, different = (torch.cat([getattr(one, name) for one in profiles[kind]]).mean() for kind in ("same", "different"))
    assert same < different
