"""A judge that says how far it is: many answers are sent to it one by one, which may take hours."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import final

from spatial_lightning.evaluation.protocols import Judged, Protocol
from spatial_lightning.records import Question
from spatial_lightning.runs.chat import Chat
from spatial_lightning.runs.progress import clock


@final
class JudgeProgress:
    """Asks a judge, and says every few seconds how many answers are judged.

    Args:
        judge: what is asked.
        total: answers that it will be asked about.
        say: receives one line at a time.
        seconds: time between two lines.
    """

    def __init__(self, judge: Chat, total: int, say: Callable[[str], None], seconds: float = 10.0) -> None:
        self.judge, self.total, self.say, self.seconds = judge, total, say, seconds
        self._began = self._spoke = time.monotonic()
        self._asked = self._kept = 0

    def __call__(self, prompt: str) -> str:
        """The judge's reply.

        Raises:
            ChatError: see :class:`Chat`.
        """
        reply = self.judge.kept(prompt)
        if reply is None:
            reply = self.judge(prompt)
            self._asked += 1
        else:
            self._kept += 1
        now, done = time.monotonic(), self._asked + self._kept
        if now - self._spoke >= self.seconds or done == self.total:
            self._spoke = now
            # What comes out of the cache costs no time; what is left may all have to be asked for.
            rate = (self._asked or done) / max(now - self._began, 1e-9)
            self.say(
                f"{done}/{self.total} answers judged ({100 * done / max(self.total, 1):.0f} %)  {rate:.2f} answers/s  "
                f"{clock((self.total - done) / max(rate, 1e-9))} left  {self._kept} from the cache"
            )
        return reply


def with_progress(
    protocol: Protocol, questions: Sequence[Question], answers: Sequence[str], say: Callable[[str], None]
) -> Protocol:
    """The protocol, saying how far its judge is with these answers; as it is where no judge is asked about any."""
    if not isinstance(protocol, Judged) or not isinstance(protocol.ask, Chat):
        return protocol
    total = sum(protocol.asks(question, text) for question, text in zip(questions, answers, strict=True))
    return replace(protocol, ask=JudgeProgress(protocol.ask, total, say)) if total else protocol
