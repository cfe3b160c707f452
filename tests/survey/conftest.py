import logging

import pytest

SMALL = """
[survey]
name = "small"

[data]
name = "digits"
train_points = 200

[space]
width = [4, 12]
depth = [2, 3]
activation = ["relu", "tanh"]
learning_rate = [0.05, 0.1]
batch_size = [50]
labels = ["true", "random"]
seed = [1, 2]

[training]
steps = 120
decay_every_epochs = 20
stop_at_accuracy = 1.0

[measure]
jacobian = 50
transitions = 2
transition_samples = 256
"""


@pytest.fixture
def small(tmp_path):
    """A specification of 64 small networks, as a file."""
    file = tmp_path / "small.toml"
    file.write_text(SMALL)
    return file


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """A Ray cluster of three nodes on this machine, of one processor each, with no data sets but those that need no files."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SENSITOMETER_DATA", str(tmp_path_factory.mktemp("no_data")))
        found = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        for _ in range(2):
            found.add_node(**NODE)
    yield found
    found.shutdown()


NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@pytest.fixture(scope="module")
def connected(cluster):
    """Connect to the cluster, once for all tests of a module."""
    import ray

    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.CRITICAL)
    yield
    ray.shutdown()
