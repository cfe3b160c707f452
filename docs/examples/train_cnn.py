"""
Trains a small CNN on Fashion-MNIST pixels in [0, 1], as somebody would who does not know Sensitometer; a minute of one core.

It leaves `cnn.pt2`, `early.pt` and `late.pt`, and 500 test images as `fashion.npz` and in the folder `images/`.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

import sensitometer as sm


def cnn() -> nn.Module:
    """Return the network, with random weights."""
    first, second = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU()), nn.Sequential(nn.Conv2d(16, 32, 3), nn.ReLU())
    return nn.Sequential(*first, nn.MaxPool2d(2), *second, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(800, 10))


def main() -> None:
    """Train, and write the files."""
    torch.manual_seed(0)
    data = sm.load_dataset("fashion-mnist", normalise="none")
    x, y, model = data.train.x.view(-1, 1, 28, 28), data.train.y, cnn()
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for step in range(1, 401):
        batch = torch.randint(len(y), (128,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
        if step == 100:
            torch.save(model.state_dict(), "early.pt")
    torch.save(model.state_dict(), "late.pt")
    any_number = ({0: torch.export.Dim("n")},)
    torch.export.save(torch.export.export(model.eval(), (x[:2],), dynamic_shapes=any_number), "cnn.pt2")
    images = (data.test.x[:500] * 255).round().byte().view(-1, 28, 28).numpy()
    np.savez("fashion.npz", x=images[:, None], y=data.test.y[:500].numpy())
    for number, (image, label) in enumerate(zip(images, data.test.y.tolist(), strict=False)):
        folder = Path("images") / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:03}.png")


if __name__ == "__main__":
    main()
