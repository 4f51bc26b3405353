"""Shared against separate engine: forward and backward on several questions about each image, time and memory.

python benchmarks/engines.py [--path DIRECTORY] [--images 8] [--questions 8] [--rounds 5]

Each engine runs in a process of its own, in turns; both see the same trees and must give the same loss.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from spatial_lightning.runs.cpu import keep_memory

keep_memory()

PROJECT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Run the engines in turns and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, default=PROJECT / "assets" / "tiny-vlm")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", choices=("shared", "separate"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure(arguments)))
        return
    results: dict[str, list[dict[str, float]]] = {"shared": [], "separate": []}
    for _ in range(arguments.rounds):
        for engine, rows in results.items():
            command = [sys.executable, __file__, "--worker", engine, *sys.argv[1:]]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rows.append(json.loads(output.splitlines()[-1]))
    losses = [row["loss"] for rows in results.values() for row in rows]
    if max(losses) - min(losses) > 1e-4 * abs(losses[0]):
        sys.exit(f"the engines disagree on the loss: {losses}")
    print(f"{platform.processor() or platform.machine()}, {arguments.threads} threads, {arguments.path}")
    print(
        f"{arguments.images} images, {arguments.questions} questions each, {arguments.rounds} rounds; loss {losses[0]:.6f}"
    )
    print(
        f"{'engine':<10} {'s a step':>9} {'spread':>15} {'CPU s':>7} {'answers/s':>10} {'added GB':>9} {'peak GB':>8}"
    )
    medians = {}
    for engine, rows in results.items():
        seconds = [row["seconds"] for row in rows]
        medians[engine] = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        answers = arguments.images * arguments.questions / medians[engine]["seconds"]
        spread = f"{min(seconds):.3f} to {max(seconds):.3f}"
        own = medians[engine]
        print(
            f"{engine:<10} {own['seconds']:>9.3f} {spread:>15} {own['cpu_seconds']:>7.3f} {answers:>10.1f} "
            f"{own['added_gb']:>9.2f} {own['peak_gb']:>8.2f}"
        )
    faster, cheaper = (medians["separate"][key] / medians["shared"][key] for key in ("seconds", "cpu_seconds"))
    smaller = medians["shared"]["added_gb"] / medians["separate"]["added_gb"]
    print(
        f"shared over separate: {faster:.2f} times as fast ({cheaper:.2f} by CPU time), "
        f"{smaller:.2f} times the added memory"
    )


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Median time of a forward and backward pass, memory it added, and the loss, of one engine in this process."""
    import resource
    import tempfile

    import numpy as np
    import torch
    from PIL import Image

    from spatial_lightning.backbones import Backbone
    from spatial_lightning.data import Encoder
    from spatial_lightning.records import ImageQuestions
    from spatial_lightning.scenes import generate, render
    from spatial_lightning.synthesis.spatialvlm import question_set
    from spatial_lightning.tree import pack

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    weights = "pretrained" if list(arguments.path.glob("*.safetensors")) else "random"
    backbone = Backbone(arguments.path, weights=weights, engine=arguments.worker)
    backbone.train()
    encoder = Encoder(backbone.processor)
    with tempfile.TemporaryDirectory() as folder:
        trees = []
        for index in range(arguments.images):
            scene, picture = generate(0, index, split="benchmark"), Path(folder) / f"{index}.png"
            Image.fromarray(render(scene).rgb).save(picture)
            questions = question_set(scene, count=arguments.questions, rng=np.random.default_rng(index))
            trees.append(encoder.questions(ImageQuestions(str(index), (picture,), tuple(questions))))
    batch = pack(trees)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, cpu, loss = [], [], 0.0
    for _ in range(6):
        began, worked = time.perf_counter(), time.process_time()
        total = -backbone.logps(batch).mean()
        total.backward()
        backbone.zero_grad()
        seconds.append(time.perf_counter() - began)
        cpu.append(time.process_time() - worked)
        loss = float(total.detach())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": statistics.median(seconds[1:]),
        "cpu_seconds": statistics.median(cpu[1:]),
        "added_gb": (peak - before) / 2**20,
        "peak_gb": peak / 2**20,
        "loss": loss,
    }


if __name__ == "__main__":
    main()
