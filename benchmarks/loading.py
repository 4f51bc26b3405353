"""How fast examples come: opening a corpus for the first and the second time, examples/s by loader processes, time spent waiting.

python benchmarks/loading.py --images CLEVR_FOLDER [--records 2000] [--workers 0 1 2] [--steps 20]

Plain rows about real pictures are read as a published corpus. Waiting is measured around the embedded backbone's own steps.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from spatial_lightning.backbones import Backbone
from spatial_lightning.data import SpaREDataModule
from spatial_lightning.data.corpora import QuestionRows
from spatial_lightning.data.corpora.store import RecordStore, open_store

PROJECT = Path(__file__).resolve().parents[1]
QUESTIONS = 8


def main() -> None:
    """Measure and print one table for each question."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--backbone", type=Path, default=PROJECT / "assets" / "tiny-vlm")
    arguments = parser.parse_args()
    disable_progress_bar()
    backbone = Backbone(arguments.backbone, check="off")
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, {arguments.backbone.name}")
    with tempfile.TemporaryDirectory() as folder:
        rows = write_rows(Path(folder), arguments.images, arguments.records)
        stores = []
        for name in ("first time", "again"):
            began = time.perf_counter()
            stores.append(open_store(rows, folder, say=lambda _: None))
            seconds = time.perf_counter() - began
            print(f"opening {arguments.records * QUESTIONS:,} rows, {name}: {seconds:.2f} s")
        print(f"{'processes':>9} {'examples/s':>11} {'per process':>12} {'waiting':>8}")
        for workers in arguments.workers:
            rate = examples_per_second(backbone, stores[-1], workers, arguments.steps)
            share = waiting_share(backbone, stores[-1], workers, arguments.steps)
            print(f"{workers:>9} {rate:>11.0f} {rate / max(1, workers):>12.0f} {100 * share:>6.1f} %")


def write_rows(folder: Path, images: Path, records: int) -> QuestionRows:
    """Eight plain questions about each picture; pictures are linked again where there are fewer than records."""
    found = sorted(path for path in images.rglob("*") if path.suffix in (".png", ".jpg"))
    if not found:
        raise SystemExit(f"no .png or .jpg in {images}")
    (folder / "pictures").mkdir()
    with (folder / "rows.jsonl").open("w") as file:
        for index in range(records):
            source = found[index % len(found)]
            picture = folder / "pictures" / f"{index}{source.suffix}"
            picture.write_bytes(source.read_bytes())
            for number in range(QUESTIONS):
                row = {
                    "image": picture.name,
                    "question": f"How many objects are left of object {number}?",
                    "answer": "two",
                }
                file.write(json.dumps(row) + "\n")
    return QuestionRows(path=str(folder / "rows.jsonl"), images=str(folder / "pictures"))


def module(backbone: Backbone, store: RecordStore[Any], workers: int) -> SpaREDataModule:
    """Sixteen pictures a step."""
    data = SpaREDataModule(backbone.processor, train=store, val=store, batch_size=16, num_workers=workers)
    data.setup("fit")
    return data


def examples_per_second(backbone: Backbone, store: RecordStore[Any], workers: int, steps: int) -> float:
    """Examples that the loader hands over in a second when nobody else works; starting processes is left out."""
    data = module(backbone, store, workers)
    loader = iter(data.train_dataloader())
    next(loader)
    began = time.perf_counter()
    examples = sum(len(row.tree_ids) for _ in range(steps) for row in next(loader))
    rate = examples / (time.perf_counter() - began)
    data.teardown("fit")
    return rate


def waiting_share(backbone: Backbone, store: RecordStore[Any], workers: int, steps: int) -> float:
    """Share of the time of a training step that passes before its examples are there."""
    data = module(backbone, store, workers)
    loader = iter(data.train_dataloader())
    next(loader)
    backbone.train()
    waited, began = 0.0, time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        batch = next(loader)
        waited += time.perf_counter() - asked
        for row in batch:
            (-backbone.logps(row.to(backbone.device)).mean()).backward()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    share = waited / (time.perf_counter() - began)
    data.teardown("fit")
    return share


if __name__ == "__main__":
    main()
