"""Surveys of data of one's own: identified by content, in a file or a folder of images."""

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sensitometer as sm
from sensitometer.data.identified import content_sha256, identify, load_identified
from sensitometer.errors import DataError, InvalidInputError, StoreError
from sensitometer.survey.checking import check_survey
from sensitometer.survey.spec import load_spec, parse_spec
from sensitometer.survey.status import survey_status

SPEC = """
# A survey of data of my own.
[survey]
name = "mine"
[data]
file = "my.npz"
train_points = 30
[space]
width = [16]
depth = [2, 3]
learning_rate = [0.1]
batch_size = [20]
[training]
steps = 30
[measure]
jacobian = 5
transitions = 1
points = 8
"""
FILE = '[data]\nfile = "my.npz"'


def arrays(seed=0):
    stream = np.random.default_rng(seed)
    centres = stream.normal(size=(3, 1, 4, 5))

    def part(count):
        y = np.arange(count) % 3
        return np.clip(128 + 60 * centres[y] + 20 * stream.normal(size=(count, 1, 4, 5)), 0, 255).astype(np.uint8), y

    (x_train, y_train), (x_test, y_test) = part(45), part(12)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


@pytest.fixture
def mine(tmp_path):
    """A folder with the specification and its file of data."""
    folder = tmp_path / "mine"
    folder.mkdir()
    np.savez(folder / "my.npz", **arrays())
    (folder / "my.toml").write_text(SPEC)
    return folder


def changed(folder, before, after):
    """Write the specification with another text, and return its file."""
    assert before in SPEC
    (folder / "other.toml").write_text(SPEC.replace(before, after))
    return folder / "other.toml"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A survey of a file that was trained, and the folder of the file."""
    folder = tmp_path_factory.mktemp("mine")
    np.savez(folder / "my.npz", **arrays())
    (folder / "my.toml").write_text(SPEC.replace("transitions = 1\n", "").replace("steps = 30", "steps = 600"))
    out = folder / "out"
    sm.run_survey(folder / "my.toml", out, workers=1).close()
    return folder, out


def test_a_survey_of_a_file_trains_what_its_arrays_train(done):
    folder, out = done
    with sm.open_survey(out) as store:
        frame = store.frame().set_index("id")
    sha256 = content_sha256(folder / "my.npz")
    assert set(frame["dataset"]) == {f"my-{sha256[:12]}"}
    dataset = load_identified(folder / "my.npz", name=f"my-{sha256[:12]}", sha256=sha256, train_points=30)
    assert dataset.train.y.bincount().tolist() == [10, 10, 10]
    spec, _ = load_spec(folder / "my.toml")
    for result in sm.train(list(spec.configurations()), dataset, jacobian_points=5):
        for column in ("train_loss", "test_accuracy", "jacobian_norm"):
            assert frame.loc[result.row["id"], column] == pytest.approx(result.row[column], rel=1e-4), column


def test_figures_and_claims_know_the_classes(done, run):
    _, out = done
    status, _, said = run("figures", out, "--only", "11")
    assert status == 0, said
    share = next((out / "figures").glob("*share.csv")).read_text().splitlines()
    assert dict(zip(share[0].split(","), share[1].split(","), strict=True))["classes"] == "3"
    status, output, _ = run("claims", out)
    assert (status, "my-" in output) == (0, True)


def test_a_file_that_was_moved_is_the_same_and_one_that_was_changed_is_not(done, tmp_path, refused):
    folder, out = done
    shutil.copytree(out, tmp_path / "out")
    out = tmp_path / "out"
    shutil.copy(folder / "my.npz", tmp_path / "moved.npz")
    (tmp_path / "my.toml").write_text((folder / "my.toml").read_text().replace("my.npz", "moved.npz"))
    with refused(r"holds a survey with another specification \(data.file\)", StoreError):  # another name
        sm.run_survey(tmp_path / "my.toml", out, workers=1)
    (tmp_path / "my.npz").write_bytes((folder / "my.npz").read_bytes())
    (tmp_path / "my.toml").write_text((folder / "my.toml").read_text())
    with sm.run_survey(tmp_path / "my.toml", out, workers=1) as store:
        assert tomllib.loads(store.specification)["data"]["file"] == str(tmp_path / "my.npz")
    # Without the data no more networks can be trained; all else can be done.
    (tmp_path / "my.npz").unlink()
    assert (check_survey(out), survey_status(out).networks) == ([], 2)
    np.savez(tmp_path / "my.npz", **arrays(seed=1))
    with refused(r"holds a survey with another specification \(data.sha256\)", StoreError):
        sm.run_survey(tmp_path / "my.toml", out, workers=1)
    with refused("my.npz was changed since the survey began: its SHA-256 is .*; put it back, or begin another", DataError):
        sm.run_survey(out / "spec.toml", tmp_path / "again", workers=1)
    assert not (tmp_path / "again").exists()
    with refused("no data .*nowhere.npz: there is no such file", DataError):
        load_identified(tmp_path / "nowhere.npz", name="a", sha256="")


def test_the_text_of_the_specification_says_where_the_file_is_and_what(mine):
    spec, text = load_spec(mine / "my.toml")
    data = tomllib.loads(text)["data"]
    expected = {"shape": [1, 4, 5], "classes": 3, "points": [45, 12], "sha256": content_sha256(mine / "my.npz")}
    assert data == {"file": str(mine / "my.npz"), "train_points": 30, **expected}
    assert text.startswith("\n# A survey of data of my own.")
    assert parse_spec(text, "again") == spec
    (sizes,) = spec.sizes().values()
    assert (sizes.inputs, sizes.classes, sizes.train_points, sizes.test_points, sizes.loop_vertices) == (20, 3, 30, 12, 5)
    # Other content, other networks; a name of one's own changes what they are called.
    before = {network.id for network in spec.configurations()}
    np.savez(mine / "my.npz", **arrays(seed=1))
    assert not before & {network.id for network in load_spec(mine / "my.toml")[0].configurations()}
    assert load_spec(changed(mine, FILE, f'{FILE}\nname = "faces"'))[0].data.names[0].startswith("faces-")


def test_a_folder_of_images_and_a_normalisation(mine):
    data = arrays()
    for part in ("train", "test"):
        for place, (x, y) in enumerate(zip(data[f"x_{part}"], data[f"y_{part}"], strict=True)):
            file = mine / "images" / part / str(y) / f"{place:03}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(x[0]).save(file)
    spec, text = load_spec(changed(mine, 'file = "my.npz"', 'file = "images"\nnormalise = "0.5/0.25"'))
    assert spec.data.points == (45, 12)
    before = spec.data.sha256
    (mine / "images" / ".DS_Store").write_text("x")
    (mine / "images" / "train" / "Thumbs.db").write_text("x")
    assert content_sha256(mine / "images") == before
    assert parse_spec(text, "again") == spec
    dataset = load_identified(mine / "images", name=spec.data.names[0], sha256=before, train_points=30, normalise="0.5/0.25")
    assert (dataset.class_names, dataset.shape, len(dataset.train.y)) == (("0", "1", "2"), (1, 4, 5), 30)
    assert dataset.test.x[0, 0] == pytest.approx((data["x_test"][0, 0, 0, 0] / 255 - 0.5) / 0.25, rel=1e-5)
    image = mine / "images" / "test" / "0" / "000.png"
    image.rename(image.with_name("00.png"))
    assert content_sha256(mine / "images") != before


def test_points_that_are_no_images_are_trained_on_without_what_needs_images(mine, refused):
    data = {name: array.reshape(len(array), -1) / 255 if name.startswith("x") else array for name, array in arrays().items()}
    np.savez(mine / "my.npz", **data)
    for before, after, message in (
        ("name", "name", "measure.transitions: expected 0 for points of my-.*, 20, which are no images .*; got 1"),
        ("transitions = 1", "paths = 24", "measure.paths: expected 0 for points of my-"),
        ("transitions = 1", "slice = true", "measure.slice: expected false for points of my-"),
    ):
        with refused(message):
            load_spec(changed(mine, before, after))
    table = SPEC.replace("transitions = 1\n", "")
    (mine / "my.toml").write_text(table.replace("batch_size", 'augmentation = ["shift-flip"]\nbatch_size'))
    with refused(r"space.augmentation\[0\]: expected none for points of my-.*; got 'shift-flip'"):
        load_spec(mine / "my.toml")
    (mine / "my.toml").write_text(table)
    spec, _ = load_spec(mine / "my.toml")
    dataset = load_identified(mine / "my.npz", name=spec.data.names[0], sha256=spec.data.sha256)
    assert all(result.row["jacobian_norm"] > 0 for result in sm.train(list(spec.configurations()), dataset))


WRONG = [
    ('"my.npz"', '"no.npz"', DataError, "data.file: no data .*no.npz: there is no such file"),
    ('"my.npz"', '"my.toml"', InvalidInputError, "data.file: .*my.toml must be an .npz file or a folder of images by class"),
    ('"my.npz"', "7", InvalidInputError, "data.file: expected str; got 7"),
    ('"my.npz"', '""', InvalidInputError, "data.file: expected str of length >= 1; got ''"),
    (FILE, f'{FILE}\nsha256 = "00"', InvalidInputError, "data.sha256: expected [0-9a-f]{64}, as .*my.npz has; got '00'"),
    (FILE, f"{FILE}\nclasses = 4", InvalidInputError, "data.classes: expected 3, as .*my.npz has; got 4"),
    (FILE, f"{FILE}\ncrop = 4", InvalidInputError, "data.crop: expected none with data.file; got 4"),
    (FILE, f'{FILE}\nname = ["a", "b"]', InvalidInputError, "data.name: expected one name for data.file; got"),
    (FILE, f'{FILE}\nname = "a\\tb"', InvalidInputError, "data.name: expected printable text; got"),
    (FILE, f'{FILE}\nnormalise = "half"', InvalidInputError, "data.normalise: expected sphere, none or MEAN/STD, .*; got 'half'"),
    (
        FILE,
        f'{FILE}\nnormalise = "1,2/1,1"',
        InvalidInputError,
        "data.normalise: expected one mean and deviation, or one per channel",
    ),
    (FILE, '[data]\n"file" = "my.npz"', InvalidInputError, r"data.file: expected a line of its own below \[data\]"),
    (FILE, '[data]\nname = "digits"\nclasses = 10', InvalidInputError, "data.classes: expected none without data.file; got 10"),
    (FILE, "[data]", InvalidInputError, "data.name: expected a value, got none"),
    ("train_points = 30", "train_points = 46", InvalidInputError, "data.train_points: expected 3 to 45 for my-.*; got 46"),
    ("jacobian = 5", "jacobian = 13", InvalidInputError, "measure.jacobian: expected at most 12, the test points of my-"),
    (
        "batch_size",
        'augmentation = ["shift-flip-rotate"]\nbatch_size',
        InvalidInputError,
        r"space.augmentation\[0\]: expected no rotations of my-.*, whose images are 1 x 4 x 5",
    ),
]


@pytest.mark.parametrize(("before", "after", "kind", "message"), WRONG)
def test_what_is_wrong_is_one_line_with_its_key(mine, before, after, kind, message, refused):
    with refused(f"other.toml: {message}", kind):
        load_spec(changed(mine, before, after))


def test_a_text_without_the_keys_that_say_what_the_file_is_is_refused(refused):
    with refused("my.toml: data.sha256: expected a value, which load_spec and the command line take from data.file; got none"):
        parse_spec(SPEC, "my.toml")


@pytest.mark.parametrize(
    ("without", "message"),
    [
        (("x_train", "y_train"), "must hold training points to train on: x_train and y_train, or a folder train/"),
        (("y_train",), "must hold the classes of its training points, whole numbers; it holds none"),
        (("y_test",), "must hold the classes of its test points"),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused(mine, without, message, refused):
    np.savez(mine / "less.npz", **{name: array for name, array in arrays().items() if name not in without})
    with refused(f"less.npz {message}", DataError):
        identify(mine / "less.npz")


def test_what_a_file_is_is_found_out_without_torch(mine):
    code = f"""
import sys
from sensitometer.survey.spec import load_spec
load_spec({json.dumps(str(mine / "my.toml"))})
print("torch" in sys.modules)
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert answer.stdout == "False\n"


def test_the_sum_of_a_file_is_that_of_sha256sum(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert content_sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
