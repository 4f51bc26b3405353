"""One process at a time where several runs share a file or a folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)


@contextmanager
def locked(lock: Path, say: Callable[[str], None] = log.info) -> Iterator[None]:
    """Hold a lock file, waiting for the process that has it; the lock of a killed process is released by the system.

    Args:
        lock: the lock file; its folder is made where it is missing.
        say: is told in words that this process waits.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        say(f"waiting for another process to finish its work in {lock.parent}")
        held.acquire(poll_interval=0.2)
    try:
        yield
    finally:
        held.release()
