"""Exported programs are the modules that they were, and run nothing that their file brings along unless it is trusted."""

import contextlib
import io
import json
import logging
import os
import pickle
import time
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn
from trained_models import convolutional, export

from sensitometer.data import load_dataset
from sensitometer.measuring import measure
from sensitometer.models.exported import load_exported


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export(convolutional(), tmp_path_factory.mktemp("exported") / "conv.pt2")


def test_exported_program_is_the_module(exported, digits):
    x = torch.randn(5, 1, 8, 8)
    model = convolutional()
    with torch.no_grad():
        torch.testing.assert_close(load_exported(exported)(x), model(x))
    found, expected = (measure(one, digits, points=9, transitions=2, samples=200) for one in (load_exported(exported), model))
    assert found.transitions.tolist() == expected.transitions.tolist()
    torch.testing.assert_close(found.values.jacobian_norm, expected.values.jacobian_norm)


class Attention(nn.Module):
    """A transformer on the rows of an image, and a constant that is neither weight nor buffer."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head, self.scale = nn.Linear(8, 10), torch.rand(8)

    def forward(self, x):
        h = self.encoder(x.view(-1, 8, 8) * self.scale)
        return torch.einsum("nrd,cd->nrc", h, self.head.weight).mean(1)


def test_exported_transformer_is_the_module(tmp_path, digits):
    model = Attention().eval()
    path = export(model, tmp_path / "attention.pt2", torch.randn(4, 64))
    loaded, x = load_exported(path), digits.test.x[:6]
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), model(x))
    assert measure(loaded, digits, points=3, transitions=1, samples=50).values.jacobian_norm.isfinite().all()


def test_exported_for_other_points_or_in_training_is_refused(tmp_path, refused):
    static = export(nn.Linear(4, 3).eval(), tmp_path / "static.pt2", torch.randn(2, 4), dynamic_shapes=None)
    with refused(r"static.pt2 takes \[2, 4\] alone; export it for any number of points: torch.export.export\(model"):
        load_exported(static)
    training = nn.Sequential(nn.Linear(4, 3), nn.Dropout()).train()
    with refused(r"was exported in training mode \(dropout\): call model.eval\(\) before torch.export"):
        load_exported(export(training, tmp_path / "training.pt2", torch.randn(2, 4)))


# --- what a file may try


class Evil:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def saved(thing):
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    return buffer.getvalue()


def changed(source, target, records=(), program=lambda text: text):
    """Copy an archive with other records, by how their names end, and the program's text changed."""
    records = dict(records)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            for ending in [ending for ending in records if name.endswith(ending)]:
                replacement = records.pop(ending)
                content = replacement(content) if callable(replacement) else replacement
            if name.endswith("models/model.json"):
                text = content.decode()
                content = program(text).encode()
            new.writestr(name, content)
        root = old.namelist()[0].partition("/")[0]
        for name, content in records.items():
            new.writestr(f"{root}/{name}", content)
    return target


def as_pickle(key):
    """Make the first entry of a list of weights a pickled one."""

    def change(content):
        config = json.loads(content)
        config["config"][key] = {**config["config"]["0.weight"], "use_pickle": True}
        return json.dumps(config).encode()

    return change


def constant(name):
    payload = {"path_name": name, "is_param": False, "use_pickle": True, "tensor_meta": None}
    return json.dumps({"config": {"evil": payload}}).encode()


def attempts(folder):
    """Records that unpickle something evil when torch.export.load reads them."""
    evil = Evil(folder)
    return {
        "weight": {"model_weights_config.json": as_pickle("0.weight"), "weights/weight_0": saved(evil)},
        "constant": {"model_constants_config.json": constant("tensor_0"), "data/constants/tensor_0": saved(evil)},
        "object": {"model_constants_config.json": constant("opaque_obj_0"), "data/constants/opaque_obj_0": pickle.dumps(evil)},
        "weights of before": {"data/weights/model.pt": saved({"0.weight": evil})},
        "constants of before": {"data/constants/model.pt": saved({"c": evil})},
    }


@pytest.mark.parametrize("kind", attempts(Path()))
def test_pickles_in_exported_programs_are_not_loaded(exported, tmp_path, kind, refused):
    folder = tmp_path / "evil"
    path = changed(exported, tmp_path / "evil.pt2", attempts(folder)[kind])
    with refused("which is not loaded without --trust-pickle: a file can run any code that way"):
        load_exported(path)
    assert not folder.exists()


@pytest.mark.parametrize("kind", ["weight", "constant"])
def test_the_attempts_would_succeed_with_trust(exported, tmp_path, kind):
    folder = tmp_path / "evil"
    path = changed(exported, tmp_path / "evil.pt2", attempts(folder)[kind])
    with contextlib.suppress(ValueError):
        load_exported(path, trust_pickle=True)
    assert folder.exists()


def test_example_inputs_are_left_where_they_are(exported, tmp_path):
    folder = tmp_path / "evil"
    path = changed(exported, tmp_path / "evil.pt2", {"sample_inputs/model.pt": saved(Evil(folder))})
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(load_exported(path)(x), load_exported(exported)(x))
    assert not folder.exists()
    with pytest.raises(ValueError, match="is not a program"):
        load_exported(path, trust_pickle=True)
    assert folder.exists(), "the attempt would not have succeeded: this shows nothing"


def test_compiled_libraries_and_extra_files_are_left_where_they_are(exported, tmp_path):
    extras = {"data/aotinductor/model/model.so": b"no library", "extra/notes": b"\xff"}
    assert load_exported(changed(exported, tmp_path / "extra.pt2", extras))(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def evil_text(folder):
    return f"__import__('os').mkdir({str(folder)!r})"


def in_program(change):
    def program(text):
        parsed = json.loads(text)
        change(parsed, parsed["graph_module"]["graph"])
        return json.dumps(parsed)

    return program


def evil_size(folder):
    def change(_, graph):
        sizes = [size for value in graph["tensor_values"].values() for size in value["sizes"] if "as_expr" in size]
        sizes[0]["as_expr"]["expr_str"] = evil_text(folder)

    return change


def evil_target(_, graph):
    graph["nodes"][-1]["target"] = "torch.os.mkdir"


def evil_inputs(program, _):
    spec = program["graph_module"]["module_call_graph"][0]["signature"]
    spec["in_spec"] = spec["in_spec"].replace("builtins.tuple", "collections.defaultdict")


def evil_name(_, graph):
    graph["nodes"][0]["name"] = "x = print(1)\n    y"


def evil_tensor(_, graph):
    graph["tensor_values"]["x')"] = graph["tensor_values"]["input"]


@pytest.mark.parametrize("kind", ["size", "target", "inputs", "name", "tensor"])
def test_code_in_the_graph_is_refused(exported, tmp_path, kind, refused):
    folder = tmp_path / "evil"
    change = {"size": evil_size(folder), "target": evil_target, "inputs": evil_inputs, "name": evil_name, "tensor": evil_tensor}[
        kind
    ]
    path = changed(exported, tmp_path / "evil.pt2", program=in_program(change))
    with refused("which is not loaded without --trust-pickle"):
        load_exported(path)
    assert not folder.exists()
    if kind == "size":
        with pytest.raises(ValueError, match="is not a program"):
            load_exported(path, trust_pickle=True)
        assert folder.exists(), "the attempt would not have succeeded: this shows nothing"


def test_code_in_guards_and_notes_is_left_where_it_is(exported, tmp_path):
    folder = tmp_path / "evil"

    def change(program, graph):
        program["guards_code"] = [evil_text(folder)]
        graph["nodes"][0]["metadata"] = {"stack_trace": evil_text(folder)}

    path = changed(exported, tmp_path / "evil.pt2", program=in_program(change))
    x = torch.randn(2, 1, 8, 8)
    assert load_exported(path)(x).shape == (2, 10)
    assert not folder.exists()
    with contextlib.suppress(ValueError, AssertionError):
        load_exported(path, trust_pickle=True)(x)
    assert folder.exists(), "the attempt would not have succeeded: this shows nothing"


def old_archive(path, state):
    """As torch before 2.9 wrote it."""
    from torch._export.serde.serialize import serialize

    program = torch.export.export(nn.Linear(4, 3), (torch.randn(2, 4),), dynamic_shapes=({0: torch.export.Dim("n")},))
    artifact = serialize(program)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("version", f"{json.loads(artifact.exported_program)['schema_version']['major']}.1")
        archive.writestr("serialized_exported_program.json", artifact.exported_program)
        archive.writestr("serialized_state_dict.pt", state(program.state_dict))
        archive.writestr("serialized_constants.pt", saved({}))
        archive.writestr("serialized_example_inputs.pt", saved(Evil(path.parent / "evil")))
    return path, program


def test_archives_of_before_are_read_if_they_hold_tensors_alone(tmp_path, refused, caplog):
    path, program = old_archive(tmp_path / "old.pt2", saved)
    x = torch.randn(5, 4)
    with torch.no_grad():
        assert torch.equal(load_exported(path)(x), program.module()(x))
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    path, _ = old_archive(tmp_path / "evil.pt2", lambda state: saved({**state, "evil": Evil(tmp_path / "evil")}))
    with refused("has something else than tensors in serialized_state_dict.pt, which is not loaded without --trust-pickle"):
        load_exported(path)
    assert not (tmp_path / "evil").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_records_of_one_name_are_refused(exported, tmp_path, refused):
    path = changed(exported, tmp_path / "twice.pt2")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(archive.namelist()[0], b"other")
    with refused("has two records of one name, which is not loaded without --trust-pickle"):
        load_exported(path)


# --- what a file may take: time, and memory


@pytest.mark.parametrize(
    "tower",
    [
        "Pow(Integer(10), Pow(Integer(10), Pow(Integer(10), Integer(10))))",
        "10**10**10**10",
        "Pow(Symbol('s77', positive=True, integer=True), Pow(Integer(9), Integer(99999)))",
        "Mod(Pow(Integer(7), Integer(9999999999)), Integer(10))",
    ],
)
def test_towers_of_powers_are_refused_at_once(exported, tmp_path, tower, refused):
    def change(_, graph):
        sizes = [size for value in graph["tensor_values"].values() for size in value["sizes"] if "as_expr" in size]
        sizes[0]["as_expr"]["expr_str"] = tower

    path = changed(exported, tmp_path / "tower.pt2", program=in_program(change))
    begun = time.monotonic()
    with refused("which is not loaded without --trust-pickle"):
        load_exported(path)
    assert time.monotonic() - begun < 5


def packed(source, target, name, size):
    """Copy an archive, in which a record is zeros, that are packed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        root = old.namelist()[0].partition("/")[0]
        for each in old.namelist():
            if each != f"{root}/{name}":
                new.writestr(each, old.read(each))
        with new.open(f"{root}/{name}", "w", force_zip64=True) as record:
            for _ in range(size // 2**20):
                record.write(bytes(2**20))
    return target


def peak_memory(action):
    """Bytes of Python objects while an action runs, at most."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "data/weights/weight_0",
            r"is not unpacked: its conv/data/weights/weight_0 unpacks to 209,715,200 bytes; expected",
        ),
        ("models/model.json", r"is not unpacked: its conv/models/model.json unpacks to"),
        ("byteorder", r"is not unpacked: its conv/byteorder unpacks to"),
        ("data/weights/model_weights_config.json", r"is not unpacked: its conv/data/weights/model_weights_config.json unpacks"),
        ("data/weights/model.pt", r"is not unpacked: its data/weights/model.pt is packed"),
        ("data/weights/weight_99", None),
        ("extra/notes", None),
        ("data/sample_inputs/model.pt", None),
    ],
)
def test_a_record_that_unpacks_to_more_than_it_may_is_not_unpacked(exported, tmp_path, name, message, refused):
    path = packed(exported, tmp_path / "bomb.pt2", name, 200 * 2**20)
    assert path.stat().st_size < 2**20

    def load():
        if message is None:
            assert load_exported(path)(torch.randn(2, 1, 8, 8)).shape == (2, 10)
        else:
            with refused(message):
                load_exported(path)

    assert peak_memory(load) < 50 * 2**20


def test_a_packed_archive_is_the_model_that_it_was(exported, tmp_path):
    path = packed(exported, tmp_path / "packed.pt2", "extra/notes", 0)
    x = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(load_exported(path)(x), load_exported(exported)(x))


def test_records_that_lie_over_each_other_are_refused(exported, tmp_path, refused):
    path = changed(exported, tmp_path / "overlap.pt2", {"data/weights/weight_50": bytes(100_000)})
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        entries, start = archive.infolist(), archive.start_dir
    large = next(entry for entry in entries if entry.filename.endswith("weight_50"))
    # The directory names the large record again and again.
    place = content.index(large.filename.encode(), start) - 46
    entry = content[place : place + 46 + len(large.filename)]
    copies = b"".join(entry.replace(b"weight_50", f"weight_{number}".encode()) for number in range(51, 99))
    end = content.rindex(b"PK\x05\x06")
    tail = bytearray(content[end:])
    count, length = len(entries) + 48, end - start + len(copies)
    tail[8:12] = count.to_bytes(2, "little") * 2
    tail[12:16] = length.to_bytes(4, "little")
    path.write_bytes(content[:end] + copies + bytes(tail))
    with refused("is not unpacked: its members lie over each other"):
        load_exported(path)


def test_a_view_of_a_larger_tensor_is_read(tmp_path):
    class View(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = torch.rand(1000)[10:14]

        def forward(self, x):
            return x * self.part

    x = torch.randn(3, 4)
    model = View().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = export(model, tmp_path / "view.pt2", torch.randn(2, 4))
    assert torch.equal(load_exported(path)(x), model(x))


def test_a_checkpoint_that_is_packed_is_refused(tmp_path, refused):
    from sensitometer.models.checkpoints import read_checkpoint

    torch.save({"weight": torch.zeros(100)}, tmp_path / "plain.pt")
    assert read_checkpoint(tmp_path / "plain.pt")["weight"].shape == (100,)
    with zipfile.ZipFile(tmp_path / "plain.pt") as old, zipfile.ZipFile(tmp_path / "p.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with refused("p.pt is not unpacked: its plain/data.* is packed, which torch.save does not do; save it again with torch.save"):
        read_checkpoint(tmp_path / "p.pt")
