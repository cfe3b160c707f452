import numpy as np
import pandas as pd
import pytest

COMMON = {
    "dataset": "digits",
    "width": 16,
    "depth": 3,
    "activation": "relu",
    "init_scale": 1.0,
    "optimizer": "momentum",
    "learning_rate": 0.005,
    "batch_size": 256,
    "labels": "true",
    "augmentation": "none",
    "loss": "cross-entropy",
    "steps": 1000,
    "seed": 1,
    "state": "fitted",
    "train_accuracy": 1.0,
    "test_accuracy": None,
    "gap": 0.1,
    "train_loss": 1e-5,
    "test_loss": 0.3,
    "jacobian_norm": 1.0,
    "logit_jacobian_norm": None,
    "transitions": None,
    "weights": 1000,
}


# Settings of two networks alike but for one of them: the worse and the better one of each row of Figure 4.
PAIRS = {
    "labels": ({"labels": "random"}, {"labels": "true"}),
    "augmentation": ({"augmentation": "none"}, {"augmentation": "shift-flip"}),
    "activation": ({"activation": "hardsigmoid"}, {"activation": "relu"}),
    "optimizer": ({"optimizer": "lbfgs", "learning_rate": None, "batch_size": None, "steps": 500}, {"optimizer": "momentum"}),
}


class Store:
    """Networks, and by their ids the arrays kept of some of them."""

    def __init__(self, frame, arrays=None):
        self._frame, self._arrays = frame, arrays or {}

    def kept(self):
        return set(self._arrays)

    def arrays(self, id_, prefix=""):
        return {name: values for name, values in self._arrays.get(id_, {}).items() if name.startswith(prefix)}

    def frame(self, columns=None):
        return self._frame if columns is None else self._frame[list(columns)]


@pytest.fixture(scope="session")
def make_store():
    """
    A function from networks, each the values in which it differs from the others, to a store.

    Their ids are network-0 and so on; `arrays` has the arrays of some, by id.
    """

    def make(*networks, arrays=None):
        rows = [{"id": f"network-{number}"} | COMMON | network for number, network in enumerate(networks)]
        return Store(pd.DataFrame(rows, columns=["id", *COMMON]), arrays)

    return make


@pytest.fixture
def store(make_store):
    """Two configurations of true labels, one of random labels, and networks that no figure may show."""
    return make_store(
        {"width": 16, "seed": 1, "gap": 0.02, "jacobian_norm": 0.1, "weights": 100, "train_loss": 1e-3},
        {"width": 16, "seed": 2, "gap": 0.04, "jacobian_norm": 0.3, "weights": 100, "train_loss": 0.0},
        {"width": 16, "seed": 3, "gap": 0.90, "jacobian_norm": 9.0, "state": "unfitted"},
        {"width": 32, "seed": 1, "gap": 0.06, "jacobian_norm": 0.5, "weights": 400, "train_loss": 1e-9},
        {"width": 32, "seed": 2, "gap": None, "jacobian_norm": None, "state": "failed", "train_loss": None},
        {"width": 64, "seed": 1, "gap": 0.88, "jacobian_norm": 20.0, "weights": 900, "labels": "random"},
        {"width": 64, "seed": 2, "gap": 0.92, "jacobian_norm": 40.0, "weights": 900, "labels": "random"},
    )


@pytest.fixture(scope="session")
def paired_networks():
    """A function from the name of a setting, and the worse and the better network's values of each pair, to networks."""

    def make(factor, *pairs, **common):
        return [
            common | settings | values | {"width": width}
            for width, pair in enumerate(pairs, 1)
            for settings, values in zip(PAIRS[factor], pair, strict=True)
        ]

    return make


def _of_points(generator):
    """Arrays of 40 single points, one in four of them wrong."""
    losses, label = generator.uniform(0.01, 4, 40), np.arange(40, dtype=np.int16) % 10
    return {
        "points.index": np.arange(40, dtype=np.int32),
        "points.label": label,
        "points.predicted": np.where(np.arange(40) % 4, label, (label + 1) % 10).astype(np.int16),
        "points.confidence": np.exp(-losses),
        "points.cross_entropy": losses,
        "points.l2_loss": losses / 4,
        **{f"points.{name}_norm": generator.uniform(0.1, 1, 40) for name in ("jacobian", "label_jacobian", "logit_jacobian")},
    }


def _along_paths(generator):
    """Arrays along three ellipses, in 48 bins, and of a translation loop that goes round once, with six crossings."""
    pictures = {"images": generator.integers(0, 256, (3, 1, 8, 8), dtype=np.uint8), "labels": np.array([3, 1, 4], np.int16)}
    found = {f"paths.{kind}.{name}": own for kind in ("different", "same") for name, own in pictures.items()}
    for kind in ("random", "different", "same"):
        found[f"paths.{kind}.jacobian_norm"] = generator.uniform(1, 2, 48)
        found[f"paths.{kind}.transition_density"] = generator.uniform(100, 200, 48)
    angles = np.arange(48) * np.pi / 24
    curve = (9 * np.stack([np.cos(angles), np.sin(angles)], 1)).astype(np.float32)
    return found | {
        "paths.translation.curve": curve,
        "paths.translation.crossings": curve[::8],
        "paths.translation.directions": curve[::8] / 9,
        "paths.translation.unit": np.array([0, 1, 2, 0, 1, 2], np.int32),
        "paths.translation.transitions": np.array([60, 40]),
        "paths.translation.images": generator.integers(0, 256, (4, 1, 8, 8), dtype=np.uint8),
        "paths.translation.places": curve[::12],
    }


def _on_a_slice(generator):
    """Arrays of a slice that five boundaries cross before training, and three after."""
    angles = np.pi * np.array([1 / 3, 1, 5 / 3])
    found = {
        "slice.anchors": 0.8 * np.stack([np.cos(angles), np.sin(angles)], 1),
        "slice.images": generator.integers(0, 256, (3, 1, 8, 8), dtype=np.uint8),
        "slice.labels": np.array([3, 1, 4], np.int16),
    }
    for when, count in (("before", 5), ("after", 3)):
        found[f"slice.{when}.segments"] = generator.uniform(-1, 1, (count, 2, 2)).astype(np.float32)
        found[f"slice.{when}.distance"] = generator.uniform(0.1, 0.2, 3)
        found[f"slice.{when}.anywhere"] = generator.uniform(0.1, 0.2, 1)
    return found


@pytest.fixture(scope="session")
def full_store(make_store, paired_networks):
    """
    All that all figures need: five pairs of each setting, in three of which the worse network is the more sensitive one.

    One of them, and one of Fashion-MNIST, have arrays.
    """
    values = [(2.0, 1.0), (3.0, 1.0), (1.0, 2.0), (1.0, 1.0), (5.0, 2.0)]
    pairs = [tuple({"gap": value / 10, "jacobian_norm": value, "transitions": 100 * value} for value in pair) for pair in values]
    # Each setting at a depth of its own, so that none of its networks is in a pair of another setting.
    networks = [network for depth, factor in enumerate(PAIRS, 2) for network in paired_networks(factor, *pairs, depth=depth)]
    generator = np.random.default_rng(0)
    arrays = {
        "network-1": _of_points(generator) | _along_paths(generator) | _on_a_slice(generator),
        f"network-{len(networks)}": _of_points(generator),
    }
    return make_store(*networks, {"dataset": "fashion-mnist", "transitions": 100.0}, arrays=arrays)
