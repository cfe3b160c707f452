"""The networks of a survey: a TOML specification, checked key by key, and the set of configurations that it stands for."""

import importlib.resources
import itertools
import math
import re
import tomllib
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ..configuration import Configuration
from ..data.sources import find_source
from ..errors import InvalidInputError
from ..files import read_bytes
from ..store.arrays import FEWEST_BINS
from .data_section import AtLeastOne, DataSection, DataSet, Section, check_points, check_section, with_identity
from .grid import Grid, draw_places
from .scheduling.cost import MOST_BINS, Measures, Sizes
from .wording import CONTROL, SHORT, cut, one_line, read_toml, require

# Networks of a survey: three times as many as the largest of the paper has. Places of the grid that a sample is drawn from.
MOST_NETWORKS, MOST_PLACES = 10**6, 10**7
# Bytes of the longest specification.
LONGEST_SPECIFICATION = 10_000_000
PRESETS = importlib.resources.files("sensitometer") / "experiments"


class SurveySection(Section, frozen=True):
    """`[survey]`: the survey's name, and whether the trained weights are kept in `weights/`."""

    name: Annotated[str, Meta(min_length=1)]
    keep_weights: bool = False


class SpaceSection(Section, frozen=True):
    """`[space]`: an axis a key, each a list of values without repetition."""

    width: tuple[int, ...]
    depth: tuple[int, ...]
    activation: tuple[str, ...] = ("relu",)
    init_scale: tuple[float, ...] = (1.0,)
    optimizer: tuple[str, ...] = ("momentum",)
    learning_rate: tuple[float, ...] = (0.005,)
    batch_size: tuple[int, ...] = (256,)
    labels: tuple[str, ...] = ("true",)
    augmentation: tuple[str, ...] = ("none",)
    loss: tuple[str, ...] = ("cross-entropy",)
    seed: tuple[int, ...] = (1,)


class SampleSection(Section, frozen=True):
    """
    `[sample]`: draw `count` networks from the space, without repetition, rather than all of it.

    With `weight = "inverse-cost"`, configurations are drawn with probability in inverse proportion to their training FLOPs.
    """

    count: AtLeastOne
    seed: Annotated[int, Meta(ge=0)] = 1
    weight: Literal["uniform", "inverse-cost"] = "uniform"


class TrainingSection(Section, frozen=True):
    """`[training]`: most steps of a network, and the keys of `Schedule`."""

    steps: Annotated[int, Meta(ge=0)]
    decay_every_epochs: AtLeastOne | None = 500
    stop_at_accuracy: Annotated[float, Meta(gt=0, le=1)] | None = None
    checkpoint_steps: AtLeastOne | None = None


class Spec(Section, frozen=True):
    """A survey's specification, checked; `load_spec` and `parse_spec` make it."""

    survey: SurveySection
    data: DataSection
    space: SpaceSection
    training: TrainingSection
    sample: SampleSection | None = None
    measure: Measures = Measures()

    def grid(self) -> Grid:
        """Return the space's configurations, seeds apart."""
        space = msgspec.structs.asdict(self.space)
        del space["seed"]
        return Grid({"dataset": self.data.names, **space}, self.training.steps)

    def configurations(self) -> Iterator[Configuration]:
        """
        Yield the survey's networks, each once, in an order that the specification alone decides; seeds of one follow each other.

        A sample that grows keeps its networks: each configuration has a random key, and the lowest are taken. (Weighted: A-ES of
        Efraimidis and Spirakis 2006, with keys $-\\log(u) / w$.)
        """
        yield from (configuration for _, configuration in self.networks())

    def networks(self) -> Iterator[tuple[int, Configuration]]:
        """Yield the same, each with its place in the grid, which `Grid.configuration` takes."""
        grid = self.grid()
        first, *others = self.space.seed
        drawn: Sequence[int] = range(len(grid))
        if self.sample is not None:
            # Where nothing is trained all cost the same.
            weighted = self.sample.weight == "inverse-cost" and grid.steps > 0
            costs = grid.training_flops(self.sizes()) if weighted else None
            drawn = draw_places(len(grid), math.ceil(self.sample.count / len(self.space.seed)), self.sample.seed, costs)
        firsts = ((place, grid.configuration(place, first)) for place in drawn)
        networks = ((place, network) for place, seeded in firsts for network in (seeded, *map(seeded.with_seed, others)))
        yield from itertools.islice(networks, self.sample.count if self.sample else None)

    def __len__(self) -> int:
        whole = len(self.grid()) * len(self.space.seed)
        return whole if self.sample is None else self.sample.count

    def sizes(self) -> dict[str, Sizes]:
        """Return the sizes of each data set, as the survey uses it."""
        sizes = {}
        crop = self.data.crop
        for data in self.data.sets():
            shape = (data.shape[0], crop, crop) if crop else data.shape
            sizes[data.name] = Sizes(
                inputs=math.prod(shape),
                classes=data.classes,
                train_points=self.data.train_points or data.train_points,
                test_points=data.test_points,
                # No loops are taken of points that are no images.
                loop_vertices=shape[-1] if data.is_images else 2,
                measures=self.measure,
            )
        return sizes


# The table that each section is.
SECTIONS: dict[str, type[msgspec.Struct]] = {
    name: next(kind for kind in (hint, *typing.get_args(hint)) if isinstance(kind, type) and issubclass(kind, msgspec.Struct))
    for name, hint in typing.get_type_hints(Spec).items()
}


def preset_names() -> list[str]:
    """Return the names of the surveys that the package ships."""
    return sorted(file.name.removesuffix(".toml") for file in PRESETS.iterdir() if file.name.endswith(".toml"))


def load_spec(source: str | Path) -> tuple[Spec, str]:
    """
    Return a specification and its text: a preset's by its name, any other from a TOML file.

    Where it names a file of data, the text has the file's absolute path, since a survey keeps the text elsewhere, and what the
    file is.

    Raises
    ------
    InvalidInputError
        There is neither, the file is no TOML, or a key or value is wrong; the message has the key's full path.
    DataError
        The file of data cannot be read, or cannot be trained on.
    """
    if str(source) in preset_names():
        text = (PRESETS / f"{source}.toml").read_text(encoding="utf-8")
    else:
        try:
            # Editors of Windows put a byte order mark before it.
            text = read_bytes(source, LONGEST_SPECIFICATION, follow=True).decode("utf-8-sig")
        except FileNotFoundError:
            presets = ", ".join(preset_names())
            raise InvalidInputError(f"no specification {str(source)!r}: expected a TOML file, or one of {presets}") from None
        except (OSError, ValueError) as error:  # ValueError: it is no UTF-8, or its path has a NUL
            reason = getattr(error, "strerror", None) or error
            raise InvalidInputError(f"cannot read the specification {one_line(str(source))}: {reason}") from error
        text = with_identity(text, Path(source))
    return parse_spec(text, str(source)), text


def parse_spec(text: str, name: str) -> Spec:
    """Return the specification that `text` states; `name` is what to call it in an error. Raises as `load_spec` does."""
    document: Any = None
    name = one_line(name)
    try:
        document = read_toml(text)
        _check_keys(document)
        spec = msgspec.convert(document, Spec)
        _check(spec)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(f"{name} is not TOML: {cut(str(error))}") from None
    except RecursionError:
        raise InvalidInputError(f"{name} cannot be read: its arrays or tables are nested too deeply") from None
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"{name}: {_by_path(str(error), document)}") from None
    except InvalidInputError as error:
        raise InvalidInputError(f"{name}: {error}") from None
    return spec


def _check_keys(document: dict[str, Any]) -> None:
    """Refuse keys that are unknown, keys that are missing, and integers that TOML does not have."""
    _check_table("", document, Spec)
    for section, table in document.items():
        if isinstance(table, dict):
            _check_table(f"{section}.", table, SECTIONS[section])
            for key, value in table.items():
                for place, number in enumerate(value) if isinstance(value, list) else [(None, value)]:
                    if isinstance(number, int) and not -(2**63) <= number < 2**63:
                        path = f"{section}.{key}" if place is None else f"{section}.{key}[{place}]"
                        raise InvalidInputError(f"{path}: expected an integer between -2^63 and 2^63; got {SHORT.repr(number)}")


def _check_table(path: str, table: dict[str, Any], kind: type[msgspec.Struct]) -> None:
    fields = {field.name: field.required for field in msgspec.structs.fields(kind)}
    for key in table:
        if key not in fields:
            shown = key if re.fullmatch(r"[A-Za-z0-9_-]{1,60}", key) else SHORT.repr(key)
            raise InvalidInputError(f"{path}{shown}: unknown key; expected one of {', '.join(fields)}")
    for key, required in fields.items():
        if required and key not in table:
            raise InvalidInputError(f"{path}{key}: expected a value, got none")


def _by_path(message: str, document: dict[str, Any]) -> str:
    """Turn msgspec's "Expected `int`, got `str` - at `$.space.width[0]`" into "space.width[0]: expected int; got 'x'"."""
    # The path comes last: a value that is named before it may hold anything.
    message, _, path = message.replace("`", "").rpartition(" - at ")
    place = path.removeprefix("$.")
    value: Any = document
    for key in re.findall(r"[^.\[\]]+", place):
        value = value[int(key) if isinstance(value, list) else key]
    # TOML has tables, and no null.
    expected = message.partition(", got")[0].replace("Object", "table").replace("object", "table").replace(" | null", "")
    section, *keys = place.partition("[")[0].split(".")
    if keys and not re.match(r"Expected \w+ [<>]", expected):
        hint = typing.get_type_hints(SECTIONS[section])[keys[0]]
        parts = [part for part in (hint, *typing.get_args(hint)) if typing.get_origin(part) is Literal]
        if parts:
            others = [part.__name__ for part in typing.get_args(hint) if isinstance(part, type)]
            expected = f"expected {' or '.join(others + [repr(choice) for part in parts for choice in typing.get_args(part)])}"
    return f"{place}: {expected[0].lower()}{expected[1:]}; got {SHORT.repr(value)}"


def _check(spec: Spec) -> None:
    """Refuse what the types alone let through."""
    require(not re.search(CONTROL, spec.survey.name), "survey.name", "no control characters", spec.survey.name)
    check_section(spec.data)
    axes: dict[str, tuple[Any, ...]] = {} if spec.data.file is not None else {"data.name": spec.data.names}
    axes |= {f"space.{axis}": values for axis, values in msgspec.structs.asdict(spec.space).items()}
    for key, values in axes.items():
        require(values, key, "at least one value", [])
        seen = set()
        for place, value in enumerate(values):
            path = key if value is spec.data.name else f"{key}[{place}]"
            if value in seen:
                raise InvalidInputError(f"{path}: {SHORT.repr(value)} is there twice")
            seen.add(value)
            _check_value(path, key.partition(".")[2], value)
    for data in spec.data.sets():
        _check_data(spec, data)
    bins, checkpoint, steps = spec.measure.paths, spec.training.checkpoint_steps, spec.training.steps
    require(bins == 0 or bins >= FEWEST_BINS, "measure.paths", f"0, or {FEWEST_BINS} to {MOST_BINS}", bins)
    fits = checkpoint is None or checkpoint < steps
    require(fits, "training.checkpoint_steps", f"less than training.steps, {steps}", checkpoint)
    whole = len(spec.space.seed) * sum(spec.grid().sizes)
    # Counted before anything goes through them: a file may come from a stranger. A sample looks at each place of the grid.
    places = sum(spec.grid().sizes)
    if spec.sample is None and whole > MOST_NETWORKS:
        raise InvalidInputError(f"space: expected at most {MOST_NETWORKS:,} networks, or a [sample]; got {whole:.3g}")
    if places > MOST_PLACES:
        raise InvalidInputError(f"space: expected at most {MOST_PLACES:,} networks of each seed; got {places:.3g}")
    if spec.sample is not None:
        require(spec.sample.count <= MOST_NETWORKS, "sample.count", f"at most {MOST_NETWORKS:,}", spec.sample.count)
        require(spec.sample.count <= whole, "sample.count", f"at most {whole}, the size of the space", spec.sample.count)


def _check_value(path: str, axis: str, value: Any) -> None:
    try:
        if axis == "name":
            find_source(value)
        else:
            Configuration(**{"dataset": "any", "width": 1, "depth": 2, axis: value})
    except InvalidInputError as error:
        # The path says which axis it is. What is expected comes before the value, which may hold anything.
        require(False, path, str(error).partition("; got ")[0].partition(" must be ")[2], value)


def _check_data(spec: Spec, data: DataSet) -> None:
    """Refuse what does not go with a data set."""
    name, measure, crop = data.name, spec.measure, spec.data.crop
    if data.is_images:
        side = min(data.shape[1:])
        require(crop is None or crop <= side, "data.crop", f"at most {side}, the side of the images of {name}", crop)
    check_points(spec.data, data, measure, spec.space.augmentation)
    points = spec.data.train_points or data.train_points
    fits = data.classes <= points <= data.train_points
    require(fits, "data.train_points", f"{data.classes} to {data.train_points} for {name}", points)
    largest = max(spec.space.batch_size)
    fits = largest <= points or set(spec.space.optimizer) == {"lbfgs"}
    require(fits, "space.batch_size", f"at most {points}, the training points of {name}", largest)
    for key in ("jacobian", "transitions", "points"):
        measured = getattr(measure, key)
        fits = measured == "all" or measured <= data.test_points
        require(fits, f"measure.{key}", f"at most {data.test_points}, the test points of {name}", measured)
    # Three of them are of one class at least.
    least = 2 * data.classes + 1
    expected = f"at least {least} for {name}, among which are three of one class, for measure.paths or .slice"
    require(points >= least or not (measure.paths or measure.slice), "data.train_points", expected, points)
    if measure.slice and "tanh" in spec.space.activation:
        raise InvalidInputError("measure.slice: expected activations of linear pieces; got tanh in space.activation")
