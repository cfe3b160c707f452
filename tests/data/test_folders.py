"""Data of one's own in folders of images and in files."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sensitometer as sm
from sensitometer.data import Dataset
from sensitometer.data.identified import content_sha256
from sensitometer.errors import DataError

STREAM = np.random.default_rng(0)


def pixels(*shape):
    return STREAM.integers(0, 256, shape, dtype=np.uint8)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array, **options).save(path)
    return path


@pytest.fixture
def photos(tmp_path):
    """A folder of images by class, and their pixels in the order of the paths."""
    folder = tmp_path / "photos"
    arrays = {}
    for part, count in (("train", 3), ("test", 2)):
        for label in ("cat", "dog"):
            for i in range(count):
                arrays[part, label, i] = pixels(6, 8, 3)
                save(folder / part / label / f"{i}.png", arrays[part, label, i])
    return folder, arrays


def test_a_folder_and_a_file_of_the_same_pixels_are_the_same_data(photos, tmp_path):
    folder, arrays = photos
    split = {part: np.array([array for key, array in arrays.items() if key[0] == part]) for part in ("train", "test")}
    labels = {part: [int(key[1] == "dog") for key in arrays if key[0] == part] for part in ("train", "test")}
    channels_first = {part: split[part].transpose(0, 3, 1, 2) for part in split}
    np.savez(
        tmp_path / "photos.npz", **{f"x_{part}": channels_first[part] for part in split}, **{f"y_{p}": labels[p] for p in labels}
    )
    np.savez_compressed(
        tmp_path / "last.npz", **{f"x_{part}": split[part] for part in split}, **{f"y_{p}": labels[p] for p in labels}
    )
    of_folder = sm.Dataset.from_folder(folder, normalise="0.5/0.25")
    assert (of_folder.name, of_folder.shape, of_folder.classes) == ("photos", (3, 6, 8), 2)
    assert (of_folder.class_names, of_folder.notes) == (("cat", "dog"), ())
    for name in ("photos", "last"):
        of_file = sm.Dataset.from_file(tmp_path / f"{name}.npz", normalise="0.5/0.25")
        assert (of_file.name, of_file.shape, of_file.classes) == (name, (3, 6, 8), 2)
        for part in ("train", "test"):
            ours, theirs = getattr(of_folder, part), getattr(of_file, part)
            assert torch.equal(ours.x, theirs.x)
            assert torch.equal(ours.y, theirs.y)
            assert ours.y.tolist() == labels[part]


def test_classes_alone_are_a_test_set_and_images_alone_have_no_labels(tmp_path):
    for label in ("b", "a", "train"):
        save(tmp_path / "classes" / label / "deep" / "1.png", pixels(4, 4))
        save(tmp_path / "flat" / f"{label}.png", pixels(4, 4))
    (tmp_path / "classes" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "classes" / "a" / "Thumbs.db").write_bytes(b"x")
    dataset = sm.Dataset.from_folder(tmp_path / "flat")
    assert (dataset.has_labels, dataset.classes, dataset.shape, len(dataset.test.y)) == (False, 0, (1, 4, 4), 3)
    save(tmp_path / "classes" / "train" / "2.png", pixels(4, 4))
    (tmp_path / "classes" / "train" / "deep" / "1.png").unlink()
    (tmp_path / "classes" / "train" / "deep").rmdir()
    # A class may have the name of a set.
    dataset = sm.Dataset.from_folder(tmp_path / "classes")
    assert (dataset.class_names, dataset.test.y.tolist(), len(dataset.train.y)) == (("a", "b", "train"), [0, 1, 2], 0)


def test_val_is_the_test_set_where_there_is_no_other(tmp_path):
    save(tmp_path / "train" / "a" / "1.png", pixels(4, 4))
    save(tmp_path / "val" / "b" / "1.png", pixels(4, 4))
    dataset = sm.Dataset.from_folder(tmp_path)
    assert (dataset.class_names, dataset.train.y.tolist(), dataset.test.y.tolist()) == (("a", "b"), [0], [1])
    assert dataset.notes == (f"the test points are those of {tmp_path / 'val'}",)


def test_grey_images_stay_grey_unless_others_are_in_colour(tmp_path):
    grey = pixels(4, 4)
    save(tmp_path / "a" / "1.png", grey)
    Image.fromarray(grey > 100).save(tmp_path / "a" / "2.png")
    dataset = sm.Dataset.from_folder(tmp_path)
    assert torch.equal(dataset.test.x[0], torch.from_numpy(grey).flatten() / 255)
    assert torch.equal(dataset.test.x[1], torch.from_numpy(grey > 100).flatten().float())
    palette = Image.fromarray(pixels(4, 4, 3)).quantize(8)
    palette.save(tmp_path / "a" / "3.png")
    opaque = np.concatenate([pixels(4, 4, 3), np.full((4, 4, 1), 255, np.uint8)], axis=2)
    save(tmp_path / "a" / "4.png", opaque)
    dataset = sm.Dataset.from_folder(tmp_path)
    assert dataset.notes == ("2 grey images of 4 became RGB, as the others are",)
    expected = [np.stack([grey] * 3, 2), np.stack([255 * (grey > 100)] * 3, 2), np.array(palette.convert("RGB")), opaque[..., :3]]
    for x, image in zip(dataset.test.x, expected, strict=True):
        assert torch.equal(x.view(3, 4, 4), torch.tensor(image, dtype=torch.float32).permute(2, 0, 1) / 255)


def test_other_sizes_are_cut_and_scaled_if_asked_for(tmp_path, refused):
    same = pixels(6, 6, 3)
    save(tmp_path / "a" / "1.bmp", same)
    save(tmp_path / "a" / "2.png", np.full((12, 30, 3), 77, np.uint8))
    save(tmp_path / "a" / "3.jpg", pixels(6, 6, 3))
    with refused(r"2.png is 30 x 12 pixels, most others 6 x 6: .*size=6 \(--size 6\)", DataError):
        sm.Dataset.from_folder(tmp_path)
    dataset = sm.Dataset.from_folder(tmp_path, size=6)
    assert dataset.shape == (3, 6, 6)
    assert torch.equal(dataset.test.x[0].view(3, 6, 6), torch.from_numpy(same).permute(2, 0, 1) / 255)
    assert (dataset.test.x[1] == np.float32(77) / np.float32(255)).all()
    with refused("size must be a whole number from 1 to 16384; got 0"):
        sm.Dataset.from_folder(tmp_path, size=0)


def damaged(folder):
    """Yield for each kind of wrong folder a path, and what is said of it."""
    png = save(folder / "good.png", pixels(6, 8, 3)).read_bytes()
    jpeg = save(folder / "good.jpg", pixels(6, 8, 3)).read_bytes()
    flipped = bytearray(png)
    flipped[60] ^= 255
    for number, (name, content, message) in enumerate(
        (
            ("x.png", png[: len(png) // 2], "x.png cannot be read as PNG: image file is truncated"),
            ("x.png", bytes(flipped), "x.png cannot be read as PNG: broken data stream"),
            ("x.png", b"hello", "x.png cannot be read as PNG: it is no such image"),
            ("x.png", b"", "x.png cannot be read as PNG: it is no such image"),
            ("x.jpg", jpeg[:-100], "x.jpg cannot be read as JPEG: "),
            ("x.jpg", png, "x.jpg cannot be read as JPEG: it is no such image"),
            ("x.heic", png, "x.heic is no image that can be read .*: convert it, or move it out of the folder"),
            ("../x.png", png, "x.png lies beside the folders of classes: move it into one of them"),
        )
    ):
        path = folder / str(number)
        save(path / "a" / "1.png", pixels(6, 8, 3))
        (path / "a" / name).write_bytes(content)
        yield path, message
    save(folder / "deep" / "a" / "1.png", STREAM.integers(0, 60000, (4, 4), dtype=np.uint16))
    yield folder / "deep", "1.png must have 8 bits per channel; its mode is I;16"
    save(folder / "clear" / "a" / "1.png", pixels(4, 4, 4))
    yield folder / "clear", "1.png is transparent in places: put a background behind it"
    frames = [Image.fromarray(pixels(4, 4)) for _ in range(3)]
    (folder / "many" / "a").mkdir(parents=True)
    frames[0].save(folder / "many" / "a" / "1.tiff", save_all=True, append_images=frames[1:])
    yield folder / "many", "1.tiff must hold one image; it holds 3: take them apart"
    (folder / "empty").mkdir()
    yield folder / "empty", r"empty must hold images: test/CLASS/ \(and train/CLASS/\), or CLASS/, or images alone; it is empty"
    save(folder / "class" / "a" / "1.png", pixels(4, 4))
    (folder / "class" / "b").mkdir()
    yield folder / "class", "b must hold images of a class; it is empty"
    save(folder / "untested" / "train" / "a" / "1.png", pixels(4, 4))
    yield folder / "untested", "untested must hold .*; it has train/ and no test/"
    yield folder / "nowhere", "no data .*nowhere: there is no such folder"


def test_what_is_wrong_with_a_folder_is_one_line_that_names_the_file(tmp_path, refused):
    for path, message in damaged(tmp_path):
        with refused(message, DataError):
            sm.Dataset.from_folder(path)


def test_a_file_of_a_test_set_alone_may_lack_labels(tmp_path):
    x = STREAM.normal(size=(5, 3))
    np.savez(tmp_path / "table.npz", x=x)
    dataset = sm.Dataset.from_file(tmp_path / "table.npz", name="measured", classes=4)
    assert (dataset.name, dataset.shape, dataset.classes, dataset.has_labels) == ("measured", (3,), 4, False)
    np.testing.assert_array_equal(dataset.test.x.numpy(), x.astype(np.float32))


def wrong_files(folder):
    x, y = pixels(6, 3, 8, 8), np.arange(6) % 3
    good = folder / "good.npz"
    np.savez(good, x=x, y=y)
    content = good.read_bytes()
    flipped = bytearray(content)
    flipped[400] ^= 255
    for name, made, message in (
        ("short", content[:200], "must be an .npz file, as numpy.savez writes it; it cannot be read: File is not a zip file"),
        ("flipped", bytes(flipped), "x cannot be read: Bad CRC-32"),
        ("text", b"hello there", "must be an .npz file, .*; it cannot be read: it is neither a zip file nor an array"),
        ("nothing", b"", "must be an .npz file"),
        # The first entry says that it needs a newer version of the format.
        (
            "newer",
            content.replace(b"PK\1\2\x2d\3\x2d", b"PK\1\2\x2d\3\xff"),
            "x cannot be read|it cannot be read: zip file version",
        ),
    ):
        (folder / f"{name}.npz").write_bytes(made)
        yield name, message
    infinite = x.astype(float)
    infinite[2, 0, 0, 0] = np.inf
    for name, arrays, message in (
        ("names", {"images": x, "labels": y}, r"must hold x \(and y\), or x_test .*; it holds images, labels"),
        ("both", {"x": x, "x_test": x}, "must hold x .*; it holds x, x_test"),
        ("labels", {"y": y}, "must hold x .*; it holds y"),
        ("none", {}, "it holds nothing"),
        ("objects", {"x": np.array([{}, 1], dtype=object)}, "x cannot be read: it holds Python objects, which are not unpickled"),
        ("infinite", {"x": infinite}, "infinite.npz: x must hold finite numbers of float32; point 2 has inf"),
        ("shape", {"x_test": x, "x_train": x[:, :1]}, "x_train must hold points of 3 x 8 x 8, as x_test does; got 1 x 8 x 8"),
        ("range", {"x": x, "y": y - 1}, "range.npz: y must hold classes from 0; point 0 has -1"),
    ):
        np.savez(folder / f"{name}.npz", **arrays)
        yield name, message
    with (folder / "array.npz").open("wb") as stream:
        np.save(stream, x)
    yield "array", r"it holds a single array: numpy.savez\(FILE, x=x, y=y\)"
    (folder / "folder.npz").mkdir()
    yield "folder", "it cannot be read: Is a directory"
    yield "nowhere", "no data .*nowhere.npz: there is no such file"


def test_what_is_wrong_with_a_file_is_one_line_that_names_it(tmp_path, refused):
    for name, message in wrong_files(tmp_path):
        with refused(message, DataError):
            sm.Dataset.from_file(Path(tmp_path, f"{name}.npz"))


def test_what_never_ends_is_no_data(tmp_path, refused):
    for name in ("points.npz", "images/cat/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(tmp_path / name)
    with refused("points.npz must be an .npz file, as numpy.savez writes it; it is a pipe or a device", DataError):
        Dataset.from_file(tmp_path / "points.npz")
    with refused("a.png is no image that can be read", DataError):
        Dataset.from_folder(tmp_path / "images")
    with refused("points.npz must be a file; it is a pipe or a device", DataError):
        content_sha256(tmp_path / "points.npz")


def test_an_array_that_unpacks_to_far_more_is_not_unpacked(tmp_path, refused, monkeypatch):
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros((10_000, 40), np.uint8))
    assert Dataset.from_file(tmp_path / "bomb.npz").test.x.shape == (10_000, 40)
    monkeypatch.setattr("sensitometer.data.archives.MOST_BYTES", 10**5)
    with refused(
        r"bomb.npz must be an .npz file.*: x.npy has \d+ bytes, which unpack to 400,128; save it with numpy.savez", DataError
    ):
        Dataset.from_file(tmp_path / "bomb.npz")
    np.savez(tmp_path / "plain.npz", x=np.zeros((10_000, 40), np.uint8))
    assert Dataset.from_file(tmp_path / "plain.npz").test.x.shape == (10_000, 40)
