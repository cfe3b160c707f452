"""
Figure 4: networks alike in everything but one setting. A row per setting, a panel per quantity, a point per pair.

As in the paper, the setting that generalises better is on the horizontal axis: above the diagonal the other one has the larger
value.
"""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes

from ..analysis.pairs import FACTORS, network_pairs, share_larger
from ..analysis.seeds import NETWORK_COLUMNS
from ..errors import MissingDataError
from ..store import Store
from .drawing import scales, style
from .drawing.interface import FigureData

CAPTION = (
    "A point is a pair of networks alike in all but one setting, both of 100% train accuracy (with augmentation: of any).\n"
    "Above diagonal: share of the n pairs (95% interval, pairs of one configuration counted as one)."
)
# The name of each setting on the vertical, and on the horizontal axis.
SETTINGS = {
    "labels": ("random labels", "true labels"),
    "augmentation": ("without augmentation", "with augmentation"),
    "activation": ("HardSigmoid", "ReLU"),
    "optimizer": ("L-BFGS", "SGD + Momentum"),
}
TITLES = {"gap": "Gap", "jacobian_norm": "Jacobian norm", "transitions": "Transitions"}
# A network of a smaller Jacobian norm is constant but for rounding. Such ones, which augmentation's row may have, are drawn at 0:
# beside them all others would be a single spot of the logarithmic axis.
CONSTANT = 1e-9
# Pairs of a panel beyond which they hide each other: fewer than in other figures, since the panels are smaller.
MOST_PAIRS = 5_000


class Panel(NamedTuple):
    """One panel: the setting in which the networks of its pairs differ, and the quantity on both axes."""

    factor: str
    quantity: str


def collect(store: Store) -> FigureData:
    """
    Return the pairs of each setting that the survey has pairs of (paper, 4.2 and A.5.4), with all quantities that were measured.

    All but those of random against true labels are of networks trained on true labels.

    Returns
    -------
    FigureData
        Its main table has one row per pair: `factor`, and the columns of `network_pairs`, in which the factor itself is null; gap
        as a share, 0 to 1. `_share` has one row per panel: `factor`, `quantity`, and the fields of `Share`.

    Raises
    ------
    MissingDataError
        There are no pairs.
    """
    frame = store.frame((*NETWORK_COLUMNS, *TITLES))
    # A quantity that was never measured leaves the others; of one that was, each pair has both values.
    quantities = [name for name in TITLES if frame[name].notna().any()]
    # The gap of random labels is that of guessing, whatever the network; with augmentation they are not even fitted.
    true = frame[frame["labels"] == "true"]
    tables = {
        factor: pairs
        for factor in FACTORS
        if quantities and len(pairs := network_pairs(frame if factor == "labels" else true, factor, quantities))
    }
    if not tables:
        fitted = int((frame["state"] == "fitted").sum())
        raise MissingDataError(
            "figure 4 needs pairs of fitted networks alike but for true or random labels, relu or hardsigmoid, "
            "momentum or lbfgs, which the preset large makes, or (fitted or not) augmentation or none, "
            "which the preset augmentation makes; "
            f"the survey has networks: {len(frame)}, fitted: {fitted}, such pairs: 0"
        )
    panels = [Panel(factor, quantity) for factor in tables for quantity in quantities]
    shares = [{**panel._asdict(), **share_larger(tables[panel.factor], panel.quantity)._asdict()} for panel in panels]
    pairs = pd.concat([pairs.assign(factor=factor) for factor, pairs in tables.items()], ignore_index=True)
    settings = [name for name in frame.columns if name in pairs.columns]
    values = [f"{name}_{end}" for name in quantities for end in ("worse", "better")]
    pairs = pairs[["factor", "worse", "better", *settings, *values, "configuration"]]
    looks = list(style.dataset_looks(pairs["dataset"].unique()).values())
    return FigureData({"": pairs, "_share": pd.DataFrame(shares)}, panels, len(quantities), looks)


def draw(data: FigureData, axes: Sequence[Axes]) -> None:
    """Draw each panel of the data on its axes."""
    all_pairs, shares = data.tables.values()
    for share, (panel, ax) in zip(shares.to_dict("records"), data.panels_on(axes), strict=True):
        pairs = all_pairs[all_pairs["factor"] == panel.factor]
        values = pd.concat([pairs[f"{panel.quantity}_better"], pairs[f"{panel.quantity}_worse"]], keys=["better", "worse"])
        logarithmic = panel.quantity != "gap"
        if logarithmic:
            values = values.where(values >= CONSTANT, 0.0)
        scales.equal_axes(ax, values, logarithmic=logarithmic)
        positions = scales.log_positions(values) if logarithmic else values
        markers = pd.DataFrame({"x": positions["better"], "y": positions["worse"]})
        kinds = {look: markers[mask] for look in data.looks if (mask := pairs["dataset"] == look.name).any()}
        # Three digits, so that nearly all is not called all.
        middle, low, high = (f"{100 * share[name]:.3g}" for name in ("share", "low", "high"))
        lines = [f"above diagonal: {middle}% ({low} to {high}%), n = {share['pairs']:,}"]
        lines += style.points(ax, kinds, MOST_PAIRS, "pairs")
        worse, better = SETTINGS[panel.factor]
        ax.set(xlabel=better, ylabel=worse)
        name = TITLES[panel.quantity]
        style.title(ax, name if logarithmic else scales.share_label(name), lines)
