"""
The two looks of figures: our own, and that of the paper's pages. Matplotlib's settings for them, and which of them is on.

Nothing here touches pyplot, and matplotlib's settings are as before after `drawing()`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

GREY = "#555555"
# Of the text on a page of the paper, in inches.
PAPER_WIDTH = 5.5

_OURS: dict["RcKeyType", Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.dpi": 100,
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same on every machine
    "font.size": 9,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.borderpad": 0.1,
    "legend.fontsize": 9,
    "legend.handletextpad": 0.2,
    "legend.frameon": False,
    "legend.title_fontsize": 8,
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
    "svg.fonttype": "path",  # the same picture where the font is not installed
    "svg.hashsalt": "sensitometer",  # the same bytes each time
    "xtick.color": GREY,
    "xtick.labelcolor": "black",
    "xtick.labelsize": 8,
    "ytick.color": GREY,
    "ytick.labelcolor": "black",
    "ytick.labelsize": 8,
}
# What differs in the paper's pages.
_PAPERS: dict["RcKeyType", Any] = {
    "axes.edgecolor": "black",
    "axes.grid": False,
    "axes.labelsize": 7,
    "axes.linewidth": 0.5,
    "axes.spines.right": True,
    "axes.spines.top": True,
    "axes.titlesize": 7.5,
    "axes.titleweight": "normal",
    "font.family": "DejaVu Serif",  # ships with matplotlib, as does its mathematics
    "font.size": 7,
    "legend.fontsize": 7,
    "lines.linewidth": 1.0,
    "lines.markersize": 4,
    "mathtext.fontset": "dejavuserif",
    "xtick.color": "black",
    "xtick.labelsize": 6,
    "xtick.major.size": 2.5,
    "xtick.major.width": 0.5,
    "xtick.minor.size": 1.5,
    "xtick.minor.width": 0.4,
    "ytick.color": "black",
    "ytick.labelsize": 6,
    "ytick.major.size": 2.5,
    "ytick.major.width": 0.5,
    "ytick.minor.size": 1.5,
    "ytick.minor.width": 0.4,
}
# Matplotlib has one set of settings for all threads.
_ONE_AT_A_TIME = Lock()
_PAPER: ContextVar[bool] = ContextVar("paper", default=False)


@contextmanager
def drawing(*, paper: bool = False) -> Iterator[None]:
    """
    Draw and save inside this context: our settings in place of the user's, one thread at a time.

    Parameters
    ----------
    paper
        Draw as in the paper's pages: serif and smaller type, as wide as its text, closed frames without a grid, gaps as shares
        from 0 to 1, and nothing written that a paper says in its captions.
    """
    with _ONE_AT_A_TIME, mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_OURS | _PAPERS if paper else _OURS)
        before = _PAPER.set(paper)
        try:
            yield
        finally:
            _PAPER.reset(before)


def in_paper() -> bool:
    """Return whether figures are now drawn as in the paper's pages."""
    return _PAPER.get()


def paper_label(label: str, columns: int) -> str:
    """
    Return an axis' label as it is in the paper's look, where `columns` panels stand side by side.

    What its second line explains is a caption's to say. The first is broken between words, where it is longer than a panel;
    mathematics between dollars stays whole.
    """
    # Of a column four fifths are the panel, and a letter is 4 points wide.
    letters = int(0.8 * 72 * PAPER_WIDTH / columns / 4)
    lines = [""]
    for word in re.findall(r"(?:\$[^$]*\$|\S)+", label.partition("\n")[0]):
        longer = f"{lines[-1]} {word}".lstrip()
        # Of mathematics the names of commands, and what groups, are not seen.
        if len(re.sub(r"\\[a-z]+|[\\${}^_]", "", longer)) <= letters or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)
