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

    def frame(self, columns=None, *, state=None):
        frame = self._frame if columns is None else self._frame[list(columns)]
        return frame if state is None else frame[self._frame["state"] == state]


@pytest.fixture
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


@pytest.fixture
def paired_networks():
    """A function from the name of a setting, and the worse and the better network's values of each pair, to networks."""

    def make(factor, *pairs, **common):
        return [
            common | settings | values | {"width": width}
            for width, pair in enumerate(pairs, 1)
            for settings, values in zip(PAIRS[factor], pair, strict=True)
        ]

    return make


@pytest.fixture
def full_store(make_store, paired_networks):
    """All that all figures need: five pairs of each setting, in three of which the worse network is the more sensitive one."""
    values = [(2.0, 1.0), (3.0, 1.0), (1.0, 2.0), (1.0, 1.0), (5.0, 2.0)]
    pairs = [tuple({"gap": value / 10, "jacobian_norm": value, "transitions": 100 * value} for value in pair) for pair in values]
    # Each setting at a depth of its own, so that none of its networks is in a pair of another setting.
    return make_store(
        *(network for depth, factor in enumerate(PAIRS, 2) for network in paired_networks(factor, *pairs, depth=depth))
    )
