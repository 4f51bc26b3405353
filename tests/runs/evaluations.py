"""Small evaluations: their configurations, and what they leave behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spatial_lightning.runs.config import compose_run

SMALL = ("benchmark.scenes.images=3", "benchmark.scenes.per_image=3", "benchmark.scenes.reasoned_per_image=1")
ROWS = [
    {"image": "a.png", "caption": "The cat is on the mat.", "label": 1, "relation": "on"},
    {"image": "a.png", "caption": "The cat is under the mat.", "label": 0, "relation": "under"},
    {"image": "b.png", "caption": "The dog is on the bed.", "label": 1, "relation": "on"},
    {"image": "b.png", "caption": "The dog is next to the bed.", "label": 0, "relation": "next to"},
]


def evaluation(place: Path, *overrides: str) -> Any:
    own = [f"outputs={place / 'outputs'}", f"cache={place / 'cache'}", "logger.wandb=off", "device=cpu", "batch_size=4"]
    return compose_run([*own, "max_new_tokens=4", *overrides], "evaluate")


def procedural(place: Path, *overrides: str) -> Any:
    return evaluation(place, "benchmark=procedural", *SMALL, *overrides)


def quiet(_: str) -> None:
    """Hear nothing."""


def read_run(run: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    rows = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    return json.loads((run / "summary.json").read_text()), rows


def vsr_captions(place: Path, path: Path, *overrides: str) -> Any:
    own = ["benchmark=vsr_random", f"benchmark.reader.path={path}", "benchmark.reader.folders=false"]
    return evaluation(place, *own, "benchmark.rows=null", *overrides)
