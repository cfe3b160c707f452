"""
The two looks of figures: our own, `ours.mplstyle`, and that of the paper's pages, `paper.mplstyle` on top of it.

Nothing here touches pyplot, and matplotlib's settings are as before after `drawing()`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from threading import Lock

import matplotlib as mpl

GREY = "#555555"
# Width of the text on a page of the paper, in inches.
PAPER_WIDTH = 5.5
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
        for look in ("ours", "paper") if paper else ("ours",):
            settings = Path(__file__).with_name(f"{look}.mplstyle")
            mpl.rcParams.update(mpl.rc_params_from_file(settings, use_default_template=False))
        before = _PAPER.set(paper)
        try:
            yield
        finally:
            _PAPER.reset(before)


def in_paper() -> bool:
    """Return whether figures are now drawn as in the paper's pages."""
    return _PAPER.get()


def fitting(label: str, columns: int) -> str:
    """
    Return a label as it fits where `columns` panels stand side by side: unchanged in our own look.

    In the paper's it has no second line, since captions say that. The first is broken between words, where it is longer than a
    panel; mathematics between dollars stays whole.
    """
    if not in_paper():
        return label
    # The panel takes four fifths of a column, and a letter is 4 points wide.
    letters = int(0.8 * 72 * PAPER_WIDTH / columns / 4)
    lines = [""]
    for word in re.findall(r"(?:\$[^$]*\$|\S)+", label.partition("\n")[0]):
        longer = f"{lines[-1]} {word}".lstrip()
        # The names of mathematical commands, and the signs that group, are not seen.
        if len(re.sub(r"\\[a-z]+|[\\${}^_]", "", longer)) <= letters or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)
