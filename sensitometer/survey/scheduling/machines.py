"""
How fast machines compute: this one, as its matrix products were measured, and GPUs that are not here, by their data sheets.

A machine is four numbers, and `cost` predicts all times from them. The peaks, memories and bandwidths in the table of GPUs are
NVIDIA's. The shares of the peaks that a training reaches are measured on one core of an AMD EPYC (Zen 4), and assumed for GPUs.
"""

import os
import re
from typing import NamedTuple

from ... import matmul
from ...errors import InvalidInputError


class Machine(NamedTuple):
    """How fast one worker computes."""

    name: str  # of the GPU or the processor
    kind: str  # `cpu` or `cuda`
    products: float  # matrix products in float32, FLOP per second
    bandwidth: float  # elementwise passes over numbers in memory, or in the cache of a processor, bytes per second
    operation: float  # seconds that an operation takes whatever its size
    memory: int  # bytes
    source: str  # where the numbers are from

    @property
    def assumptions(self) -> str:
        """The numbers in words, without the memory."""
        return (
            f"{self.products / 1e12:.3g} TFLOP/s of products in float32, {self.bandwidth / GB:,.0f} GB/s of memory, "
            f"{self.operation * 1e6:.2g} µs an operation"
        )


# The share of the peak that products of a training reach on a core: 95 of 105 GFLOP/s, over widths of 2 to 512.
CORE_SHARE = 0.9
# A step's operations take longer than a small product alone, since others come between: 1.6 of 1.0 µs.
CALLS = 1.6
# Elementwise passes of a training on one core, in its cache: 0.08 ns a number.
CORE_BANDWIDTH = 50e9
# The share of the float32 peak that products reach on a GPU, assumed: near all of it with large matrices.
GPU_SHARE = 0.6
# A short kernel in a CUDA graph: Gray, Getting Started with CUDA Graphs, NVIDIA, 2019: https://developer.nvidia.com/blog/cuda-graphs
KERNEL_SECONDS = 3.4e-6


def _gpu(name: str, peak: float, memory: int, bandwidth: float, source: str) -> Machine:
    """Return a GPU with a float32 peak without tensor cores, FLOP/s."""
    return Machine(name, "cuda", GPU_SHARE * peak, bandwidth, KERNEL_SECONDS, memory, source)


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
GPUS = (
    _gpu("V100-16GB", 15.7e12, 16 * GB, 900e9, _V100),
    _gpu("V100-32GB", 15.7e12, 32 * GB, 900e9, _V100),
    _gpu("T4", 8.1e12, 16 * GB, 300e9, _T4),
    _gpu("A100-40GB", 19.5e12, 40 * GB, 1555e9, _A100),
    _gpu("A100-80GB", 19.5e12, 80 * GB, 2039e9, _A100),
    _gpu("H100", 67e12, 80 * GB, 3350e9, _H100),
    _gpu("H200", 67e12, 141 * GB, 4800e9, _H200),
    _gpu("L4", 30.3e12, 24 * GB, 300e9, _L4),
    _gpu("L40S", 91.6e12, 48 * GB, 864e9, _L40S),
    _gpu("B200", 75e12, 180 * GB, 7700e9, _B200),
    _gpu("RTX3090", 35.6e12, 24 * GB, 936e9, _3090),
    _gpu("RTX4090", 82.6e12, 24 * GB, 1008e9, _4090),
)
# Predicts the times of stacks for runs on GPUs: only their ratios count there, which decide what is trained first.
ANY_GPU = next(machine for machine in GPUS if machine.name == "A100-80GB")


def this_machine() -> Machine:
    """Return one core of this machine, by the self-check of its matrix products, and its memory, which all cores share."""
    choice = matmul.choose()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    products, operation = CORE_SHARE * choice.peak * 1e9, CALLS * choice.operation
    return Machine(matmul.processor(), "cpu", products, CORE_BANDWIDTH, operation, memory, "sensitometer doctor")


def parse_gpus(text: str) -> tuple[int, Machine]:
    """Return how many of which GPU `text` asks for, such as `8xH200`, or `H100` for one; raise InvalidInputError otherwise."""
    match = re.fullmatch(r"(?:([1-9]\d{0,5})x)?([a-z]\w*(?:-\w+)?)", text.lower(), re.ASCII)
    named = {machine.name.lower(): machine for machine in GPUS}
    if match is None or match[2] not in named:
        names = ", ".join(machine.name for machine in GPUS)
        raise InvalidInputError(f"like: expected one of {names}, or several such as 8xH200; got {text[:60]!r}")
    return int(match[1] or 1), named[match[2]]
