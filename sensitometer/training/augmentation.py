"""Data augmentation on the fly (paper, A.5.3, A.5.4): each image of each minibatch is moved anew, a permutation of its pixels."""

import itertools

import torch
from torch import Tensor

from ..errors import InvalidInputError

# Pixels of the largest translation, along each axis and both ways.
LARGEST_SHIFT = 4


class Augmentation:
    r"""
    The moves of one kind of augmentation, equally likely, as permutations of the pixels.

    `shift-flip` (A.5.4): a horizontal flip with probability 1/2, then a translation by $-4, \dots, 4$ pixels along each axis,
    with wrapping. `shift-flip-rotate` (A.5.3): a flip along each axis with probability 1/2, then a rotation by -90, 0 or 90
    degrees, then the translation. (That the three rotations are equally likely is an interpretation.)

    The `image_shape` is (channels, height, width); D is their product. InvalidInputError if images that are to be rotated are not
    square.
    """

    def __init__(self, name: str, image_shape: tuple[int, int, int], device: torch.device) -> None:
        self.channels, height, width = image_shape
        if name == "shift-flip-rotate" and height != width:
            raise InvalidInputError(f"augmentation {name} needs square images; got images of {height} x {width} pixels")
        pixels = torch.arange(height * width).view(height, width)
        turned = [pixels, pixels.flip(1)]
        if name == "shift-flip-rotate":
            turned += [image.flip(0) for image in turned]
            turned = [image.rot90(quarter) for quarter in (-1, 0, 1) for image in turned]
        shifts = range(-LARGEST_SHIFT, LARGEST_SHIFT + 1)
        moves = [image.roll(shift, (0, 1)) for image in turned for shift in itertools.product(shifts, shifts)]
        # [moves, height * width]: the pixel that each pixel of the moved image comes from.
        self.sources = torch.stack(moves).flatten(1).to(device)

    def draw(self, images: int, stream: torch.Generator) -> Tensor:
        """Return the moves of this number of images, `[images]`, from a network's own CPU stream."""
        return torch.randint(len(self.sources), (images,), generator=stream)

    def apply(self, images: Tensor, moves: Tensor, out: Tensor) -> None:
        """Write the images `[M, D]`, each after its move, `moves` `[M]`, to `out` `[M, D]`."""
        sources = self.sources.index_select(0, moves).unsqueeze(1).expand(-1, self.channels, -1)
        shape = (len(moves), self.channels, -1)
        torch.gather(images.view(shape), 2, sources, out=out.view(shape))
