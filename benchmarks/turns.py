"""Steps taken in turns: a side asks before each step and reports after it, so that two sides can alternate."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any, Protocol, TextIO

import torch

Row = tuple[list[int], list[bool]]
"""Token ids of one sequence as the model sees it, and which of them are trained."""


class Turns(Protocol):
    """What a side calls around each of its steps."""

    def begin(self) -> None: ...
    def end(self, loss: float) -> None: ...


class Recorded:
    """Steps taken one after the other; keeps their losses."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def begin(self) -> None:
        """Nothing to wait for."""

    def end(self, loss: float) -> None:
        """Keep the loss."""
        self.losses.append(loss)


class Asked:
    """Steps taken when another process asks for one by a line on standard input; answers are JSON lines.

    Whatever else the process prints goes to standard error.
    """

    def __init__(self, device: str) -> None:
        self._answers: TextIO = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._on_gpu = device != "cpu"
        self._began = self._worked = self._before = 0.0

    def ready(self, **facts: Any) -> None:
        """Say that the side is set up; memory is counted from here on."""
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats()
        else:
            _forget_peak()
        self._before = self._memory()
        self._answer(facts)

    def begin(self) -> None:
        """Wait until it is this side's turn; leave the process when there is none any more."""
        if sys.stdin.readline().strip() != "step":
            self._answers.close()
            os._exit(0)
        self._wait()
        self._began, self._worked = time.perf_counter(), time.process_time()

    def end(self, loss: float) -> None:
        """Report the step."""
        self._wait()
        took = {"seconds": time.perf_counter() - self._began, "cpu_seconds": time.process_time() - self._worked}
        peak = torch.cuda.max_memory_allocated() / 2**30 if self._on_gpu else _status("VmHWM")
        self._answer({**took, "loss": loss, "peak_gib": peak, "added_gib": peak - self._before})

    def _memory(self) -> float:
        return torch.cuda.memory_allocated() / 2**30 if self._on_gpu else _status("VmRSS")

    def _wait(self) -> None:
        if self._on_gpu:
            torch.cuda.synchronize()

    def _answer(self, facts: dict[str, Any]) -> None:
        print(json.dumps(facts), file=self._answers, flush=True)


def _forget_peak() -> None:
    """Let the kernel count this process's peak memory anew, so that setting up does not hide what a step needs."""
    forget = Path("/proc/self/clear_refs")
    if forget.exists():
        forget.write_text("5")


def _status(field: str) -> float:
    """A memory figure of this process in GiB: ``VmRSS`` now, ``VmHWM`` at its peak."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    line = next(line for line in status.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 2**20
