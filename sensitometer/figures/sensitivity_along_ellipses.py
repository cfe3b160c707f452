r"""
Figure 2: how sensitive networks are along ellipses, near training points and away from them. A row per data set.

Beside the sketch of an ellipse stand the mean Jacobian norm and the transition density along three kinds of ellipses, against
the angle; the points that an ellipse goes through are at $\pi/3$, $\pi$ and $5\pi/3$.
"""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Arc, Circle
from numpy.typing import NDArray

from ..analysis.means import average_profiles
from ..analysis.seeds import NETWORK_COLUMNS, fitted_networks
from ..errors import MissingDataError, counted
from ..store import Store
from .drawing import style
from .drawing.interface import FigureData, Panel
from .drawing.profiles import ANCHORS, Profile, angle_axis, draw_profiles

CAPTION = (
    "Mean over fitted networks of true labels, each along ellipses of its own; bands: ± one standard error.\n"
    "The points 1 to 3 lie at π/3, π and 5π/3 of the two kinds of fitted ellipses; a random ellipse goes through none."
)
# Told apart by hue for most eyes, by lightness in grey print (L* 9, 40 and 62), and by marker and dashes where both fail.
KINDS = {
    "random": style.Look("a random ellipse", "#1a1a1a", "s"),
    "different": style.Look("an ellipse through 3 training points of different classes", "#b5175e", "o"),
    "same": style.Look("an ellipse through 3 training points of the same class", "#1ca99b", "^"),
}
DASHES = {"random": (0, (1, 1)), "different": "solid", "same": (0, (5, 1.5))}
# The quantities, with the panel's name and what its vertical axis says.
QUANTITIES = {
    "jacobian_norm": ("Jacobian norm", r"Mean of $\|\partial\,\mathrm{softmax}(f)\,/\,\partial x\|_F$"),
    "transition_density": ("Transition density", "Mean of transitions a radian"),
}
# In radii of the circle of the sketch: how far from its centre the images are, and how large.
DISTANCE, SIZE = 1.55, 0.8


def collect(store: Store) -> FigureData:
    r"""
    Return the averages along each kind of ellipse over fitted networks trained on true labels (paper, 4.1 and A.5.2).

    Returns
    -------
    FigureData
        Its main table has one row per data set, kind of ellipse and bin of angle: `dataset`, `kind`, and the columns of
        `average_profiles`, angles in radians, `jacobian_norm` at the middle of the bin, and `transition_density` in transitions
        per radian. `_points` has one row per point of the sketch: `dataset`, `network`, `seed`, `point`, `angle`, `label`. They
        are the points of different classes of the network with the smallest seed, then id, as are the images of a data set; none
        where no network has such an ellipse. The quantity of a panel may be `ellipse`, the sketch.

    Raises
    ------
    MissingDataError
        No such network was measured along ellipses.
    InvalidInputError
        Networks of one data set were measured in different numbers of bins.
    """
    frame = store.frame(NETWORK_COLUMNS)
    networks = fitted_networks(frame, (), labels="true").sort_values(["dataset", "seed", "id"])
    averages: dict[tuple[str, str], pd.DataFrame] = {}
    points = pd.DataFrame(columns=["dataset", "network", "seed", "point", "angle", "label"])
    images: dict[str, NDArray[np.uint8]] = {}
    for dataset, group in networks[networks["id"].isin(store.kept())].groupby("dataset"):
        name = str(dataset)
        profiles: dict[str, list[dict[str, NDArray[Any]]]] = {kind: [] for kind in KINDS}
        for id_, seed in zip(group["id"], group["seed"], strict=True):
            arrays = store.arrays(id_, "paths.")
            for kind in KINDS:
                profile = {quantity: arrays.get(f"paths.{kind}.{quantity}", np.array(np.nan)) for quantity in QUANTITIES}
                if all(np.isfinite(values).all() for values in profile.values()):
                    profiles[kind].append(profile)
            if name not in images and "paths.different.images" in arrays:
                images[name] = arrays["paths.different.images"]
                for number, (angle, label) in enumerate(zip(ANCHORS.values(), arrays["paths.different.labels"], strict=True), 1):
                    points.loc[len(points)] = [name, id_, int(seed), number, angle, int(label)]
        for kind in filter(profiles.get, KINDS):
            averages[name, kind] = average_profiles(profiles[kind])
    if not averages:
        raise MissingDataError(
            "figure 2 needs Jacobian norms and transition densities along ellipses of fitted networks of true labels, "
            "which the preset trajectory makes; "
            f"the survey has networks: {len(frame)}, fitted of true labels: {len(networks)}, with that: 0"
        )
    table = pd.concat(averages, names=["dataset", "kind"]).reset_index(["dataset", "kind"]).reset_index(drop=True)
    panels = [Panel(name, quantity) for name in table["dataset"].unique() for quantity in ("ellipse", *QUANTITIES)]
    looks = [look for kind, look in KINDS.items() if (table["kind"] == kind).any()]
    return FigureData({"": table, "_points": points}, panels, 1 + len(QUANTITIES), looks, images)


def draw(data: FigureData, axes: Sequence[Axes]) -> None:
    """Draw each panel of the data on its axes."""
    for panel, ax in data.panels_on(axes):
        profiles, points = (table[table["dataset"] == panel.dataset] for table in data.tables.values())
        if panel.quantity == "ellipse":
            _draw_ellipse(points, data.images.get(panel.dataset), ax)
            whose = "" if points.empty else f"; points of one network (seed {points['seed'].iloc[0]})"
            style.title(ax, panel.dataset, [f"an ellipse, drawn as a circle{whose}"])
        else:
            kinds = {kind: profile for kind in KINDS if len(profile := profiles[profiles["kind"] == kind])}
            _draw_quantity(kinds, panel.quantity, ax)
            style.title(ax, QUANTITIES[panel.quantity][0], [_count(kinds)])


def _count(kinds: dict[str, pd.DataFrame]) -> str:
    """Say how many networks are averaged, once if they are equally many for all kinds of ellipses."""
    numbers = {kind: int(profile["networks"].iloc[0]) for kind, profile in kinds.items()}
    if len(set(numbers.values())) == 1:
        return f"n = {counted(next(iter(numbers.values())), 'network')}"
    return "n = " + ", ".join(f"{number:,} {kind}" for kind, number in numbers.items())


def _draw_ellipse(points: pd.DataFrame, images: NDArray[np.uint8] | None, ax: Axes) -> None:
    """Draw the circle of radius 1 that the ellipse is the image of, with the three points and their images."""
    # At the top, so that its title is level with those beside it.
    ax.set(xlim=(-2, 1.85), ylim=(-1.78, 1.78), xticks=[], yticks=[], aspect="equal", anchor="N")
    ax.spines[:].set_visible(False)
    circle = KINDS["different"].colour
    ax.add_patch(Circle((0, 0), 1, fill=False, edgecolor=circle, linewidth=1.6, zorder=3))
    ax.plot([math.cos(math.pi / 3), 0, 1], [math.sin(math.pi / 3), 0, 0], color=style.GREY, linewidth=0.8, zorder=2)
    ax.add_patch(Arc((0, 0), 0.5, 0.5, theta1=0, theta2=60, color=style.GREY, linewidth=0.8))
    size, marker = mpl.rcParams["xtick.labelsize"], 7 * style.panel_scale(ax)
    ax.annotate("θ", (0.38, 0.22), ha="center", va="center", size=size)
    ax.annotate("θ = 0", (1, 0), (4, 0), textcoords="offset points", va="center", size=size)
    for number, (name, angle) in enumerate(ANCHORS.items(), 1):
        x, y = math.cos(angle), math.sin(angle)
        ax.plot([x, DISTANCE * x], [y, DISTANCE * y], color=style.GREY, linewidth=0.8, zorder=2)
        ax.plot(x, y, "o", color=circle, markersize=marker, markeredgecolor="white", zorder=4)
        lines = [f"point {number}", f"θ = {name}"]
        if images is not None:
            lines.append(f"label {points['label'].iloc[number - 1]}")
            style.picture(ax, images[number - 1], (DISTANCE * x, DISTANCE * y), SIZE)
        # Below the image on the left, and to the right of the others: there is room, and the circle is not met.
        if x < 0:
            edge, offset, ha, va = (DISTANCE * x, -SIZE / 2), (0, -3), "center", "top"
        else:
            edge, offset, ha, va = (DISTANCE * x + SIZE / 2, DISTANCE * y), (4, 0), "left", "center"
        text = style.fitting("\n".join(lines), 1 + len(QUANTITIES))
        ax.annotate(text, edge, offset, textcoords="offset points", size=size, ha=ha, va=va, multialignment=ha)


def _draw_quantity(kinds: dict[str, pd.DataFrame], quantity: str, ax: Axes) -> None:
    lines = {
        KINDS[kind]: Profile(profile["angle"], profile[quantity], profile[f"{quantity}_sem"]) for kind, profile in kinds.items()
    }
    draw_profiles(ax, lines, {KINDS[kind]: DASHES[kind] for kind in kinds})
    angle_axis(ax, anchors=True)
    ax.set(xlabel="Angle on the ellipse θ (radians)", ylabel=QUANTITIES[quantity][1])
