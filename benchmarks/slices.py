"""
Linear regions on a slice: Sensitometer's exact boundaries beside regioncam (a Rust program, float32, ReLU only; PyPI).

    pip install regioncam==0.5.2 -c constraints.txt
    python benchmarks/slices.py

Each measurement is a process of its own, so that its peak memory is its own, and the contenders take turns. The faces of both are
named by the codes that the network has at their centroids in float64: the same name is the same linear region.
"""

import argparse
import importlib.metadata
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from interleaved import _machine, record

from sensitometer import matmul

TITLE = "Faces of linear regions on a slice, exact"
SHAPE = {"inputs": 784, "width": 200, "depth": 15, "classes": 10}
# Three points at this distance, times that of random points, from a random point; the last is beyond regioncam's memory here.
CASES: list[dict[str, Any]] = [
    {"distance": 0.13, "contenders": ("ours", "regioncam")},
    {"distance": 0.265, "contenders": ("ours", "regioncam")},
    {"distance": 1.0, "contenders": ("ours",)},
]
ROUNDS = 3


def workload(distance: float, file: Path) -> None:
    """Write a random network, and the centre and axes of the plane through three points."""
    import torch

    from sensitometer.networks import initial_weights, layer_shapes

    weights = initial_weights(layer_shapes(*SHAPE.values()), "relu", 1.0, seed=1)
    stream = torch.Generator().manual_seed(0)
    points = torch.randn(3, SHAPE["inputs"], generator=stream)
    points = torch.randn(SHAPE["inputs"], generator=stream) + distance * points
    np.savez(file, points=points, **{f"weights{layer:02}": weight for layer, weight in enumerate(weights)})


def network_and_slice(given: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return what `workload` wrote."""
    import torch

    from sensitometer.networks import MLP
    from sensitometer.paths import Slice

    weights = [torch.from_numpy(given[name]) for name in sorted(given) if name.startswith("weights")]
    return MLP(weights, "relu"), Slice(*torch.from_numpy(given["points"]))


def ours(given: Mapping[str, Any]) -> tuple[float, Any]:
    """`boundaries` of the last hidden layer; seconds, and what lists the faces: lengths, corners."""
    matmul.activate(matmul.choose().path)
    import torch

    from sensitometer.measures.regions.slices import boundaries

    torch.set_num_threads(1)
    network, plane = network_and_slice(given)
    start = time.perf_counter()
    found = boundaries(network, plane)
    return time.perf_counter() - start, lambda: (found.offsets.diff().numpy(), found.corners.numpy())


def regioncam(given: Mapping[str, Any]) -> tuple[float, Any]:
    """Have regioncam do the same, with the plane as a first layer of two inputs and without torch in the process."""
    import regioncam as rc

    x1, x2, x3 = given["points"].astype(np.float64)
    centre = (x1 + x2 + x3) / 3
    axes = np.stack([centre - x2, (x1 - x3) / np.sqrt(3)]) / 0.8
    first, *others = (given[name] for name in sorted(given) if name.startswith("weights"))
    start = time.perf_counter()
    regions = rc.Regioncam(1.0)
    regions.linear((axes @ first.T).astype(np.float32), (centre @ first.T).astype(np.float32))
    regions.relu()
    for weight in others[:-1]:
        regions.linear(np.ascontiguousarray(weight.T), np.zeros(len(weight), np.float32))
        regions.relu()
    seconds = time.perf_counter() - start

    def faces() -> tuple[Any, Any]:
        vertices = np.asarray(regions.vertex_inputs, np.float64)
        ids = [np.asarray(face.vertex_ids) for face in regions.faces]
        return np.array([len(one) for one in ids]), vertices[np.concatenate(ids)]

    return seconds, faces


def serve(contender: str, file: Path, out: Path | None) -> None:
    """Measure once, print seconds, peak memory and faces, and write the faces to `out`."""
    seconds, faces = {"ours": ours, "regioncam": regioncam}[contender](dict(np.load(file)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    lengths, corners = faces()
    print(json.dumps({"seconds": seconds, "peak": peak, "faces": len(lengths)}))
    if out:
        np.savez(out, lengths=lengths, corners=corners)


def names_and_areas(file: Path, faces: Path) -> dict[bytes, float]:
    """Return the codes of all hidden layers at the faces' centroids, and the area that has each."""
    import torch

    from sensitometer.measures.regions.slices import ExactBoundaries

    given = dict(np.load(faces))
    none = torch.empty(0, dtype=torch.int64)
    offsets = torch.from_numpy(np.insert(given["lengths"].cumsum(), 0, 0))
    found = ExactBoundaries((), torch.empty(0, 2, 2), none, none, none, torch.from_numpy(given["corners"]), offsets)
    network, plane = network_and_slice(dict(np.load(file)))
    weights = [weight.double() for weight in network.weights]
    first = plane.basis.double() @ weights[0].T
    areas: dict[bytes, float] = {}
    for centroids, part in zip(found.centroids.split(2**14), found.areas.abs().split(2**14), strict=True):
        z, bits = plane.combine(first, centroids), []
        for weight in weights[1:]:
            bits.append(np.packbits(z.numpy() > 0, axis=1))
            z = z.relu() @ weight.T
        for code, area in zip(np.concatenate(bits, 1), part.tolist(), strict=True):
            name = code.tobytes()
            areas[name] = areas.get(name, 0.0) + area
    return areas


def measure(case: Mapping[str, Any], folder: Path, rounds: int) -> dict[str, Any]:
    """Return what `serve` printed for each contender, one a round, and what becomes of the comparison."""
    file = folder / "workload.npz"
    workload(case["distance"], file)
    found: dict[str, Any] = {name: [] for name in case["contenders"]}
    for round_ in range(rounds):
        for name in case["contenders"]:
            out = [str(folder / f"{name}.npz")] if round_ == 0 else []
            command = [sys.executable, sys.argv[0], "--serve", name, str(file), *out]
            answer = subprocess.run(
                command, stdout=subprocess.PIPE, text=True, check=True, env=matmul.worker_environment(os.environ)
            )
            found[name].append(json.loads(answer.stdout))
            print(case["distance"], name, found[name][-1], file=sys.stderr)
    if "regioncam" in found:
        mine, theirs = (names_and_areas(file, folder / f"{name}.npz") for name in ("ours", "regioncam"))
        found["shared"] = len(mine.keys() & theirs.keys())
        found["only ours"] = [area for name, area in mine.items() if name not in theirs]
        found["only theirs"] = [area for name, area in theirs.items() if name not in mine]
        found["difference"] = max(abs(area - theirs[name]) for name, area in mine.items() if name in theirs)
    return found


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Lay the results out: medians over rounds, of ratios those within a round, and the largest peak."""
    rows = [
        "| faces: ours | regioncam | regions that both have | ours, s | regioncam, s | times | ours, MB | regioncam, MB | part |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    notes = []
    for found in results:
        mine, theirs = found["ours"], found.get("regioncam")
        peak = max(one["peak"] for one in mine) / 1e6
        cells = [f"{mine[0]['faces']:,}", "", "", f"{median(one['seconds'] for one in mine):.2f}", "", "", f"{peak:,.0f}", "", ""]
        if theirs:
            other = max(one["peak"] for one in theirs) / 1e6
            ratio = median(b["seconds"] / a["seconds"] for a, b in zip(mine, theirs, strict=True))
            cells[1:3] = f"{theirs[0]['faces']:,}", f"{found['shared']:,}"
            cells[4:6] = f"{median(one['seconds'] for one in theirs):.1f}", f"{ratio:.1f}"
            cells[7:] = f"{other:,.0f}", f"{peak / other:.2f}"
            notes.append(
                f"Out of {mine[0]['faces']:,} faces: "
                + "".join(
                    f"{len(found[key])} {key} (largest area {max(found[key], default=0.0):.1e}), "
                    for key in ("only ours", "only theirs")
                )
                + f"and the areas of the others differ by at most {found['difference']:.1e}."
            )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([*rows, "", *notes])


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=TITLE)
    parser.add_argument("--record", metavar="NAME", help="also write it to benchmarks/records/DATE-NAME.md")
    parser.add_argument("--first", type=int, metavar="N", help="only the first N cases")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"default: {ROUNDS}")
    parser.add_argument("--serve", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        name, file, *out = arguments.serve
        serve(name, Path(file), Path(out[0]) if out else None)
        return
    with tempfile.TemporaryDirectory() as folder:
        results = [measure(case, Path(folder), arguments.rounds) for case in CASES[: arguments.first]]
    other = f"regioncam {importlib.metadata.version('regioncam')}, float32."
    text = f"# {TITLE}\n\n{_machine('cpu')}\n{other}\n\n{table(results)}\n"
    print(text)
    if arguments.record:
        record(arguments.record, text, " ".join(sys.argv[1:]))


if __name__ == "__main__":
    main()
