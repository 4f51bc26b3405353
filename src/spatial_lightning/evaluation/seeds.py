"""Runs with several seeds: intervals over the seeds that trained them and the questions that judged them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatial_lightning.evaluation.statistics import p_text, require_level

FEWEST = 3
"""Seeds below which nothing is said about other seeds."""


@dataclass(frozen=True, slots=True)
class SeedComparison:
    """Two ways of training, each with several seeds, on the same questions.

    Attributes:
        n: questions.
        before, after: mean share of right answers over seeds and questions.
        low, high: interval of ``after - before``, 95 % unless asked otherwise: over seeds and questions where
            :attr:`judges_seeds`, else over questions only.
        p_value: of no difference: the larger of an exact sign-flip test over groups of questions and, where
            :attr:`judges_seeds`, a t-test over seeds, because either alone could be what made the difference.
        before_seeds, after_seeds: how many seeds there are.
        paired: whether seeds were compared one by one, because both sides have the same.
        level: confidence of the interval.
    """

    n: int
    before: float
    after: float
    low: float
    high: float
    p_value: float
    before_seeds: int
    after_seeds: int
    paired: bool
    level: float = 0.95

    @property
    def difference(self) -> float:
        """``after - before``."""
        return self.after - self.before

    @property
    def judges_seeds(self) -> bool:
        """Whether there are seeds enough to say something about others."""
        return min(self.before_seeds, self.after_seeds) >= FEWEST

    @property
    def conclusion(self) -> str:
        """One sentence that says what may be concluded, and no more."""
        over = "seeds and questions" if self.judges_seeds else "questions only"
        seeds = f"{self.before_seeds} and {self.after_seeds} seeds" + (" in pairs" if self.paired else "")
        figures = (
            f"after - before = {100 * self.difference:+.1f} points on the same {self.n} questions, {seeds} "
            f"({round(100 * self.level, 6):g} % interval over {over} {100 * self.low:+.1f} to {100 * self.high:+.1f}, "
            f"p {p_text(self.p_value)})"
        )
        excludes_zero, significant = self.low > 0 or self.high < 0, self.p_value < 1 - self.level
        if excludes_zero and significant:
            change = "better" if self.difference > 0 else "worse"
            chance = "chance among seeds and questions" if self.judges_seeds else "chance among the questions"
            said = f"after is {change} than before by more than {chance} explains"
        elif excludes_zero or significant:
            said = "the interval and the test disagree, so a change is suggested but not shown"
        else:
            said = "no difference can be concluded"
        if self.judges_seeds:
            return f"{figures}: {said}."
        return f"{figures}: of these very runs, {said}; with fewer than {FEWEST} seeds a side, seeds cannot be judged."


def compare_seeds(
    before: Sequence[Sequence[bool]],
    after: Sequence[Sequence[bool]],
    *,
    groups: Sequence[Hashable] | None = None,
    before_seeds: Sequence[Hashable] | None = None,
    after_seeds: Sequence[Hashable] | None = None,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> SeedComparison:
    """Compare two ways of training that ran with several seeds each: one row of right and wrong answers a run.

    The interval is a bootstrap that draws seeds anew and, apart from them, groups of questions, because every run answered
    the same questions. One seed less than there are is drawn, which makes the variance of a mean of few seeds come out right
    (Rao and Wu, 1988). Where seeds vary far more than questions, few of them would still make it too short (simulated, that of
    3 seeds covers about 84 %), so it is widened to Student's interval over seeds where that is wider. The p-value is no
    smaller than that of a t-test over seeds. With fewer than :data:`FEWEST` seeds on a side, only questions are drawn.

    Args:
        groups: what belongs together, e.g. the image of each question; None draws single questions.
        before_seeds, after_seeds: the seed of each run; None takes each run for another. Runs of one seed are averaged and
            count as one. Where both sides have the same seeds, runs are compared seed by seed.
        resamples: bootstrap draws.
        level: confidence of the interval.
        seed: the same seed gives the same interval.

    Raises:
        ValueError: no runs or questions, lengths that differ, or a level outside (0, 1).
    """
    require_level(level, resamples)
    old, new = _runs("before", before), _runs("after", after)
    if old.shape[1] != new.shape[1] or (groups is not None and len(groups) != old.shape[1]):
        given = f"{old.shape[1]} before, {new.shape[1]} after" + (
            f", {len(groups)} groups" if groups is not None else ""
        )
        raise ValueError(f"a paired comparison needs the same questions in the same order, got {given}")
    repeats = math.lcm(*Counter(before_seeds or ()).values(), *Counter(after_seeds or ()).values())
    old, before_seeds = _by_seed("before", old, before_seeds)
    new, after_seeds = _by_seed("after", new, after_seeds)
    order = _pairing(before_seeds, after_seeds)
    if order is not None:
        new = new[order]
    labels: dict[Hashable, int] = {}
    member = [
        labels.setdefault(group, len(labels)) for group in (groups if groups is not None else range(old.shape[1]))
    ]
    ones = np.ones_like(old[0])
    units = np.array([np.bincount(member, row, len(labels)) for row in (*old, *new, ones)], dtype=np.float64)
    low, high = _interval(units, len(old), order is not None, resamples, level, seed)
    p_value = sign_flip_p(_signed_sums(units, len(old), repeats))
    means_old, means_new = old.mean(axis=1), new.mean(axis=1)
    if min(len(old), len(new)) >= FEWEST:
        over_seeds = _OverSeeds.of(means_old, means_new, paired=order is not None)
        p_value = max(p_value, over_seeds.p_value)
        half = t_quantile(level, over_seeds.freedom) * over_seeds.spread
        low, high = min(low, over_seeds.difference - half), max(high, over_seeds.difference + half)
    return SeedComparison(
        n=old.shape[1],
        before=float(means_old.mean()),
        after=float(means_new.mean()),
        low=low,
        high=high,
        p_value=p_value,
        before_seeds=len(old),
        after_seeds=len(new),
        paired=order is not None,
        level=level,
    )


def seed_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean of a figure over seeds, e.g. of accuracies; two values or more.

    Raises:
        ValueError: fewer than two values, one that is not finite, or a level outside (0, 1).
    """
    require_level(level)
    if len(values) < 2 or not all(map(math.isfinite, values)):
        raise ValueError(f"an interval over seeds needs two finite values or more, got {list(values)}")
    given = np.asarray(values, dtype=float)
    half = t_quantile(level, len(given) - 1) * float(given.std(ddof=1)) / math.sqrt(len(given))
    return float(given.mean()) - half, float(given.mean()) + half


def t_two_sided(t: float, freedom: int) -> float:
    """Probability in [0, 1] that Student's t with ``freedom`` degrees is ``|t|`` or more away from 0.

    The finite series for whole degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4).
    """
    if freedom < 1:
        raise ValueError(f"degrees of freedom are {freedom}; allowed: 1 or more")
    angle = math.atan2(abs(t), math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for k in range(2 + odd, freedom + 1, 2):
        total += term
        term *= cosine * cosine * (k - 1) / k
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return min(1.0, max(0.0, 1.0 - inside))


def t_quantile(level: float, freedom: int) -> float:
    """The t within which a share ``level`` of Student's distribution with ``freedom`` degrees lies, on both sides of 0."""
    low, high = 0.0, 1.0
    while t_two_sided(high, freedom) > 1 - level:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if t_two_sided(middle, freedom) > 1 - level else (low, middle)
    return (low + high) / 2


def sign_flip_p(sums: Sequence[int]) -> float:
    """Exact two-sided p-value of whole numbers whose signs a fair coin decides, of a total as far from 0 or further.

    With sums of 1 and -1 this is McNemar's exact test. The distribution is built up one number at a time.
    """
    given = [abs(int(value)) for value in sums if value]
    reach = sum(given)
    chances = np.zeros(2 * reach + 1)
    chances[reach] = 1.0
    for value in given:
        chances = (np.roll(chances, value) + np.roll(chances, -value)) / 2  # what would wrap around is 0
    total = abs(int(sum(sums)))
    return min(1.0, float(chances[reach + total :].sum() + chances[: reach - total + 1].sum())) if reach else 1.0


def _runs(name: str, rows: Sequence[Sequence[bool]]) -> NDArray[np.float64]:
    sizes = {len(row) for row in rows}
    if len(sizes) != 1 or sizes == {0}:
        raise ValueError(
            f"{name}: needs one run or more, each with an answer to the same questions; got {sorted(sizes)}"
        )
    return np.asarray([[bool(right) for right in row] for row in rows], dtype=float)


def _by_seed(
    name: str, rows: NDArray[np.float64], seeds: Sequence[Hashable] | None
) -> tuple[NDArray[np.float64], list[Hashable] | None]:
    """One row a seed: runs of one seed are no independent repetitions."""
    if seeds is None:
        return rows, None
    if len(seeds) != len(rows):
        raise ValueError(f"{name}_seeds are {list(seeds)}; needed: one for each of {len(rows)} runs")
    distinct = list(dict.fromkeys(seeds))
    return np.array([rows[[own == seed for own in seeds]].mean(axis=0) for seed in distinct]), distinct


def _pairing(before_seeds: Sequence[Hashable] | None, after_seeds: Sequence[Hashable] | None) -> list[int] | None:
    """Where each seed of ``before`` is among those of ``after``; None where the two sides have other seeds."""
    if before_seeds is None or after_seeds is None or set(before_seeds) != set(after_seeds):
        return None
    return [list(after_seeds).index(own) for own in before_seeds]


def _interval(
    units: NDArray[np.float64], old: int, paired: bool, resamples: int, level: float, seed: int
) -> tuple[float, float]:
    """Bootstrap interval; ``units`` holds right answers by run and group, runs of before first, then sizes of groups."""
    rng = np.random.default_rng(seed)
    new = len(units) - 1 - old
    # Groups with the same columns are interchangeable, so drawing counts of each sort equals drawing groups.
    sorts, counts = np.unique(units, axis=1, return_counts=True)
    drawn = rng.multinomial(units.shape[1], counts / units.shape[1], size=resamples) @ sorts.T
    if min(old, new) < FEWEST:
        weights_old, weights_new = np.full((resamples, old), 1 / old), np.full((resamples, new), 1 / new)
    else:
        weights_old = _draws(rng, old, resamples)
        weights_new = weights_old if paired else _draws(rng, new, resamples)
    right = (weights_new * drawn[:, old:-1]).sum(axis=1) - (weights_old * drawn[:, :old]).sum(axis=1)
    low, high = np.quantile(right / drawn[:, -1], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _draws(rng: np.random.Generator, count: int, resamples: int) -> NDArray[np.float64]:
    """Weights of ``count`` seeds of which one less is drawn each time."""
    return rng.multinomial(count - 1, np.full(count, 1 / count), size=resamples) / (count - 1)


def _signed_sums(units: NDArray[np.float64], old: int, repeats: int) -> list[int]:
    """Per group, right answers after less right answers before, each run counted as often as makes both sides equal.

    Args:
        repeats: by how much averages over the runs of a seed have to be multiplied to be whole.
    """
    new = len(units) - 1 - old
    common = math.lcm(old, new)
    sums = units[old:-1].sum(axis=0) * (common // new) - units[:old].sum(axis=0) * (common // old)
    return [round(repeats * value) for value in sums]


@dataclass(frozen=True, slots=True)
class _OverSeeds:
    """The difference of two means over seeds, its standard error, and the degrees of freedom of that."""

    difference: float
    spread: float
    freedom: int

    @classmethod
    def of(cls, old: NDArray[np.float64], new: NDArray[np.float64], *, paired: bool) -> _OverSeeds:
        """Paired, else Welch's with degrees of freedom rounded down."""
        if paired:
            variances = [float((new - old).var(ddof=1)) / len(new)]
            freedom = len(new) - 1
        else:
            variances = [float(side.var(ddof=1)) / len(side) for side in (old, new)]
            parts = sum(v * v / (len(side) - 1) for v, side in zip(variances, (old, new), strict=True))
            freedom = max(1, math.floor(sum(variances) ** 2 / parts + 1e-9)) if parts else 1
        return cls(float(new.mean() - old.mean()), math.sqrt(sum(variances)), freedom)

    @property
    def p_value(self) -> float:
        """Two-sided, of equal means."""
        if self.spread < 1e-12:  # all seeds agree: seeds alone are no reason to doubt a difference
            return 1.0 if abs(self.difference) < 1e-12 else 0.0
        return t_two_sided(self.difference / self.spread, self.freedom)
