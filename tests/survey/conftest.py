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
