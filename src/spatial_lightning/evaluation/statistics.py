"""What two sets of answers to the same questions allow one to conclude, and how sure a share is."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs on the same questions; shares and differences in [0, 1] and [-1, 1].

    Attributes:
        n: questions.
        before, after: share of right answers.
        low, high: paired bootstrap interval of ``after - before``, 95 % unless asked otherwise.
        gained, lost: questions right only after, right only before.
        p_value: exact two-sided McNemar test of ``gained`` against ``lost``.
        level: confidence of the interval.
    """

    n: int
    before: float
    after: float
    low: float
    high: float
    gained: int
    lost: int
    p_value: float
    level: float = 0.95

    @property
    def difference(self) -> float:
        """``after - before``."""
        return self.after - self.before

    @property
    def conclusion(self) -> str:
        """One sentence that says what may be concluded, and no more."""
        figures = (
            f"after - before = {100 * self.difference:+.1f} points on the same {self.n} questions "
            f"({round(100 * self.level, 6):g} % interval {100 * self.low:+.1f} to {100 * self.high:+.1f}; "
            f"{self.gained} gained, {self.lost} lost, McNemar p {p_text(self.p_value)})"
        )
        excludes_zero, significant = self.low > 0 or self.high < 0, self.p_value < 1 - self.level
        if excludes_zero and significant:
            change = "better" if self.difference > 0 else "worse"
            return f"{figures}: this run is {change} than before by more than chance among the questions explains."
        if excludes_zero or significant:
            return f"{figures}: the interval and the test disagree, so a change is suggested but not shown."
        if self.gained == self.lost == 0:
            return f"{figures}: the same questions are right before and after, so no change was seen."
        return (
            f"{figures}: no difference can be concluded, and where a true one is below about {100 * self.detectable:.1f} "
            "points, so many questions would often not show it."
        )

    @property
    def detectable(self) -> float:
        """Difference in (0, 1] that so many questions, as often answered otherwise as here, show four times out of five."""
        # At least one more than was seen, because no question that changed is no proof that none would.
        share = min(1.0, (self.gained + self.lost + 1) / self.n)
        return minimum_detectable(self.n, discordant=share, level=self.level)


def wilson_interval(correct: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson score interval of a share in [0, 1], 95 % by default; (0, 1) where ``n`` is 0."""
    if not 0 <= correct <= n:
        raise ValueError(f"{correct} of {n} cannot be right; allowed: 0 to {n}")
    if n == 0:
        return 0.0, 1.0
    share, spread = correct / n, z * z / n
    centre = share + spread / 2
    half = z * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    low, high = (centre - half) / (1 + spread), (centre + half) / (1 + spread)
    return (0.0 if correct == 0 else low), (1.0 if correct == n else high)


def mcnemar_p(gained: int, lost: int) -> float:
    """Exact two-sided p-value in (0, 1] of McNemar's test: a fair coin decides each question where two runs differ."""
    if gained < 0 or lost < 0:
        raise ValueError(f"gained and lost are counts, got {gained} and {lost}")
    n, term, total = gained + lost, 1, 0
    for k in range(min(gained, lost) + 1):
        total += term
        term = term * (n - k) // (k + 1)
    return min(1.0, 2 * total / 2**n)


def minimum_detectable(n: int, *, discordant: float = 0.5, level: float = 0.95, power: float = 0.8) -> float:
    """Difference in (0, 1] between two runs on the same ``n`` questions that McNemar's test finds with chance ``power``.

    Solves n = ((z_level sqrt(d) + z_power sqrt(d - D^2)) / D)^2 for D (Miettinen, Biometrics 24, 1968), with d the share of
    questions on which the runs differ, which is never less than D. Normal, hence rough where n d is below about 20; 1 where
    not even the largest difference would be found.

    Args:
        discordant: share in (0, 1] of questions that only one of the runs gets right; one half is what two unrelated runs
            have that are right half of the time.

    Raises:
        ValueError: no questions, or a share, level or power outside its range.
    """
    if n < 1 or not 0 < discordant <= 1 or not 0 < level < 1 or not 0.5 <= power < 1:
        raise ValueError(
            f"n is {n}, discordant {discordant}, level {level}, power {power}; allowed: 1 question or more, a share in (0, 1], a "
            "level in (0, 1) and a power in [0.5, 1)"
        )
    z_level, z_power = NormalDist().inv_cdf((1 + level) / 2), NormalDist().inv_cdf(power)

    def found(difference: float) -> bool:
        d = max(discordant, difference)
        return math.sqrt(n) * difference >= z_level * math.sqrt(d) + z_power * math.sqrt(d - difference * difference)

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high


def paired_bootstrap(
    before: Sequence[bool],
    after: Sequence[bool],
    *,
    groups: Sequence[Hashable] | None = None,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the mean of ``after - before`` over resampled questions, in [-1, 1].

    Args:
        groups: what belongs together, e.g. the image of each question; whole groups are resampled, since answers about
            one image are not independent. None resamples single questions.
        seed: the same seed gives the same interval.

    Raises:
        ValueError: no questions, lengths that differ, or a level outside (0, 1).
    """
    _require_pairs(before, after, groups)
    require_level(level, resamples)
    change = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    labels: dict[Hashable, int] = {}
    member = [labels.setdefault(group, len(labels)) for group in (groups if groups is not None else range(len(change)))]
    units = np.stack([np.bincount(member, weights=change), np.bincount(member)], axis=1)
    # Units with the same sum and size are interchangeable, so drawing counts of each sort equals drawing units.
    sorts, counts = np.unique(units, axis=0, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(units), counts / len(units), size=resamples) @ sorts
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def compare(
    before: Sequence[bool],
    after: Sequence[bool],
    *,
    groups: Sequence[Hashable] | None = None,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare two runs question by question: whether each answer was right before and after, in the same order.

    Raises:
        ValueError: as :func:`paired_bootstrap`.
    """
    low, high = paired_bootstrap(before, after, groups=groups, resamples=resamples, level=level, seed=seed)
    gained = sum(bool(new) and not old for old, new in zip(before, after, strict=True))
    lost = sum(bool(old) and not new for old, new in zip(before, after, strict=True))
    n = len(before)
    return Comparison(n, sum(before) / n, sum(after) / n, low, high, gained, lost, mcnemar_p(gained, lost), level)


def _require_pairs(before: Sequence[bool], after: Sequence[bool], groups: Sequence[Hashable] | None) -> None:
    if len(before) != len(after) or (groups is not None and len(groups) != len(before)):
        given = f"{len(before)} before, {len(after)} after" + (f", {len(groups)} groups" if groups is not None else "")
        raise ValueError(f"a paired comparison needs the same questions in the same order, got {given}")
    if len(before) == 0:
        raise ValueError("a paired comparison needs at least one question")


def require_level(level: float, resamples: int = 1) -> None:
    """Refuse a level outside (0, 1) and fewer than one resample.

    Raises:
        ValueError: it is one of these.
    """
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level is {level} and resamples {resamples}; allowed: a level in (0, 1), 1 resample or more")


def p_text(p: float) -> str:
    """A p-value as it is written behind ``p``, e.g. ``= 0.031``."""
    return "< 0.0001" if p < 1e-4 else f"= {p:.2g}"
