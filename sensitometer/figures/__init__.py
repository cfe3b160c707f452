"""The paper's figures, drawn from a survey; importing this loads neither matplotlib nor pandas."""

from .catalogue import FORMATS, NUMBERS, save_figures
from .drawing.interface import FigureData, SavedFigures

__all__ = ["FORMATS", "NUMBERS", "FigureData", "SavedFigures", "save_figures"]
