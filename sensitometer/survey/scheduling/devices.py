"""
GPUs that are not here: what their data sheets say, and the seconds of a training step that are assumed from it.

The numbers in the table are NVIDIA's. `EFFICIENCY`, and how many passes and kernels a step has, are assumptions.
"""

import re
from typing import NamedTuple

from ...errors import InvalidInputError
from .speed import Shape

# The share of the float32 peak that products reach: near all of it with large matrices. Those of narrow networks reach far less,
# but these are limited by the memory and by the number of kernels.
EFFICIENCY = 0.6
# A short kernel in a CUDA graph: Gray, Getting Started with CUDA Graphs, NVIDIA, 2019: https://developer.nvidia.com/blog/cuda-graphs
KERNEL_SECONDS = 3.4e-6
# The kernels of a step, as `training/backpropagation.py` takes it. A layer has its product, activation and derivative, and the
# two products of its gradients. The others: the minibatch is gathered, the loss has four, and the optimizer steps.
KERNELS_A_LAYER, KERNELS_A_STEP = 5, 6
# How often a number in memory is read or written, with ReLU and Momentum: a weight, a unit at a point, a pixel of a minibatch.
WEIGHT_PASSES, UNIT_PASSES, PIXEL_PASSES = 7, 11, 4
# The passes over a weight with each optimizer, and how many more a pixel has if it is moved.
OPTIMIZER_PASSES = {"sgd": 2, "momentum": 5, "adam": 9, "rmsprop": 7}
AUGMENTATION_PASSES = 3
# The bandwidth of one core, bytes per second: L-BFGS's two loops over a history of 10 pass 100 times over a weight, in the
# 90 ns that `cost.SECONDS_A_WEIGHT` has for them.
CORE_BANDWIDTH = 4.4e9
BYTES = 4


class Device(NamedTuple):
    """A GPU: its peak in float32 without tensor cores, FLOP/s; its memory, bytes; that one's bandwidth, bytes/s; their source."""

    name: str
    flops: float
    memory: int
    bandwidth: float
    source: str


GB = 10**9
_SITE = "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center"
_V100 = (
    "NVIDIA V100 Tensor Core GPU, data sheet, SXM2: "
    "https://images.nvidia.com/content/technologies/volta/pdf/volta-v100-datasheet-update-us-1165301-r5.pdf"
)
_T4 = f"NVIDIA T4 Tensor Core GPU, data sheet: {_SITE}/tesla-t4/t4-tensor-core-datasheet-951643.pdf"
_A100 = f"NVIDIA A100 Tensor Core GPU, data sheet, SXM: {_SITE}/a100/pdf/nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf"
_H100 = "NVIDIA H100 Tensor Core GPU, data sheet, SXM: https://resources.nvidia.com/en-us-tensor-core/nvidia-tensor-core-gpu-datasheet"
_H200 = "NVIDIA H200 Tensor Core GPU, data sheet, SXM: https://resources.nvidia.com/en-us-data-center-overview/hpc-datasheet-sc23-h200"
_L4 = "NVIDIA L4 Tensor Core GPU, data sheet: https://resources.nvidia.com/en-us-l4/l4-datasheet"
_L40S = "NVIDIA L40S, data sheet: https://resources.nvidia.com/en-us-l40s/l40s-datasheet-28413"
_B200 = (
    "NVIDIA Blackwell, data sheet, one GPU of an HGX B200: https://resources.nvidia.com/en-us-blackwell-architecture/datasheet"
)
_3090 = (
    "NVIDIA Ampere GA102 GPU Architecture, white paper: "
    "https://www.nvidia.com/content/PDF/nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.pdf"
)
_4090 = (
    "NVIDIA Ada GPU Architecture, white paper: "
    "https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf"
)
DEVICES = (
    Device("V100-16GB", 15.7e12, 16 * GB, 900e9, _V100),
    Device("V100-32GB", 15.7e12, 32 * GB, 900e9, _V100),
    Device("T4", 8.1e12, 16 * GB, 300e9, _T4),
    Device("A100-40GB", 19.5e12, 40 * GB, 1555e9, _A100),
    Device("A100-80GB", 19.5e12, 80 * GB, 2039e9, _A100),
    Device("H100", 67e12, 80 * GB, 3350e9, _H100),
    Device("H200", 67e12, 141 * GB, 4800e9, _H200),
    Device("L4", 30.3e12, 24 * GB, 300e9, _L4),
    Device("L40S", 91.6e12, 48 * GB, 864e9, _L40S),
    Device("B200", 75e12, 180 * GB, 7700e9, _B200),
    Device("RTX3090", 35.6e12, 24 * GB, 936e9, _3090),
    Device("RTX4090", 82.6e12, 24 * GB, 1008e9, _4090),
)


def parse_devices(text: str) -> tuple[int, Device]:
    """Return how many of which device `text` asks for, such as `8xH200`, or `H100` for one; raise InvalidInputError otherwise."""
    found = re.fullmatch(r"(?:([1-9]\d{0,5})x)?([a-z]\w*(?:-\w+)?)", text.lower(), re.ASCII)
    named = {device.name.lower(): device for device in DEVICES}
    if found is None or found[2] not in named:
        names = ", ".join(device.name for device in DEVICES)
        raise InvalidInputError(f"like: expected one of {names}, or several such as 8xH200; got {text[:60]!r}")
    return int(found[1] or 1), named[found[2]]


class Assumed:
    """The pace of `count` GPUs, assumed: a step takes as long as its products, its memory traffic or its kernels, the longest."""

    def __init__(self, count: int, device: Device) -> None:
        self.count, self.device = count, device
        self.elementwise = CORE_BANDWIDTH / device.bandwidth

    def __str__(self) -> str:
        of = self.device
        peak = f"{EFFICIENCY:.0%} of the peak of {of.flops / 1e12:g} TFLOP/s in float32"
        return f"{peak}, {of.bandwidth / GB:,.0f} GB/s of memory, or {KERNEL_SECONDS * 1e6:g} µs a kernel, whichever is slowest"

    def step(self, shape: Shape) -> float:
        """Return the seconds of one step of a stack of any shape."""
        networks, seeds, inputs, width, depth, _, batch_size = shape
        flops = networks * batch_size * (6 * shape.weights - 2 * inputs * width)
        units, pixels = networks * batch_size * width * (depth - 1), seeds * batch_size * inputs
        numbers = WEIGHT_PASSES * networks * shape.weights + UNIT_PASSES * units + PIXEL_PASSES * pixels
        kernels = KERNELS_A_LAYER * depth + KERNELS_A_STEP
        return max(flops / (EFFICIENCY * self.device.flops), BYTES * numbers / self.device.bandwidth, kernels * KERNEL_SECONDS)

    def part(self, setting: str, value: str) -> float:
        """Return the seconds of a part of the step; all activations are one pass over the memory, and take the same."""
        passes = {"optimizer": OPTIMIZER_PASSES.get(value, 0), "augmentation": AUGMENTATION_PASSES}.get(setting, 0)
        return passes * BYTES / self.device.bandwidth

    def memory(self) -> int:
        """Return the bytes of memory of all the GPUs, of which each is a worker's share."""
        return self.count * self.device.memory
