"""Models of every kind are opened, and what is none is refused in one line."""

import argparse
import os
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn
from trained_models import ZOO, convolutional, export

from sensitometer.models.opening import open_model
from sensitometer.networks import MLP, initial_weights, layer_shapes

MORE = """
def parallel():
    return nn.DataParallel(linear())

def compiled():
    return torch.compile(linear())

def nowhere():
    with torch.device("meta"):
        return linear()

def tied():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    return model

def lazy():
    return nn.Sequential(nn.LazyLinear(3))

def renaming():
    return nn.utils.parametrizations.weight_norm(linear())
"""


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A folder to work in, with the module `zoo` and a file of the weights of its `conv`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zoo.py").write_text(ZOO + MORE)
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
        ("zoo:nowhere", r"zoo:nowhere\(\) must return a module with numbers in it; it returned one on the meta device"),
        (
            "some/zoo.py:conv",
            "model must be package.module:factory; got some/zoo.py:conv: write zoo:conv in the folder of zoo.py",
        ),
        ("resnet18", "model must be a .pt2 file of torch.export, package.module:factory, .*; got 'resnet18'"),
        ("net.onnx", "no model net.onnx: there is no such file"),
        ("net.pt2", "no model net.pt2: there is no such file"),
        ("net.safetensors", "no model net.safetensors: there is no such file"),
    ],
)
def test_models_that_are_none_are_refused(zoo, refused, model, expected):
    with refused(expected):
        open_model(model)


FOREIGN = {
    "net.onnx": r"is an ONNX file, .*package.module:factory that returns onnx2torch.convert\('net.onnx'\)",
    "net.h5": r"is an HDF5 file, as Keras writes, .*keras.models.load_model\('net.h5'\), with KERAS_BACKEND=torch",
    "net.keras": r"is a model of Keras, .*keras.models.load_model\('net.keras'\)",
    "net.gguf": r"is a GGUF file of llama.cpp, .*gguf_file='net.gguf'",
    "net.safetensors": "is a Git LFS pointer in place of the file: run git lfs pull",
}


def onnx():
    """A message of ONNX's ModelProto: version of the format, producer, an empty graph of a long name, opset."""
    name = b"\x12\xc8\x01" + 200 * b"g"
    return b"\x08\x09\x12\x07pytorch" + b"\x3a" + bytes([len(name) & 0x7F | 0x80, len(name) >> 7]) + name + b"\x42\x02\x10\x11"


@pytest.fixture
def foreign(zoo):
    """A file of each format that is recognised and not opened."""
    Path("net.onnx").write_bytes(onnx())
    Path("net.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    Path("net.gguf").write_bytes(b"GGUF" + bytes(50))
    Path("net.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with zipfile.ZipFile("net.keras", "w") as archive:
        for name in ("config.json", "metadata.json", "model.weights.h5"):
            archive.writestr(name, "{}")


@pytest.mark.parametrize("name", FOREIGN)
def test_other_formats_are_recognised_by_content(zoo, foreign, refused, name):
    with refused(rf"{name} {FOREIGN[name]}"):
        open_model(name)
    renamed = Path(name).rename("some.pt")
    with refused(f"some.pt {FOREIGN[name]}".replace(f"'{name}'", "'some.pt'")):
        open_model(renamed)
    with refused("weights some.pt: it is an? "):
        open_model("zoo:conv", weights=renamed)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("net.pt2", b"", "net.pt2 is no model, or damaged: model must be a .pt2 file of torch.export, "),
        ("net.safetensors", b"", "net.safetensors is no model, or damaged"),
        ("net.pt", b"no pickle", "net.pt is no model, or damaged"),
        ("net.ckpt", b"\x00\x01", "net.ckpt is no checkpoint of PyTorch; put the weights of another framework's into a module"),
        # A length of a header that the file is too short for, and a header that is no JSON.
        ("net.safetensors", struct.pack("<Q", 99) + b"{}", "net.safetensors is no model, or damaged"),
        ("net.safetensors", struct.pack("<Q", 2) + b"{{", "net.safetensors is damaged: .*header"),
        # Messages of protobuf that stop early, that have no graph, and that are none.
        ("net.onnx", onnx()[:-1], "net.onnx is no model, or damaged"),
        ("net.onnx", onnx()[:9], "net.onnx is no model, or damaged"),
        ("net.onnx", b"\x08" + 12 * b"\xff", "net.onnx is no model, or damaged"),
        (
            "net.pt",
            b"PK\x03\x04" + bytes(90),
            "net.pt is damaged: it begins as a zip archive and lacks its end; copy or download",
        ),
    ],
)
def test_files_that_are_no_models_are_refused(zoo, refused, name, content, expected):
    Path(name).write_bytes(content)
    with refused(expected):
        open_model(name)


def test_archives_and_folders_that_are_no_models_are_refused(zoo, refused):
    with zipfile.ZipFile("zip.pt2", "w") as archive:
        archive.writestr("notes.txt", "no model")
    with refused("zip.pt2 is no model, or damaged"):
        open_model("zip.pt2")
    # As torch before 2.9 wrote them, without a root folder.
    with zipfile.ZipFile("old.pt2", "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
    with refused("old.pt2 is not a program that torch.export.save wrote"):
        open_model("old.pt2")
    Path("folder").mkdir()
    with refused(r"folder is a folder; name a file in it, or, .*AutoModel...from_pretrained\('folder'\)"):
        open_model("./folder")


def test_exported_programs_and_pickles_are_recognised_under_any_name(zoo, refused):
    export(convolutional(), Path("net.pt2")).rename("net.pt")
    assert open_model("net.pt")(torch.randn(3, 1, 8, 8)).shape == (3, 10)
    torch.save(nn.Linear(3, 2), "net.bin")
    assert open_model("net.bin", trust_pickle=True)(torch.randn(5, 3)).shape == (5, 2)
    with refused("weights net.pt are a whole program; give it as the model, without weights"):
        open_model("zoo:conv", weights="net.pt")


# --- weights


def checkpoints(state):
    """The same weights in the ways in which people keep them."""
    prefixed = {prefix: {prefix + name: tensor for name, tensor in state.items()} for prefix in ("module.", "_orig_mod.", "net.")}
    return {
        "plain": state,
        "wrapped": {"epoch": 3, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": []}, "model": state},
        "Lightning": {"state_dict": prefixed["net."], "pytorch-lightning_version": "2.4", "hyper_parameters": {"lr": 0.1}},
        "model_state_dict": {"model_state_dict": state},
        "averaged": {"ema": prefixed["module."], "decay": 0.99},
        "DataParallel": prefixed["module."],
        "compiled": prefixed["_orig_mod."],
        "both": {"module._orig_mod." + name: tensor for name, tensor in state.items()},
        "of torch before 0.4.1": {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")},
    }


@pytest.mark.parametrize("kind", checkpoints({}))
@pytest.mark.parametrize("legacy", [False, True])
def test_weights_are_found_in_checkpoints(zoo, kind, legacy):
    model, x = convolutional(3), torch.randn(3, 1, 8, 8)
    torch.save(checkpoints(model.state_dict())[kind], "w.ckpt", _use_new_zipfile_serialization=not legacy)
    with torch.no_grad():
        assert torch.equal(open_model("zoo:conv", weights="w.ckpt")(x), model(x))


@pytest.mark.parametrize("factory", ["linear", "parallel", "compiled"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
# Importing torch's compiler warns of torch.jit.
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_wrapped_modules_take_wrapped_weights(zoo, factory, prefix):
    model = nn.Linear(64, 10)
    save_file({prefix + name: tensor for name, tensor in model.state_dict().items()}, "w.bin")
    opened = open_model(f"zoo:{factory}", weights="w.bin")
    assert not any(module.training for module in opened.modules())
    for given, tensor in zip(opened.parameters(), model.parameters(), strict=True):
        assert torch.equal(given, tensor)


def test_modules_of_their_own_ways_take_their_weights(zoo):
    """Tied weights that safetensors keeps once, shapes that the weights decide, names that the module changes itself."""
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    save_model(tied, "tied.safetensors")
    assert torch.equal(open_model("zoo:tied", weights="tied.safetensors")[1].weight, tied[0].weight)
    lazy = nn.Sequential(nn.Linear(5, 3))
    torch.save(lazy.state_dict(), "lazy.pt")
    assert torch.equal(open_model("zoo:lazy", weights="lazy.pt")[0].weight, lazy[0].weight)
    linear = nn.Linear(64, 10)
    torch.save({"bias": linear.bias, "weight_g": linear.weight.norm(dim=1, keepdim=True), "weight_v": linear.weight}, "old.pt")
    torch.testing.assert_close(open_model("zoo:renaming", weights="old.pt").weight, linear.weight)


def test_half_precision_weights_are_taken_exactly(zoo):
    model = nn.Linear(64, 10).half()
    torch.save(model.state_dict(), "half.pt")
    assert torch.equal(open_model("zoo:linear", weights="half.pt").weight, model.weight.float())


def test_weights_that_do_not_fit_are_refused(zoo, refused):
    save_model(nn.Linear(64, 10), "w.safetensors")
    missing = r"8 keys missing \(0.weight, 0.bias, 1.weight, ...\), 2 keys unexpected \(bias, weight\)"
    with refused(rf"w.safetensors does not hold the weights of zoo:conv: {missing}"):
        open_model("zoo:conv", weights="w.safetensors")
    shape = r"2 keys different \(weight is float32 \[10, 64\], not float32 \[7, 64\], bias is float32 \[10\], not float32 \[7\]\)"
    with refused(rf"w.safetensors does not hold the weights of zoo:seven: {shape}"):
        open_model("zoo:seven", weights="w.safetensors")
    # The prefix is known, and the part that comes nearest is named.
    state = {f"module.{name}": tensor for name, tensor in convolutional().state_dict().items()}
    del state["module.4.bias"]
    torch.save({"mean": {"a": torch.zeros(1)}, "state_dict": state}, "w.pt")
    with refused(r"w.pt does not hold the weights of zoo:conv in its part 'state_dict': 1 key missing \(4.bias\)"):
        open_model("zoo:conv", weights="w.pt")
    # Whole numbers, as quantised weights are, would be taken for the weights.
    torch.save({"weight": torch.ones(10, 64, dtype=torch.int8), "bias": torch.ones(10)}, "w.pt")
    with refused(r"1 key different \(weight is int8 \[10, 64\], not float32 \[10, 64\]\)"):
        open_model("zoo:linear", weights="w.pt")


def test_weights_that_are_none_are_refused(zoo, refused):
    with refused("no weights v.safetensors: there is no such file"):
        open_model("zoo:conv", weights="v.safetensors")
    with refused("weights belong to package.module:factory alone; net.pt2 brings its own"):
        open_model("net.pt2", weights="w.safetensors")
    Path("w.pt").write_text("no weights")
    with refused("weights must be a safetensors file, or a file of torch.save.*; w.pt is neither"):
        open_model("zoo:conv", weights="w.pt")
    torch.save({"epoch": 3, "losses": torch.zeros(3)}, "w.pt")
    with refused("weights must be a state_dict, or a checkpoint that has one; w.pt holds dict with the keys epoch, losses"):
        open_model("zoo:conv", weights="w.pt")
    torch.save(torch.zeros(3), "w.pt")
    with refused("weights must be a state_dict, or a checkpoint that has one; w.pt holds Tensor"):
        open_model("zoo:conv", weights="w.pt")
    save_model(nn.Linear(64, 10), "w.safetensors")
    whole = Path("w.safetensors").read_bytes()
    Path("w.safetensors").write_bytes(whole[:-9])
    with refused("w.safetensors is damaged: "):
        open_model("zoo:linear", weights="w.safetensors")
    torch.save(convolutional().state_dict(), "w.pt", _use_new_zipfile_serialization=False)
    Path("w.pt").write_bytes(Path("w.pt").read_bytes()[:400])
    with refused("w.pt is damaged: "):
        open_model("zoo:conv", weights="w.pt")


def test_of_two_weights_that_fit_none_is_chosen(zoo, refused):
    state = convolutional().state_dict()
    torch.save({"model": state, "ema": {f"module.{name}": tensor for name, tensor in state.items()}}, "w.pt")
    with refused(
        r"w.pt holds several weights that fit zoo:conv, 'model', 'ema': save the ones .*torch.load\('w.pt'\)\['model'\]"
    ):
        open_model("zoo:conv", weights="w.pt")
    # The other one is of another model here.
    torch.save({"model": state, "ema": nn.Linear(3, 2).state_dict()}, "w.pt")
    open_model("zoo:conv", weights="w.pt")


def test_weights_beside_other_objects_are_loaded_with_trust_alone(zoo, refused):
    model, x = convolutional(3), torch.randn(3, 1, 8, 8)
    for content in ({"state_dict": model.state_dict(), "args": argparse.Namespace(lr=0.1)}, {"model": model}, model):
        torch.save(content, "w.pt")
        with refused(
            "w.pt holds (argparse.Namespace|torch.nn.*) beside tensors, a pickle that can run any code .*--trust-pickle"
        ):
            open_model("zoo:conv", weights="w.pt")
        with torch.no_grad():
            assert torch.equal(open_model("zoo:conv", weights="w.pt", trust_pickle=True)(x), model(x))


def test_weights_given_as_the_model_are_named(zoo, refused):
    cure = "give the model's code, too: package.module:factory --weights"
    save_model(convolutional(), "w.safetensors")
    with refused(f"w.safetensors holds the weights of a model that MLP.save did not write; {cure} w.safetensors"):
        open_model("w.safetensors")
    torch.save({"state_dict": convolutional().state_dict(), "epoch": 3}, "w.ckpt")
    for trust in (False, True):
        with refused(f"w.ckpt holds weights, a state_dict, and no model; {cure} w.ckpt"):
            open_model("w.ckpt", trust_pickle=trust)
    torch.save([1, 2], "w.pt")
    with refused("w.pt must hold a whole torch.nn.Module; it holds list"):
        open_model("w.pt")


# --- programs that run


def test_pickles_are_loaded_with_trust_alone(zoo, refused):
    for name in ("net.pt", "net.pth"):
        torch.save(convolutional().train(), name)
        with refused(f"{name} is a pickle of torch.nn.modules.*, which can run any code when it is loaded: --trust-pickle"):
            open_model(name)
        opened = open_model(name, trust_pickle=True)
        assert not opened.training
        with torch.no_grad():
            assert opened(torch.randn(2, 1, 8, 8)).shape == (2, 10)
    Path("net.pkl").write_bytes(pickle.dumps(nn.Linear(3, 2)))
    with refused("net.pkl is a pickle, which can run any code"):
        open_model("net.pkl")
    with refused("net.pkl cannot be unpickled: "):
        open_model("net.pkl", trust_pickle=True)


@pytest.fixture
def scripted(zoo):
    """TorchScript in a file that is named like a pickle, left in training mode."""
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.save(torch.jit.script(convolutional().train()), "scripted.pt")
    return "scripted.pt"


def test_torchscript_is_opened_with_trust_alone_and_without_a_warning(scripted, refused):
    with refused(r"scripted.pt is TorchScript \(torch.jit.save\), a program that runs code of its own .*--trust-pickle opens it"):
        open_model(scripted)
    opened = open_model(scripted, trust_pickle=True)
    assert not opened.training
    with torch.no_grad():
        torch.testing.assert_close(opened(torch.ones(2, 1, 8, 8)), convolutional()(torch.ones(2, 1, 8, 8)))
    with refused("weights scripted.pt are a whole program; give it as the model, without weights"):
        open_model("zoo:conv", weights=scripted)
    # Its code lacks a file.
    with zipfile.ZipFile(scripted) as whole, zipfile.ZipFile("part.pt", "w") as part:
        for name in whole.namelist():
            if "conv" not in name:
                part.writestr(name, whole.read(name))
    with refused("part.pt cannot be opened as TorchScript: "):
        open_model("part.pt", trust_pickle=True)


class Bomb:
    """Makes a file when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


def test_nothing_is_run_without_trust(zoo, refused):
    model = convolutional()
    model.bomb = Bomb()
    for content in (model, {"state_dict": convolutional().state_dict(), "bomb": Bomb()}, Bomb()):
        for legacy in (False, True):
            torch.save(content, "net.pt", _use_new_zipfile_serialization=not legacy)
            with refused("--trust-pickle"):
                open_model("net.pt")
            with refused("--trust-pickle"):
                open_model("zoo:conv", weights="net.pt")
    assert not Path("exploded").exists()
    # With trust it is: the bomb works.
    torch.save({"state_dict": convolutional().state_dict(), "bomb": Bomb()}, "net.pt")
    open_model("zoo:conv", weights="net.pt", trust_pickle=True)
    assert Path("exploded").exists()


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_never_ends_is_no_model(zoo, kind, refused):
    path = Path("/dev/zero")
    if kind == "pipe":
        path = Path("pipe.pt")
        os.mkfifo(path)
    with refused(f"{path} must be a file; it is a pipe or a device"):
        open_model(path)
    with refused(f"{path} must be a file; it is a pipe or a device"):
        open_model("zoo:linear", weights=path)
