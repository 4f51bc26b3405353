"""Scenes on disk in the CLEVR v1.0 layout: worker processes write, one reader reads ours and the original."""

from __future__ import annotations

import json
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spatial_lightning.records import BadRows, RecordError
from spatial_lightning.scenes.layout import from_row
from spatial_lightning.scenes.scene import Scene
from spatial_lightning.scenes.worker import Job, produce

_SINGLE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_log = logging.getLogger(__name__)


def write_scenes(
    root: Path | str,
    split: str,
    count: int,
    *,
    seed: int,
    difficulty: str = "default",
    size: tuple[int, int] = (112, 112),
    workers: int = 2,
    geometry: bool = False,
    progress: Callable[[str], None] = _log.info,
) -> Path:
    """Generate ``count`` scenes of a split in the CLEVR v1.0 layout and return the path of the scene file.

    Pictures go to ``images/{split}``, with ``geometry`` also ``depth/{split}`` (16-bit PNG, millimetres, 0 where
    nothing is within 65.5 m) and ``masks/{split}`` (8-bit PNG, object index + 1, 0 for none). The scene file,
    ``scenes/CLEVR_{split}_scenes.json``, is put in place last and in one step: where it exists, its pictures do (an
    earlier one is removed first). The files do not depend on ``workers``: the same arguments give the same bytes.

    Args:
        root: folder of the corpus; created where missing.
        split: e.g. ``train``; takes part in the seed.
        count: number of scenes, >= 1.
        seed: of the corpus.
        difficulty: a key of :data:`spatial_lightning.scenes.generate.DIFFICULTIES`.
        size: image width and height, pixels.
        workers: processes, >= 1; 1 works in this process.
        geometry: write depth maps and instance masks, too.
        progress: receives a line of text every few seconds and at the end.

    Raises:
        ValueError: count or workers below 1, an unknown difficulty, or an image too small.
        RuntimeError: a worker process failed; the message holds its last words.
    """
    if count < 1 or workers < 1:
        raise ValueError(f"count and workers must be at least 1, got count={count}, workers={workers}")
    root, path = Path(root), scene_file(root, split)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    for folder in ("images", "depth", "masks") if geometry else ("images",):
        (root / folder / split).mkdir(parents=True, exist_ok=True)
    workers = min(workers, count)
    jobs = [Job(str(root), split, seed, difficulty, size, geometry, start, count, workers) for start in range(workers)]
    rows: list[dict[str, Any]] = []
    started = reported = time.monotonic()
    for row in produce(jobs[0]) if workers == 1 else _from_processes(jobs):
        rows.append(row)
        now = time.monotonic()
        if now - reported > 3 or len(rows) == count:
            reported = now
            progress(_progress_line(split, len(rows), count, now - started))
    rows.sort(key=lambda row: row["image_index"])
    info = {"split": split, "version": "1.0", "generator": "spatial_lightning", "seed": seed, "difficulty": difficulty}
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps({"info": info, "scenes": rows}), encoding="utf-8")
    temporary.replace(path)
    return path


def read_scenes(
    root: Path | str,
    split: str,
    limit: int | None = None,
    bad: BadRows | None = None,
    *,
    require_images: bool = True,
) -> list[Scene]:
    """Scenes of one split, from our files or the original CLEVR v1.0.

    Args:
        root: folder that holds ``scenes/`` and ``images/``.
        split: e.g. ``train``.
        limit: read at most this many scenes from the start; None for all.
        bad: counts scenes that cannot be used, with ``path:index``; None refuses any.
        require_images: leave out scenes whose picture is missing.

    Raises:
        FileNotFoundError: there is no scene file for this split; the message says which splits there are.
        RecordError: the file is not a CLEVR scene file, or ``bad`` is None and a scene cannot be used.
    """
    root = Path(root)
    path = scene_file(root, split)
    if not path.is_file():
        raise FileNotFoundError(_missing(root, split, path))
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["scenes"]
        if not isinstance(rows, list):
            raise TypeError(f"'scenes' is a {type(rows).__name__}")
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise RecordError(f"{path} is not a CLEVR scene file (an object with a list 'scenes'): {error}") from error
    counted = BadRows() if bad is None else bad
    scenes: list[Scene] = []
    for index, row in enumerate(rows):
        if limit is not None and len(scenes) >= limit:
            break
        try:
            scene = from_row(row, root / "images" / split)
        except RecordError as error:
            counted.add(f"{path}:{index}", str(error))
            continue
        if require_images and not scene.image.is_file():
            counted.add(f"{path}:{index}", f"no image at {scene.image}", "image is missing")
            continue
        counted.good += 1
        scenes.append(scene)
    if bad is None:
        counted.check()
    return scenes


def read_geometry(scene: Scene) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Depth map in metres (inf where nothing is near) and instance mask (-1 for none) of a scene that was written.

    Depth is rounded to millimetres; :func:`spatial_lightning.scenes.render.trace` gives it exactly.

    Raises:
        FileNotFoundError: the scenes were written without ``geometry``.
    """
    root = scene.image.parents[2]
    depth, mask = (root / folder / scene.split / scene.image.name for folder in ("depth", "masks"))
    for path in (depth, mask):
        if not path.is_file():
            raise FileNotFoundError(f"no file at {path}; write the scenes with geometry=True to have depth and masks")
    metres = np.asarray(Image.open(depth)).astype(np.float32) / 1000
    return np.where(metres > 0, metres, np.float32(np.inf)), np.asarray(Image.open(mask)).astype(np.int16) - 1


def scene_file(root: Path | str, split: str) -> Path:
    """Path of a split's scene file."""
    return Path(root) / "scenes" / f"CLEVR_{split}_scenes.json"


def _missing(root: Path, split: str, path: Path) -> str:
    found = sorted(entry.name[6:-12] for entry in path.parent.glob("CLEVR_*_scenes.json"))
    if found:
        return f"no split {split!r} below {root}: looked for {path}; splits there: {', '.join(found)}"
    return (
        f"no scene file at {path}, and none for another split; "
        "a CLEVR folder holds scenes/CLEVR_<split>_scenes.json and images/<split>/"
    )


def _progress_line(split: str, done: int, count: int, seconds: float) -> str:
    rate = done / max(seconds, 1e-9)
    return f"scenes {split}: {done}/{count}, {rate:.1f}/s, {(count - done) / rate:.0f} s left"


def _from_processes(jobs: list[Job]) -> Iterator[dict[str, Any]]:
    package_root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
    environment = os.environ | _SINGLE_THREAD | {"PYTHONPATH": path}
    command = [sys.executable, "-m", "spatial_lightning.scenes.worker"]
    rows: queue.SimpleQueue[dict[str, Any] | str | None] = queue.SimpleQueue()
    processes = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        for _ in jobs
    ]
    threads = [
        threading.Thread(target=_pump, args=(process, job, rows), daemon=True)
        for process, job in zip(processes, jobs, strict=True)
    ]
    try:
        for thread in threads:
            thread.start()
        running = len(processes)
        while running:
            row = rows.get()
            if isinstance(row, str):
                raise RuntimeError(f"a scene worker failed:\n{row}")
            if row is None:
                running -= 1
            else:
                yield row
    finally:
        for process in processes:
            process.kill()
        for thread in threads:
            thread.join()


def _pump(process: subprocess.Popen[str], job: Job, rows: queue.SimpleQueue[dict[str, Any] | str | None]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        with process:
            process.stdin.write(job.to_json() + "\n")
            process.stdin.close()
            for line in process.stdout:
                rows.put(json.loads(line))
            complaint = process.stderr.read()
        rows.put(None if process.returncode == 0 else complaint.strip()[-2000:] or f"exit code {process.returncode}")
    except (OSError, ValueError) as error:
        rows.put(f"{type(error).__name__}: {error}")
