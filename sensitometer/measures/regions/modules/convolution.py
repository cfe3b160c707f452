r"""
Convolutions of 3 x 3 pixels in float64, which torch does at half of the processor's rate.

$z_{oyx} = b_o + \sum_{c,i,j} w_{ocij} \, h_{c, y+i-1, x+j-1}$, with zeros around each image. The images of a block lie in one
plane per channel, with a column of zeros behind each row and a row of zeros between images. So a whole plane is one long loop, in
which each weight multiplies what is a fixed number of places further on. The weights of two output channels stay in registers.
"""

from typing import Any

import numba
import numpy as np
from torch import Tensor

from ...compiling import contracted

Array = Any

# Numbers of a plane: three of them stay in the first cache.
PLANE = 1300
ONE, TWO = numba.uint64(1), numba.uint64(2)


def convolve(h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """
    Return the convolution `[n, O, height, width]` of images `h` `[n, C, height, width]` with zeros around them.

    All is float64; `weight` is `[O, C, 3, 3]`, `bias` `[O]`.
    """
    n, channels, height, width = h.shape
    images = max(1, min(n, PLANE // ((height + 1) * (width + 1))))
    length = images * (height + 1) * (width + 1)
    out = h.new_empty(n, len(weight), height, width)
    planes = np.zeros((channels, length + 2 * (width + 1) + 2))
    added = np.zeros(len(weight)) if bias is None else bias.numpy()
    _convolve(h.contiguous().numpy(), weight.contiguous().numpy(), added, out.numpy(), planes, np.empty((2, length)), images)
    return out


@contracted
def _convolve(h: Array, weight: Array, bias: Array, out: Array, planes: Array, sums: Array, images: int) -> None:
    R, C, H, W = h.shape
    P, outputs = W + 1, len(weight)
    for start in range(0, R, images):
        count = min(images, R - start)
        n = count * (H + 1) * P
        for c in range(C):
            for r in range(count):
                for y in range(H):
                    at = 1 + (1 + r * (H + 1) + y) * P
                    for x in range(W):
                        planes[c, at + x] = h[start + r, c, y, x]
        for o in range(0, outputs, 2):
            # The last of an odd number of channels is computed twice.
            other = min(o + 1, outputs - 1)
            first, second = sums[0, :n], sums[1, :n]
            first[:] = bias[o]
            second[:] = bias[other]
            for c in range(C):
                _accumulate(planes[c], n, P, weight[o, c], weight[other, c], first, second)
            for r in range(count):
                for y in range(H):
                    at = (r * (H + 1) + y) * P
                    for x in range(W):
                        out[start + r, o, y, x] = first[at + x]
                        out[start + r, other, y, x] = second[at + x]


@contracted
def _accumulate(plane: Array, n: int, P: int, u: Array, v: Array, first: Array, second: Array) -> None:
    """Add what one input channel gives two output channels; indices are unsigned, or the loop would not be made of vectors."""
    u0, u1, u2, u3, u4, u5, u6, u7, u8 = u[0, 0], u[0, 1], u[0, 2], u[1, 0], u[1, 1], u[1, 2], u[2, 0], u[2, 1], u[2, 2]
    v0, v1, v2, v3, v4, v5, v6, v7, v8 = v[0, 0], v[0, 1], v[0, 2], v[1, 0], v[1, 1], v[1, 2], v[2, 0], v[2, 1], v[2, 2]
    a, b, c = plane[: n + 2], plane[P : P + n + 2], plane[2 * P : 2 * P + n + 2]
    for p in range(np.uint64(n)):
        a0, a1, a2 = a[p], a[p + ONE], a[p + TWO]
        b0, b1, b2 = b[p], b[p + ONE], b[p + TWO]
        c0, c1, c2 = c[p], c[p + ONE], c[p + TWO]
        first[p] += u0 * a0 + u1 * a1 + u2 * a2 + u3 * b0 + u4 * b1 + u5 * b2 + u6 * c0 + u7 * c1 + u8 * c2
        second[p] += v0 * a0 + v1 * a1 + v2 * a2 + v3 * b0 + v4 * b1 + v5 * b2 + v6 * c0 + v7 * c1 + v8 * c2
