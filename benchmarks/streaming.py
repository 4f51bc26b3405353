"""How fast a large published corpus is read, with and without an index, how much memory it takes, how soon it resumes.

    python benchmarks/streaming.py --size 2000   # megabytes of one JSON array in the shape of OpenSpatialDataset

Each figure comes from a process of its own, so that its peak of resident memory is its own.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from spatial_lightning.data.corpora import OpenSpatial
from spatial_lightning.data.corpora.rows import Mark
from spatial_lightning.data.corpora.store import RecordStore, open_store
from spatial_lightning.data.corpora.stream import open_stream

PICTURES = 32
LIMIT_GB = 1.0


def write_corpus(folder: Path, megabytes: int) -> Path:
    """A JSON array of rows with 20 turns, boxes and masks, 35 kB each, over a few small pictures."""
    draw = random.Random(0)
    for number in range(PICTURES):
        noise = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number:016x}.jpg")
    masks = [_mask(draw) for _ in range(64)]
    path = folder / "result_10_depth_convs.json"
    written = number = 0
    with path.open("w") as file:
        file.write("[")
        while written < megabytes * 2**20:
            turns = []
            for turn in range(10):
                asked = (
                    f"{'<image>' + chr(10) if turn == 0 else ''}How far is <mask> <depth> from <mask> <depth>? ({turn})"
                )
                turns += [{"from": "human", "value": asked}, {"from": "gpt", "value": f"{draw.random():.2f} meters."}]
            row = {
                "filename": f"{number % PICTURES:016x}",
                "conversations": turns,
                "rle": [{"size": [48, 64], "counts": draw.choice(masks)} for _ in range(20)],
                "bbox": [[draw.randrange(20), draw.randrange(20), 40, 40] for _ in range(20)],
            }
            text = json.dumps(row)
            file.write((", " if number else "") + text)
            written, number = written + len(text), number + 1
        file.write("]")
    return path


def _mask(draw: random.Random) -> str:
    """A run-length mask of many short runs, compressed as COCO does it."""
    runs = [draw.randrange(1, 4) for _ in range(1400)]
    runs.append(48 * 64 - sum(runs))
    text = ""
    for index, run in enumerate(runs):
        left, more = run - (runs[index - 2] if index > 2 else 0), True
        while more:
            digit, left = left & 31, left >> 5
            more = left != (-1 if digit & 16 else 0)
            text += chr(48 + (digit | 32 if more else digit))
    return text


def measure(what: str, path: Path, cache: Path) -> Iterator[tuple[str, float]]:
    """One measurement: (name, value) as they are known."""
    reader = OpenSpatial(path=str(path), images=str(path.parent))
    began = time.perf_counter()
    if what == "rows":
        yield "rows", float(sum(1 for _ in reader.rows().scan()))
    elif what == "index":
        yield "records", float(len(open_store(reader, cache, group=False, say=_quiet)))
    elif what == "random access":
        store: RecordStore = open_store(reader, cache, group=False, say=_quiet)
        yield "opened_s", time.perf_counter() - began
        began = time.perf_counter()
        picks = np.random.default_rng(0).permutation(len(store))[:2000].tolist()
        for index in picks:
            store[index]
        yield "rows", float(len(picks))
    elif what == "stream":
        yield "rows", float(sum(1 for _ in open_stream(reader, cache)))
    elif what == "resume indexed":
        store = open_store(reader, cache, group=False, say=_quiet)
        store[len(store) // 2]
    else:
        stream = open_stream(reader, cache)
        # A checkpoint holds such a mark; here it is taken from the index, which a streamed run does not have.
        index = open_store(reader, cache, group=False, say=_quiet).corpus
        mark = Mark(*index.marks[len(index) // 2].tolist())
        began = time.perf_counter()
        block = list(islice(stream.rows.scan(mark), stream.shuffle_rows))
        stream.records(block[0])
    yield "seconds", time.perf_counter() - began


def _quiet(_: str) -> None:
    return None


def main() -> None:
    """Write the corpus, measure in processes of their own, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=2000, help="megabytes of JSON")
    parser.add_argument("--measure", nargs=3, metavar=("WHAT", "PATH", "CACHE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        what, path, cache = arguments.measure
        busy = time.process_time()
        found = dict(measure(what, Path(path), Path(cache)))
        found["busy_s"] = time.process_time() - busy
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(found | {"peak_gb": peak}))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = write_corpus(folder, arguments.size)
        megabytes = path.stat().st_size / 2**20
        print(f"{path.name}: {megabytes:,.0f} MiB")
        for what in ("rows", "index", "random access", "stream", "resume indexed", "resume streaming"):
            command = [sys.executable, __file__, "--measure", what, str(path), str(folder / "cache")]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found = json.loads(out.splitlines()[-1])
            seconds, rows = found["seconds"], found.get("rows") or found.get("records")
            rate = f"{rows / seconds:9,.0f} rows/s" if rows else " " * 16
            speed = f"{megabytes / seconds:7,.0f} MiB/s" if rows and what != "random access" else " " * 13
            print(
                f"{what:18} {seconds:8.2f} s {rate} {speed}   {found['busy_s']:7.2f} s of CPU   peak {found['peak_gb']:.2f} GiB",
                flush=True,
            )
            if found["peak_gb"] > LIMIT_GB:
                raise SystemExit(f"{what} took {found['peak_gb']:.2f} GiB; {LIMIT_GB:g} GiB is the limit")


if __name__ == "__main__":
    main()
