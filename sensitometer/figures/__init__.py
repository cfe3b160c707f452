"""The paper's figures, drawn from a survey; importing this loads neither matplotlib nor pandas."""

from .catalogue import FORMATS, NUMBERS, save_figures
from .drawing.interface import FigureData, FigureModule, SavedFigures, Store

__all__ = ["FORMATS", "NUMBERS", "FigureData", "FigureModule", "SavedFigures", "Store", "save_figures"]
