"""One process of scene production: reads a job from standard input, writes pictures, answers with one JSON row a scene.

Run as ``python -m spatial_lightning.scenes.worker`` it imports numpy and Pillow only. So it starts in a fraction of a
second whatever program asked for it, does not run that program's main module again, and holds none of its threads or
devices.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from spatial_lightning.scenes.generate import generate
from spatial_lightning.scenes.layout import to_row
from spatial_lightning.scenes.render import Trace, paint, trace
from spatial_lightning.scenes.scene import Scene


@dataclass(frozen=True, slots=True)
class Job:
    """Scenes ``start, start + step, ...`` below ``stop`` of a split, and where their files go."""

    root: str
    split: str
    seed: int
    difficulty: str
    size: tuple[int, int]
    geometry: bool
    start: int
    stop: int
    step: int

    def to_json(self) -> str:
        """The job as one line."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(line: str) -> Job:
        """Inverse of :meth:`to_json`."""
        fields = json.loads(line)
        return Job(**(fields | {"size": tuple(fields["size"])}))


def produce(job: Job) -> Iterator[dict[str, Any]]:
    """Generate the scenes of a job, write their files, and yield their rows."""
    root = Path(job.root)
    for index in range(job.start, job.stop, job.step):
        scene = generate(job.seed, index, split=job.split, difficulty=job.difficulty, size=job.size)
        Image.fromarray(paint(scene)).save(root / "images" / job.split / scene.image.name)
        if job.geometry:
            _write_geometry(root, scene, trace(scene))
        yield to_row(scene)


def _write_geometry(root: Path, scene: Scene, seen: Trace) -> None:
    millimetres = np.round(np.where(seen.depth < 65.535, seen.depth, 0) * 1000).astype(np.uint16)
    Image.fromarray(millimetres).save(root / "depth" / scene.split / scene.image.name)
    Image.fromarray((seen.instances + 1).astype(np.uint8)).save(root / "masks" / scene.split / scene.image.name)


def main() -> None:
    """Do the job on standard input."""
    for row in produce(Job.from_json(sys.stdin.readline())):
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
