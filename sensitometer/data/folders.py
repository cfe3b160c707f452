"""Reads folders of images, one folder per class, and trusts no byte of them. Imports no torch."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import DataError, check_whole_number, counted, one_line
from ..files import is_special
from .arrays import Arrays, Part, check_name

# By the endings of their files; no other format is tried.
FORMATS = {
    **dict.fromkeys((".jpg", ".jpeg"), "JPEG"),
    **dict.fromkeys((".ppm", ".pgm", ".pbm"), "PPM"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    ".png": "PNG",
    ".bmp": "BMP",
    ".webp": "WEBP",
}
_LAYOUTS = "test/CLASS/ (and train/CLASS/), or CLASS/, or images alone"
# Modes of Pillow with 8 bits or fewer per channel: grey, and in colour. `P`, a palette, is one of colours, whatever these are.
_GREY, _COLOUR = ("1", "L", "LA", "La"), ("RGB", "RGBA", "RGBX", "RGBa", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")
# System programs leave these in folders.
_PASSED_OVER = ("thumbs.db", "desktop.ini")


def read_folder(path: Path, *, size: int | None = None, name: str | None = None) -> Arrays:
    """Return the data set that the folder holds; see `Dataset.from_folder`."""
    name = check_name((path.resolve().name or "data") if name is None else name)
    size = None if size is None else check_whole_number("size", size, most=2**14)
    if not path.is_dir():
        raise DataError(f"no data {path}: there is no such folder")
    try:
        test, train, notes = _split(path)
        class_names = tuple(sorted({label for files in (test, train) for label, _ in files if label is not None}))
        files = [file for _, file in (*test, *train)]
        looks = [_look(file) for file in files]
        _check_sizes(files, [look[1] for look in looks], size)
        grey = all(mode in _GREY for mode, _ in looks)
        images = _images(files, grey, size or looks[0][1])
    except OSError as error:
        raise DataError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error
    place = {label: index for index, label in enumerate(class_names)}
    labels = np.array([-1 if label is None else place[label] for label, _ in (*test, *train)], dtype=np.int64)
    parts = [Part(x, y) for x, y in zip(np.split(images, [len(test)]), np.split(labels, [len(test)]), strict=True)]
    few = 0 if grey else sum(mode in _GREY for mode, _ in looks)
    if few:
        notes += (f"{counted(few, 'grey image')} of {len(files):,} became RGB, as the others are",)
    return Arrays(
        name, parts[1], parts[0], len(class_names), images.shape[1:], class_names, notes, tuple(str(file) for _, file in test)
    )


# An image, and the name of its class; None without classes.
Labelled = list[tuple[str | None, Path]]


def _split(path: Path) -> tuple[Labelled, Labelled, tuple[str, ...]]:
    """Return the images of the test and of the training set, and what was decided on the way."""
    folders = {folder.name: folder for folder in _listed(path) if folder.is_dir()}
    # A class may be called train or test, too: then there are images in its folder, and no folders.
    sets = {key: folders[key] for key in ("train", "test", "val") if key in folders and _has_folders(folders[key])}
    if not sets:
        return (_classes(path) if folders else _alone(path)), [], ()
    if "test" not in sets and "val" not in sets:
        raise DataError(f"{path} must hold {_LAYOUTS}; it has train/ and no test/")
    notes = () if "test" in sets else (f"the test points are those of {sets['val']}",)
    return _classes(sets.get("test", sets.get("val", path))), _classes(sets["train"]) if "train" in sets else [], notes


def _listed(folder: Path) -> list[Path]:
    """Return the files and folders in a folder, in the order of their names, but for hidden ones."""
    return sorted(path for path in folder.iterdir() if not passed_over(path.name))


def passed_over(name: str) -> bool:
    """Return whether a file or folder of this name is none of the user's."""
    return name.startswith(".") or name.lower() in _PASSED_OVER


def _has_folders(folder: Path) -> bool:
    return any(path.is_dir() for path in _listed(folder))


def _classes(folder: Path) -> Labelled:
    """Return the images of the classes, each a folder in `folder`."""
    images: Labelled = []
    for path in _listed(folder):
        if not path.is_dir():
            if path.suffix.lower() in FORMATS:
                raise DataError(f"{path} lies beside the folders of classes: move it into one of them")
            continue
        files = _images_below(path)
        if not files:
            raise DataError(f"{path} must hold images of a class; it is empty")
        images += [(path.name, file) for file in files]
    if not images:
        raise DataError(f"{folder} must hold a folder of images per class; it holds none")
    return images


def _alone(folder: Path) -> Labelled:
    """Return the images in a folder without folders, which have no labels."""
    files = _images_below(folder)
    if not files:
        raise DataError(f"{folder} must hold images: {_LAYOUTS}; it is empty")
    return [(None, file) for file in files]


def _images_below(folder: Path) -> list[Path]:
    """Return all images below a folder, in the order of their paths."""
    files = []
    for path in _listed(folder):
        if path.is_dir():
            files += _images_below(path)
        elif path.suffix.lower() in FORMATS and not is_special(path):
            files.append(path)
        else:
            endings = ", ".join(ending.removeprefix(".") for ending in FORMATS)
            raise DataError(f"{path} is no image that can be read ({endings}): convert it, or move it out of the folder")
    return files


def _look(file: Path) -> tuple[str, tuple[int, int]]:
    """Return the mode of an image and its height and width, from its header."""
    try:
        with Image.open(file, formats=[FORMATS[file.suffix.lower()]]) as image:
            mode, (width, height), frames = image.mode, image.size, getattr(image, "n_frames", 1)
    except Exception as error:
        # Pillow does not say what it raises for damaged files.
        raise DataError(_broken(file, error)) from error
    if mode not in (*_GREY, *_COLOUR):
        raise DataError(
            f"{file} must have 8 bits per channel; its mode is {mode}: save it with 8, "
            "or hand its numbers over with Dataset.from_arrays"
        )
    if frames > 1:
        raise DataError(f"{file} must hold one image; it holds {frames}: take them apart")
    return mode, (height, width)


def _broken(file: Path, error: Exception) -> str:
    said = (error.strerror if isinstance(error, OSError) else None) or one_line(error)
    reason = "it is no such image" if isinstance(error, UnidentifiedImageError) else said
    return f"{file} cannot be read as {FORMATS[file.suffix.lower()]}: {reason}"


def _check_sizes(files: Sequence[Path], sizes: Sequence[tuple[int, int]], size: int | None) -> None:
    if size is None and len(set(sizes)) > 1:
        usual = Counter(sizes).most_common(1)[0][0]
        other = next(place for place, shape in enumerate(sizes) if shape != usual)
        shorter = min(min(shape) for shape in sizes)
        raise DataError(
            f"{files[other]} is {_by(sizes[other])} pixels, most others {_by(usual)}: have all scaled to one size with "
            f"size={shorter} (--size {shorter})"
        )


def _by(shape: tuple[int, int]) -> str:
    return f"{shape[1]} x {shape[0]}"


def _images(files: Sequence[Path], grey: bool, size: int | tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return uint8 `[N, channels, height, width]`."""
    height, width = (size, size) if isinstance(size, int) else size
    images = np.empty((len(files), height, width, 1 if grey else 3), dtype=np.uint8)
    for place, file in enumerate(files):
        try:
            with Image.open(file, formats=[FORMATS[file.suffix.lower()]]) as image:
                pixels = _opaque(image, file).convert("L" if grey else "RGB")
        except DataError:
            raise
        except Exception as error:
            raise DataError(_broken(file, error)) from error
        if pixels.size != (width, height):
            pixels = ImageOps.fit(pixels, (width, height), Image.Resampling.BILINEAR)
        images[place] = np.asarray(pixels).reshape(height, width, -1)
    return np.ascontiguousarray(np.moveaxis(images, 3, 1))


def _opaque(image: Image.Image, file: Path) -> Image.Image:
    """Return the image; DataError if one could see through it."""
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        alpha = image.convert("RGBA").getchannel("A")
        if alpha.getextrema()[0] != 255:
            raise DataError(f"{file} is transparent in places: put a background behind it, and save it as RGB")
    return image
