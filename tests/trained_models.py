"""Small models, files of them, and a module of factories, as users bring them along."""

import torch
from torch import nn

ZOO = """
import torch
from torch import nn

def conv():
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 10))

def linear():
    return nn.Linear(64, 10)

def seven():
    return nn.Linear(64, 7)

def failing():
    raise OSError("no disk\\nat all")

def text():
    return "no module"

three = 3
"""


def convolutional(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 10))
    with torch.no_grad():
        model(torch.randn(50, 1, 8, 8))
    return model.eval()


def export(model, path, *example, **options):
    options = {"dynamic_shapes": ({0: torch.export.Dim("n")},), **options}
    program = torch.export.export(model, example or (torch.randn(4, 1, 8, 8),), **options)
    torch.export.save(program, path)
    return path
