"""The figures by their number in the paper, and the one function that draws and saves them. Cheap to import."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ..errors import InvalidInputError, MissingDataError, StoreError
from ..files import replacing
from .drawing.interface import FigureData, SavedFigures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..store import Store

_FILES = {
    "1": "gap.against_size_and_loss",
    "2": "sensitivity_along_ellipses",
    "3": "boundaries_on_a_slice",
    "4": "paired_settings",
    "5": "gap.against_jacobian",
    "6": "jacobian_against_loss",
    "7": "translation_and_boundaries",
    "8": "gap.against_transitions",
    "9": "jacobian_against_loss_elsewhere",
    "10": "occams_razor",
    "11": "jacobian_and_bounds",
}

NUMBERS = tuple(_FILES)
# Drawn of any survey, even of an empty one.
_SKETCH = "10"
FORMATS = ("png", "svg", "pdf")
# A file says the same whenever and wherever it was made.
_METADATA: dict[str, dict[str, str | None]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def save_figures(
    store: Store,
    folder: str | Path,
    only: Iterable[str] | None = None,
    formats: Sequence[str] = ("png", "svg"),
    *,
    paper_style: bool = False,
) -> SavedFigures:
    """
    Draw figures of a survey, and write each beside a CSV of the data drawn.

    The files are `figure_<number>_<content>.<format>`, `.csv` with the points or lines, and for the rest of the panels `_tau.csv`
    (1, 5 and 8: correlations), `_points.csv` (2: training points), `_distances.csv` (3: of the points from boundaries),
    `_share.csv` (4: of pairs; 11: of points), `_auroc.csv` (6 and 9: one row per network), `_crossings.csv` (7: of the loop),
    `_marked.csv` (10: data sets) and `_bounds.csv` (11). A file appears under its name only when it is complete, and replaces an
    earlier one.

    Parameters
    ----------
    store
        The survey's store.
    folder
        Where to write; made if it is not there.
    only
        Numbers of the figures, such as `("1", "5")`; None: all that the survey has data for, and the sketch, 10, beside them.
    formats
        Some of `png` (200 dots per inch), `svg`, `pdf`.
    paper_style
        Draw as in the paper's pages, for a text with captions, rather than in our own look: as wide as its text, in serif type,
        gaps as shares from 0 to 1, without the lines above the panels and below them.

    Returns
    -------
    SavedFigures
        The files written, and, when `only` is None, the figures skipped with the reason of each.

    Raises
    ------
    InvalidInputError
        A figure or a format is unknown.
    MissingDataError
        A figure named in `only` has no data, or none has; nothing was written.
    StoreError
        The folder cannot be written to.
    """
    numbers = _known("figure", NUMBERS if only is None else only, NUMBERS)
    formats = _known("format", formats, FORMATS)
    # All data before the first file: a refused call leaves nothing behind.
    collected: dict[str, FigureData] = {}
    skipped: dict[str, str] = {}
    for number in numbers:
        try:
            collected[number] = figure_module(number).collect(store)
        except MissingDataError as error:
            if only is not None:
                raise
            skipped[number] = str(error)
    if only is None and collected.keys() == {_SKETCH}:
        raise MissingDataError(f"no figure can be drawn; {'; '.join(skipped.values())}")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [path for number, data in collected.items() for path in _save(number, data, folder, formats, paper_style)]
    except OSError as error:
        raise StoreError(f"cannot write figures to {folder}: {error.strerror or error}") from error
    return SavedFigures(paths, skipped)


def figure_module(number: str) -> ModuleType:
    """Return the module of the figure with this number in the paper, or raise InvalidInputError."""
    (number,) = _known("figure", [number], NUMBERS)
    return import_module(f".{_FILES[number]}", __package__)


def _known(argument: str, asked: Iterable[str], known: Sequence[str]) -> list[str]:
    """Return the names asked for without repetition, or raise InvalidInputError."""
    names = list(dict.fromkeys(asked))
    if not names:
        raise InvalidInputError(f"at least one {argument} must be named, of {', '.join(known)}; got none")
    for name in names:
        if name not in known:
            raise InvalidInputError(f"{argument} must be one of {', '.join(known)}; got {name!r}")
    return names


def _save(number: str, data: FigureData, folder: Path, formats: Sequence[str], paper: bool) -> list[Path]:
    from .drawing import style

    stem = f"figure_{number}_{_FILES[number].replace('.', '_')}"
    pictures = [folder / f"{stem}.{suffix}" for suffix in formats]
    for picture, suffix in zip(pictures, formats, strict=True):
        with style.drawing(paper=paper), replacing(picture) as unfinished:
            # A figure of its own: the layout begins where the last drawing left it, at that one's resolution.
            compose(figure_module(number), data).savefig(unfinished, format=suffix, metadata=_METADATA[suffix])
    tables = {folder / f"{stem}{name}.csv": table for name, table in data.tables.items()}
    for path, table in tables.items():
        with replacing(path) as unfinished:
            table.to_csv(unfinished, index=False)
    return [*pictures, *tables]


def compose(module: ModuleType, data: FigureData) -> Figure:
    """Return the whole figure: its panels, drawn, with the legend and the caption. Call it inside `style.drawing()`."""
    from .drawing import style

    figure, axes = style.new_figure(len(data.panels), data.columns)
    module.draw(data, axes)
    style.label_outer(axes, data.columns)
    style.add_legend(figure, data.looks, module.CAPTION)
    return figure
