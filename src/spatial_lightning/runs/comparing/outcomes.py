"""How good each group is, how far from the baseline group, and how sure: figures, and sentences that claim no more."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_lightning.evaluation import SeedComparison, compare_seeds, correct
from spatial_lightning.evaluation.statistics import require_level
from spatial_lightning.runs.comparing.grouping import Group, Section

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Sureness:
    """How intervals are made.

    Attributes:
        level: confidence in (0, 1).
        resamples: bootstrap draws.
        seed: the same one gives the same intervals.
    """

    level: float = 0.95
    resamples: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        require_level(self.level, self.resamples)


@dataclass(frozen=True, slots=True)
class Difference:
    """A group beside the baseline group, and what may be said once all groups of the section are looked at together.

    Attributes:
        compared: accuracy of the group minus that of the baseline group, in [-1, 1], its interval and p-value.
        corrected: the p-value, corrected for all comparisons of the section.
        verdict: ``better``, ``worse``, ``suggested`` or ``open``; see :class:`~spatial_lightning.evaluation.Family`.
    """

    compared: SeedComparison
    corrected: float
    verdict: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """Figures of one group.

    Attributes:
        accuracy, interval: mean over runs, and its interval, in [0, 1].
        unreadable: share of answers in which none of the asked kind was found, mean over runs, in [0, 1]; they count as
            wrong. None where it was not saved.
        majority, warm_start: accuracies of the best answer that ignores the picture and of the state before training, means
            over runs; None where they are not known.
        difference: to the baseline group; None for that group itself.
        wall_s, tokens_per_s: means over runs; ``memory_gb``: the largest peak. None where they were not measured.
        figures: the benchmark's own, means over runs, the headline first; those that every run of the group states.
    """

    group: Group
    accuracy: float
    interval: Interval
    unreadable: float | None
    majority: float | None
    warm_start: float | None
    difference: Difference | None
    wall_s: float | None
    tokens_per_s: float | None
    memory_gb: float | None
    figures: Mapping[str, float]


def outcomes(section: Section, baseline: Group, sureness: Sureness) -> list[Outcome]:
    """Figures of all groups of a section; the p-values of all differences are corrected together (Holm 1979)."""
    found = {
        group.name: _compare(baseline, group, section, sureness) for group in section.groups if group is not baseline
    }
    family = correct(found) if found else None
    differences = {
        name: Difference(own, family.corrected[name], family.verdict(name)) for name, own in found.items() if family
    }
    return [
        Outcome(
            group=group,
            accuracy=group.accuracy,
            interval=interval(group, section, sureness),
            unreadable=_unreadable(group, section),
            majority=_blind(group),
            warm_start=_mean(group, "baseline", "warm_start", "accuracy"),
            difference=differences.get(group.name),
            wall_s=_mean(group, "wall_s"),
            tokens_per_s=_mean(group, "throughput", "tokens_per_s"),
            memory_gb=max(_figures(group, "throughput", "peak_memory_gb"), default=None),
            figures=_benchmark_figures(group),
        )
        for group in section.groups
    ]


def interval(group: Group, section: Section, sureness: Sureness, kept: NDArray[np.bool_] | None = None) -> Interval:
    """Interval of a group's accuracy: pictures are drawn anew and, where there are three seeds or more, seeds too.

    Where every verdict is the same, nothing varies and the bootstrap has no width; the interval is then the exact one of
    ``n`` pictures that all agree.

    Args:
        kept: which of the section's questions it is about; None takes all.
    """
    kept = np.ones(len(section.questions), bool) if kept is None else kept
    right, units = group.right[:, kept], [unit for unit, own in zip(section.units, kept, strict=True) if own]
    if right.all() or not right.any():
        reach = ((1 - sureness.level) / 2) ** (1 / len(set(units)))
        return (reach, 1.0) if right.all() else (0.0, 1 - reach)
    # A difference to runs that are never right is the accuracy itself.
    own = _against(np.zeros_like(right), right, group.seeds, group.seeds, units, sureness)
    return own.low, own.high


def _compare(baseline: Group, group: Group, section: Section, sureness: Sureness) -> SeedComparison:
    return _against(baseline.right, group.right, baseline.seeds, group.seeds, section.units, sureness)


def _against(
    before: NDArray[np.bool_],
    after: NDArray[np.bool_],
    before_seeds: Sequence[int],
    after_seeds: Sequence[int],
    units: Sequence[Hashable],
    sureness: Sureness,
) -> SeedComparison:
    return compare_seeds(
        before.tolist(),
        after.tolist(),
        groups=units,
        before_seeds=before_seeds,
        after_seeds=after_seeds,
        resamples=sureness.resamples,
        level=sureness.level,
        seed=sureness.seed,
    )


def _figures(group: Group, *path: str) -> list[float]:
    """What the summaries of a group's runs state at a path of keys, where it is a finite number."""
    found = []
    for run in group.runs:
        value: Any = run.summary
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            found.append(float(value))
    return found


def _benchmark_figures(group: Group) -> dict[str, float]:
    names = dict.fromkeys(name for run in group.runs for name in run.summary.get("figures") or {})
    found = {name: _figures(group, "figures", name) for name in names}
    return {name: sum(own) / len(own) for name, own in found.items() if len(own) == len(group.runs)}


def _unreadable(group: Group, section: Section) -> float | None:
    by_seed: dict[int, list[bool]] = {}
    for run in group.runs:
        rows = [run.answers[key] for key in section.questions]
        by_seed.setdefault(run.seed, []).extend(not row.parsed[run.column] for row in rows if run.column in row.parsed)
    shares = [sum(own) / len(own) for own in by_seed.values() if own]
    return sum(shares) / len(shares) if shares else None


def _blind(group: Group) -> float | None:
    """Accuracy of the best answer that ignores the picture: of training runs learned apart, else the best constant."""
    known = [_mean(group, "baseline", name, "accuracy") for name in ("majority", "best constant answer")]
    return next((share for share in known if share is not None), None)


def _mean(group: Group, *path: str) -> float | None:
    found = _figures(group, *path)
    return sum(found) / len(found) if found else None
