"""Preference pairs from several responses to one question: the best against the worst (arXiv:2506.21656 App. D)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spatial_lightning.records import PreferencePair, Question, Response


def total(response: Response) -> float:
    """R_vc + R_sp + R_lc of a response, in [0, 16], to nine digits so that equals are equal."""
    return round(sum(segment.score or 0.0 for segment in response.segments), 9)


def best_against_worst(
    identifier: str, images: tuple[Path, ...], question: Question, responses: Sequence[Response]
) -> PreferencePair | None:
    """The response with the highest reward preferred to that with the lowest; None where all are equally good."""
    if not responses:
        return None
    best, worst = max(responses, key=total), min(responses, key=total)
    return None if total(best) == total(worst) else PreferencePair(identifier, images, question, best, worst)
