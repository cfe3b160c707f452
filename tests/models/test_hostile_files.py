"""Files of models that are cut, altered or made up: each is a model, or refused on one line; none takes long or runs code."""

import io
import json
import os
import pickle
import random
import struct
import time
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from trained_models import convolutional, export

from sensitometer.errors import SensitometerError
from sensitometer.models.opening import open_model
from sensitometer.networks import MLP, initial_weights, layer_shapes


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A sound file of each format, by its name."""
    folder = tmp_path_factory.mktemp("sound")
    export(convolutional(), folder / "net.pt2")
    MLP(initial_weights(layer_shapes(64, 5, 2, 10), "relu", 1.0, 1), "relu").save(folder / "net.safetensors")
    torch.save(nn.Linear(3, 2).state_dict(), folder / "state.pt")
    torch.save(nn.Linear(3, 2), folder / "module.pt")
    torch.save(nn.Linear(3, 2).state_dict(), folder / "legacy.pt", _use_new_zipfile_serialization=False)
    with pytest.warns(DeprecationWarning):
        torch.jit.script(nn.Linear(3, 2)).save(str(folder / "script.pt"))
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def attempt(path, content):
    """Open a file that holds `content`, as a model and as weights; whatever is wrong must be one line, and soon."""
    path.write_bytes(content)
    begun = time.monotonic()
    for open_it in (lambda: open_model(path), lambda: open_model("trained_models:convolutional", weights=path)):
        try:
            open_it()
        except SensitometerError as error:
            assert "\n" not in str(error)
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("name", ["net.pt2", "net.safetensors", "state.pt", "module.pt", "legacy.pt", "script.pt"])
def test_files_that_are_cut_or_altered(sound, name, tmp_path):
    content, chance = sound[name], random.Random(name)
    for _ in range(6):
        attempt(tmp_path / name, content[: chance.randrange(len(content))])
    for _ in range(6):
        altered = bytearray(content)
        # Half of them in the last part, where a zip archive has its directory, and in the first.
        for _ in range(3):
            place = chance.choice([chance.randrange(len(content)), chance.randrange(200), -1 - chance.randrange(200)])
            altered[place % len(content)] = chance.randrange(256)
        attempt(tmp_path / name, bytes(altered))


def zipped(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


class Evil:
    """Unpickled, it makes a folder."""

    def __init__(self, name):
        self.name = name

    def __reduce__(self):
        return os.mkdir, (self.name,)


PICKLE = pickle.dumps(Evil("evil"), protocol=2)
WEIGHT = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
HOSTILE = {
    "empty": b"",
    "a pickle": PICKLE,
    "a pickle in a zip": zipped(**{"x/data.pkl": PICKLE, "x/version": "3"}),
    "a bomb in a zip": zipped(**{"x/data.pkl": bytes(10**8), "x/version": "3"}),
    "a program of nothing": zipped(**{"x/models/model.json": "{}"}),
    "a program of brackets": zipped(**{"x/models/model.json": "[" * 200_000}),
    "a program of numbers": zipped(**{"x/models/model.json": "1" * 100_000}),
    "a program of keys": zipped(**{"x/models/model.json": json.dumps({"\x1b[2J\u202e": "x\n"})}),
    "a program of no text": zipped(**{"x/models/model.json": b"\xff\xfe\x00"}),
    "payloads of nothing": zipped(**{"x/models/model.json": "{}", "x/data/weights/model_weights_config.json": "[]"}),
    "an old program": zipped(**{"serialized_exported_program.json": "{}", "serialized_state_dict.pt": PICKLE}),
    "a name of dots": zipped(**{"../../evil": "x", "x/models/model.json": "{}"}),
    "an encrypted member": zipped(**{"x/models/model.json": "{}"}).replace(
        b"\x14\x00\x00\x00\x08\x00", b"\x14\x00\x01\x00\x08\x00"
    ),
    "only the end of a zip": b"PK\x03\x04" + zipped()[-22:],
    "a header longer than the file": struct.pack("<Q", 2**62) + b"{",
    "a header of brackets": safetensors(b"{" + b'"a":[' * 100_000),
    "an activation of nothing": safetensors({"__metadata__": {"activation": "evil"}, "0": WEIGHT}, bytes(16)),
    "offsets beyond the file": safetensors({"0": {**WEIGHT, "data_offsets": [0, 2**60]}}),
    "a shape that is too large": safetensors({"0": {**WEIGHT, "shape": [2**40, 2**40]}}, bytes(16)),
    "tensors over each other": safetensors({"0": WEIGHT, "1": WEIGHT}, bytes(16)),
    "negative shapes": safetensors({"0": {**WEIGHT, "shape": [-1, -16]}}, bytes(16)),
    "GGUF": b"GGUF" + bytes(100),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "a varint without end": b"\x08" + b"\xff" * 1000,
    "text": "sensitive\u202e\x1b[2J".encode() * 100,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_files_that_are_made_up(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    attempt(tmp_path / "net.pt", HOSTILE[kind])
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt"]
    assert not (tmp_path.parent / "evil").exists()


def test_weights_that_share_a_name_with_a_module_of_another_shape(tmp_path):
    save_file({"0.weight": torch.zeros(2**10, 2**10), "\x1b[2J": torch.zeros(1)}, tmp_path / "w.safetensors")
    attempt(tmp_path / "again.safetensors", Path(tmp_path / "w.safetensors").read_bytes())
