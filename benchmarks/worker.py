"""A side of the comparison in a process of its own: python worker.py TASK."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spatial_lightning.runs.cpu import keep_memory


@dataclass(frozen=True, slots=True)
class Task:
    """One side's work in a worker process.

    Attributes:
        images: how many pictures a step has.
        questions: about each picture; 0 for one preference pair about each.
        micro: questions or pairs that TRL takes in one forward.
    """

    side: str
    work: str
    folder: str
    pictures: str
    images: int
    questions: int
    micro: int
    shape: str
    device: str
    threads: int


def make_side(task: Task) -> Any:
    """One side with its samples, ready to train."""
    from material import SHAPES, pairs, pictures, questions

    images = pictures(Path(task.pictures), task.images)
    records = questions(images, task.questions) if task.questions else pairs(images)
    shape = SHAPES[task.shape]
    options: dict[str, Any] = {"dtype": shape.dtype, "checkpointing": shape.checkpointing, "device": task.device}
    if task.side.startswith("trl"):
        from trl_side import TrlSide

        only = task.side == "trl_trained_positions"
        return TrlSide(Path(task.folder), records, micro=task.micro, trained_positions_only=only, **options)
    from our_side import OurSide

    objective = "sft" if task.questions else "fdpo" if "fdpo" in task.side else "dpo"
    reference = "cached" if task.side.endswith("cached") else "live"
    return OurSide(Path(task.folder), records, objective=objective, reference=reference, **options)


def take_turns(task: Task) -> None:
    """Take steps as one side; in a worker process."""
    keep_memory()  # for both sides alike, and before torch is loaded
    import torch
    from turns import Asked

    asked = Asked(task.device)
    torch.set_num_threads(task.threads)
    side = make_side(task)
    asked.ready(rows=side.rows(), parameters=side.trained_parameters())
    side.run(10_000, asked)


class Worker:
    """One side in a process of its own, which takes a step when asked."""

    def __init__(self, task: Task) -> None:
        self._log = Path(task.folder) / f"{task.work}_{task.side}.log"
        threads = str(task.threads)
        environment = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"} | os.environ
        environment |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, __file__, json.dumps(dataclasses.asdict(task))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
        self._task = task

    def step(self) -> dict[str, float]:
        """Have one step taken and measured."""
        assert self._process.stdin
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next thing that the process says.

        Raises:
            RuntimeError: it ended; with the last lines of what it wrote.
        """
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise RuntimeError(f"{self._task.side} failed at {self._task.work}:\n{self._log.read_text()[-3000:]}")
        return json.loads(line)

    def close(self) -> None:
        """Let the process end."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


if __name__ == "__main__":
    take_turns(Task(**json.loads(sys.argv[1])))
