"""Fixtures that the tests of several modules share."""

import os

import pytest
import torch
from hypothesis import settings

from sensitometer.cli import main
from sensitometer.data import Dataset, Points
from sensitometer.errors import InvalidInputError

settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")


@pytest.fixture
def refused():
    """Expect an error of one line that matches the regular expression."""

    def refused(expected, error=InvalidInputError):
        return pytest.raises(error, match=rf"\A[^\n]*{expected}[^\n]*\Z")

    return refused


@pytest.fixture
def run(capsys):
    """Run the command line; return its exit status, and what it wrote to standard output and to standard error."""

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        output = capsys.readouterr()
        return caught.value.code, output.out, output.err

    return run


@pytest.fixture(scope="session")
def toy():
    """A small data set: 3 overlapping clusters in 6 dimensions, 46 training points and 20 test points."""
    stream = torch.Generator().manual_seed(0)
    centres = 2 * torch.randn(3, 6, generator=stream)
    parts = []
    for points in (46, 20):
        y = torch.randint(3, (points,), generator=stream)
        parts.append(Points(centres[y] + 1.2 * torch.randn(points, 6, generator=stream), y))
    return Dataset("toy", *parts, classes=3, shape=(1, 2, 3))


@pytest.fixture(autouse=True, scope="session")
def _same_for_every_run(tmp_path_factory):
    """
    Give every run the same matrix-product path and the same sizes of stacks: the last bits of results are compared.

    Rates measured while tests keep the machine busy must not stay in the user's cache.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SENSITOMETER_MATMUL", "stock")
        patch.setenv("XDG_CACHE_HOME", str(shared / "cache"))
        yield
