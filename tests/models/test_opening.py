"""Models of every kind are opened, and what is none is refused in one line."""

import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_model
from torch import nn
from trained_models import ZOO, convolutional, export

from sensitometer.models.opening import open_model
from sensitometer.networks import MLP, initial_weights, layer_shapes


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A folder to work in, with the module `zoo` and a file of the weights of its `conv`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zoo.py").write_text(ZOO)
    yield tmp_path
    sys.modules.pop("zoo", None)


def test_saved_network_is_read(tmp_path):
    network = MLP(initial_weights(layer_shapes(64, 9, 3, 10), "tanh", 1.0, 1), "tanh")
    network.save(tmp_path / "net.safetensors")
    x = torch.randn(3, 64)
    assert torch.equal(open_model(str(tmp_path / "net.safetensors"))(x), network(x))


def test_networks_are_modules_for_pickles_and_factories(zoo):
    network = MLP(initial_weights(layer_shapes(64, 9, 3, 10), "tanh", 1.0, 1), "tanh")
    torch.save(network, "net.pt")
    network.save("net.safetensors")
    with (zoo / "zoo.py").open("a") as file:
        file.write("\nfrom sensitometer import MLP\n\ndef mlp():\n")
        file.write("    return MLP([torch.zeros(9, 64), torch.zeros(9, 9), torch.zeros(10, 9)], 'tanh')\n")
    x = torch.randn(3, 64)
    for opened in (open_model("net.pt", trust_pickle=True), open_model("zoo:mlp", weights="net.safetensors")):
        assert isinstance(opened, MLP)
        assert torch.equal(opened(x), network(x))


def test_exported_program_is_read(tmp_path):
    path, x = export(convolutional(), tmp_path / "conv.pt2"), torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(open_model(str(path))(x), convolutional()(x))


def test_factory_with_weights(zoo):
    model = convolutional(3)
    save_model(model, str(zoo / "w.safetensors"))
    x = torch.randn(3, 1, 8, 8)
    loaded = open_model("zoo:conv", weights=zoo / "w.safetensors")
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
        assert not torch.equal(open_model("zoo:conv")(x), model(x))
    assert str(zoo) not in sys.path


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("zoo:nothing", "no factory zoo:nothing: module 'zoo' has no attribute 'nothing'"),
        ("nowhere.at:all", "no factory nowhere.at:all: No module named 'nowhere'"),
        ("zoo:three", "zoo:three must be a function that returns a module; it is int"),
        ("zoo:text", r"zoo:text\(\) must return a torch.nn.Module; it returned str"),
        ("zoo:failing", r"zoo:failing\(\) failed: OSError: no disk at all"),
        ("net.onnx", "model must be a .pt2 file of torch.export, package.module:factory, .*; got 'net.onnx'"),
        ("net.pt2", "no model net.pt2: there is no such file"),
        ("net.safetensors", "no model net.safetensors: there is no such file"),
    ],
)
def test_models_that_are_none_are_refused(zoo, refused, model, expected):
    with refused(expected):
        open_model(model)


@pytest.mark.parametrize("name", ["empty.pt2", "empty.safetensors", "zip.pt2"])
def test_files_that_are_no_models_are_refused(zoo, refused, name):
    with zipfile.ZipFile(name, "w") as archive:
        archive.writestr("notes.txt", "no model")
    if not name.startswith("zip"):
        Path(name).write_bytes(b"")
    with refused(f"{name} is not a (program that torch.export.save|network that MLP.save) wrote: "):
        open_model(name)


def test_weights_that_do_not_fit_are_refused(zoo, refused):
    save_model(nn.Linear(64, 10), "w.safetensors")
    with refused("w.safetensors does not hold the weights of zoo:conv: .*Missing key"):
        open_model("zoo:conv", weights="w.safetensors")
    with refused("no weights v.safetensors: there is no such file"):
        open_model("zoo:conv", weights="v.safetensors")
    with refused("weights belong to package.module:factory alone; net.pt2 brings its own"):
        open_model("net.pt2", weights="w.safetensors")


def test_pickles_are_loaded_with_trust_alone(zoo, refused):
    for name in ("net.pt", "net.pth"):
        torch.save(convolutional(), name)
        with refused(f"{name} is a pickle, which can run any code when it is loaded: --trust-pickle"):
            open_model(name)
        with torch.no_grad():
            assert open_model(name, trust_pickle=True)(torch.randn(2, 1, 8, 8)).shape == (2, 10)
    torch.save(convolutional().state_dict(), "state.pt")
    with refused("state.pt must hold a whole torch.nn.Module; it holds OrderedDict"):
        open_model("state.pt", trust_pickle=True)


# Warnings of torch.jit itself, which torch means to drop.
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_is_loaded_without_a_warning(zoo):
    """Any other warning of torch.load is an error here."""
    torch.jit.save(torch.jit.script(convolutional()), "scripted.pt")
    assert open_model("scripted.pt", trust_pickle=True)(torch.randn(2, 1, 8, 8)).shape == (2, 10)
