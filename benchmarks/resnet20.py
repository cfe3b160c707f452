"""
A ResNet-20 for CIFAR10 (He et al. 2016, section 4.2), with the weights that a public repository trained, and the images it takes.

Three stages of three basic blocks, of 16, 32 and 64 channels. Where the size changes, the shortcut is every second pixel, with
channels of zeros in front and behind (option A of the paper).
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

MEANS, DEVIATIONS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Products of each convolution, in the order of the forward pass.
CONVOLUTIONS = [
    *([3 * 16 * 9 * 32**2] + [16 * 16 * 9 * 32**2] * 6),
    *([16 * 32 * 9 * 16**2] + [32 * 32 * 9 * 16**2] * 5),
    *([32 * 64 * 9 * 8**2] + [64 * 64 * 9 * 8**2] * 5),
]


class Block(nn.Module):
    """Two convolutions of 3 x 3 pixels and a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, outputs // inputs, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.padding = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Map `[n, inputs, height, width]` to `[n, outputs, ...]`."""
        h = functional.relu(self.bn1(self.conv1(x)))
        h = self.bn2(self.conv2(h))
        shortcut = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding)) if self.padding else x
        return functional.relu(h + shortcut)


class ResNet20(nn.Module):
    """Maps images `[n, 3, 32, 32]` to logits `[n, 10]`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(Block(inputs, outputs), Block(outputs, outputs), Block(outputs, outputs))
            for inputs, outputs in ((16, 16), (16, 32), (32, 64))
        )
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        h = functional.relu(self.bn1(self.conv1(x)))
        h = self.layer3(self.layer2(self.layer1(h)))
        return self.linear(functional.avg_pool2d(h, h.shape[3]).flatten(1))


def resnet20(weights: Path) -> ResNet20:
    """Return the network with the weights of a safetensors file, in evaluation mode."""
    model = ResNet20()
    model.load_state_dict(load_file(weights))
    return model.eval()


def test_images(data: Path, count: int) -> Tensor:
    """Return the first test images of CIFAR10, normalised as the network takes them; float32 `[count, 3, 32, 32]`."""
    records = np.fromfile(data / "cifar10" / "cifar-10-batches-bin" / "test_batch.bin", np.uint8, count * 3073)
    pixels = torch.from_numpy(records.reshape(count, 3073)[:, 1:].reshape(count, 3, 32, 32)).float() / 255
    return (pixels - torch.tensor(MEANS).view(3, 1, 1)) / torch.tensor(DEVIATIONS).view(3, 1, 1)
