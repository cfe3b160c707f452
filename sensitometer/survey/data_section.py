"""The table `[data]` of a specification: known data sets, or a file of data of one's own, and what goes with their points."""

import json
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from ..data.identified import identify
from ..data.sources import find_source
from ..data.transforms import Normalisation
from ..errors import InvalidInputError, SensitometerError, dimensions
from ..files import expanded
from .scheduling.cost import Measures
from .wording import SHORT, one_line, read_toml, require

AtLeastOne = Annotated[int, Meta(ge=1)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the specification; a key that it does not have is refused."""


class DataSection(Section, frozen=True):
    """
    `[data]`: one data set or several, cut to the centre `crop` x `crop` pixels, with `train_points` training points.

    Or a `file` of data of one's own, an `.npz` or a folder of images, with a `name` for figures. `load_spec` adds its absolute
    path, and the keys that say what it is: later commands need not open it, and workers see whether it has changed.
    """

    name: str | tuple[str, ...] | None = None
    crop: AtLeastOne | None = None
    train_points: AtLeastOne | None = None
    normalise: str | None = None  # None: `sphere` for the known data sets, `none` for a file
    file: Annotated[str, Meta(min_length=1)] | None = None
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")] | None = None
    shape: tuple[AtLeastOne, ...] | None = None  # of a point
    classes: AtLeastOne | None = None
    points: tuple[AtLeastOne, AtLeastOne] | None = None  # of the training and of the test set

    @property
    def names(self) -> tuple[str, ...]:
        """The data sets, in the order given. A file's has digits of its SHA-256: other content makes other configurations."""
        if self.file is not None:
            return (f"{self.name or Path(self.file).stem}-{(self.sha256 or '')[:12]}",)
        return (self.name,) if isinstance(self.name, str) else self.name or ()

    def sets(self) -> list["DataSet"]:
        """Return what the survey must know of each data set, before the crop."""
        if self.file is not None:
            assert self.shape is not None and self.classes is not None and self.points is not None
            return [DataSet(self.names[0], self.shape, self.classes, *self.points)]
        sources = [find_source(name) for name in self.names]
        return [DataSet(s.name, s.image_shape, s.classes, s.train.points, s.test.points) for s in sources]


# The keys of `DataSection` that say what a file is.
IDENTITY = ("sha256", "shape", "classes", "points")


class DataSet(NamedTuple):
    """The sizes of a data set, before the crop."""

    name: str
    shape: tuple[int, ...]
    classes: int
    train_points: int
    test_points: int

    @property
    def is_images(self) -> bool:
        """Whether its points are images (channels, height, width)."""
        return len(self.shape) == 3


def with_identity(text: str, source: Path) -> str:
    """Return the text of a specification with the absolute path of its file of data, and the keys that say what that is."""
    try:
        document = read_toml(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return text  # `parse_spec` says so
    data = document.get("data")
    if not isinstance(data, dict):
        return text
    file = data.get("file")
    if not isinstance(file, str) or not file or all(key in data for key in IDENTITY):
        return text
    place = f"{one_line(str(source))}: data"
    try:
        path = (source.absolute().parent / expanded(file, "it")).resolve()
        identity: dict[str, Any] = identify(path)._asdict()
    except SensitometerError as error:
        raise type(error)(f"{place}.file: {error}") from error
    written = {"file": str(path), **{key: list(value) if isinstance(value, tuple) else value for key, value in identity.items()}}
    for key in IDENTITY:
        if data.get(key, written[key]) != written[key]:
            raise InvalidInputError(f"{place}.{key}: expected {written[key]}, as {path} has; got {SHORT.repr(data[key])}")
    # JSON's strings, numbers and lists are TOML's, too.
    lines = [f"{key} = {json.dumps(value)}" for key, value in written.items() if key == "file" or key not in data]
    completed = re.sub(r"^[ \t]*file[ \t]*=[^\n]*$", lambda _: "\n".join(lines), text, count=1, flags=re.MULTILINE)
    try:
        complete = read_toml(completed) == document | {"data": data | written}
    except tomllib.TOMLDecodeError:
        complete = False
    if not complete:
        raise InvalidInputError(
            f'{place}.file: expected a line of its own below [data], such as file = "my.npz"; got it elsewhere'
        )
    return completed


def check_section(data: DataSection) -> None:
    """Refuse keys of `[data]` that do not go together."""
    if data.file is None:
        if data.name is None:
            raise InvalidInputError("data.name: expected a value, got none")
        for key in IDENTITY:
            require(getattr(data, key) is None, f"data.{key}", "none without data.file", getattr(data, key))
        return
    require(data.crop is None, "data.crop", "none with data.file", data.crop)
    require(data.name is None or isinstance(data.name, str), "data.name", "one name for data.file", data.name)
    require(data.names[0].isprintable(), "data.name", "printable text", data.name or Path(data.file).stem)
    for key in IDENTITY:
        if getattr(data, key) is None:
            raise InvalidInputError(
                f"data.{key}: expected a value, which load_spec and the command line take from data.file; got none"
            )


def check_points(section: DataSection, data: DataSet, measure: Measures, augmentations: tuple[str, ...]) -> None:
    """Refuse measures, augmentation and a normalisation that do not go with the points of a data set."""
    name, crop = data.name, section.crop
    try:
        if section.normalise is not None:
            Normalisation.parse(section.normalise).check(data.shape)
    except InvalidInputError as error:
        expected = str(error).partition("; got ")[0].partition(" must ")[2].removeprefix("be ").removeprefix("have ")
        require(False, "data.normalise", expected, section.normalise)
    width = crop or data.shape[-1] if data.is_images else 0
    reason = f"images of {name} cut to {width} pixel, which are all alike"
    if not data.is_images:
        reason = f"points of {name}, {dimensions(data.shape)}, which are no images (channels, height, width)"
    for key, nothing in (("transitions", "0"), ("paths", "0"), ("slice", "false")):
        require(width >= 2 or getattr(measure, key) == 0, f"measure.{key}", f"{nothing} for {reason}", getattr(measure, key))
    for place, augmentation in enumerate(augmentations):
        path = f"space.augmentation[{place}]"
        require(data.is_images or augmentation == "none", path, f"none for {reason}", augmentation)
        square = crop is not None or data.shape[-1] == data.shape[-2:][0]
        fits = square or augmentation != "shift-flip-rotate"
        require(fits, path, f"no rotations of {name}, whose images are {dimensions(data.shape)}", augmentation)
