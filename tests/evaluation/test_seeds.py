"""Intervals over seeds and questions against enumeration and published tables, and what they do not claim."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_lightning.evaluation.seeds import (
    compare_seeds,
    seed_interval,
    sign_flip_p,
    t_quantile,
    t_two_sided,
)
from spatial_lightning.evaluation.statistics import compare, mcnemar_p


def runs(seeds, questions, share, spread=0.0, *, rng):
    """Right and wrong answers of runs whose seeds differ by ``spread`` in how often they are right."""
    return [(rng.random(questions) < share + spread * rng.standard_normal()).tolist() for _ in range(seeds)]


@pytest.mark.parametrize(
    ("freedom", "t"),  # two-sided 5 % points of printed tables
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (10, 2.228), (30, 2.042), (120, 1.980)],
)
def test_t_matches_printed_tables(freedom, t):
    assert t_quantile(0.95, freedom) == pytest.approx(t, abs=6e-4)
    assert t_two_sided(t, freedom) == pytest.approx(0.05, abs=5e-5)  # tables give three decimals


@given(st.integers(1, 40), st.floats(0, 20))
def test_t_is_the_integral_of_its_density(freedom, t):
    grid = np.linspace(0, t, 20_001)
    constant = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    density = constant * (1 + grid**2 / freedom) ** (-(freedom + 1) / 2)
    assert t_two_sided(t, freedom) == pytest.approx(1 - 2 * np.trapezoid(density, grid), abs=1e-6)
    assert t_two_sided(-t, freedom) == t_two_sided(t, freedom)


def test_an_interval_over_seeds_by_hand():
    # mean 2, standard deviation 1, three values: 2 +- 4.3027 / sqrt(3)
    assert seed_interval([1.0, 2.0, 3.0]) == (
        pytest.approx(2 - 2.48414, abs=1e-4),
        pytest.approx(2 + 2.48414, abs=1e-4),
    )
    assert seed_interval([0.5, 0.5]) == (0.5, 0.5)
    for values in ([], [0.5], [0.5, math.nan]):
        with pytest.raises(ValueError, match="two finite values or more"):
            seed_interval(values)
    with pytest.raises(ValueError, match="level is 95"):
        seed_interval([0.1, 0.2], level=95)


@given(st.lists(st.integers(-4, 4), max_size=10))
def test_sign_flips_are_enumerated(sums):
    total = abs(sum(sums))
    flips = [
        abs(sum(s * v for s, v in zip(signs, sums, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(sums))
    ]
    assert sign_flip_p(sums) == pytest.approx(sum(flip >= total for flip in flips) / len(flips))


@given(st.integers(0, 30), st.integers(0, 30))
def test_sign_flips_of_single_questions_are_mcnemars_test(gained, lost):
    assert sign_flip_p([1] * gained + [-1] * lost + [0] * 5) == pytest.approx(mcnemar_p(gained, lost))


def test_many_sums_stay_exact_and_fast():
    assert sign_flip_p([3] * 500 + [-3] * 500) == 1
    assert sign_flip_p([2] * 2000) == pytest.approx(0, abs=1e-300)


def enumerate_interval(before, after, *, paired):
    """Quantiles of the same bootstrap by going through every draw of seeds (one less than there are) and of questions."""
    old, new = np.asarray(before, float), np.asarray(after, float)
    count, questions = old.shape
    seeds = list(itertools.product(range(count), repeat=count - 1))
    picks = [(one, one) for one in seeds] if paired else list(itertools.product(seeds, seeds))
    drawn = [
        new[list(b)][:, list(q)].mean() - old[list(a)][:, list(q)].mean()
        for a, b in picks
        for q in itertools.product(range(questions), repeat=questions)
    ]
    return np.asarray(drawn)


@pytest.mark.parametrize("paired", [True, False])
def test_the_bootstrap_is_the_enumerated_one(paired):
    rng = np.random.default_rng(1)  # its seeds agree enough for the bootstrap to be the wider interval
    before, after = runs(3, 4, 0.4, rng=rng), runs(3, 4, 0.7, rng=rng)
    names = {"before_seeds": [0, 1, 2], "after_seeds": [0, 1, 2]} if paired else {}
    drawn = enumerate_interval(before, after, paired=paired)
    found = compare_seeds(before, after, resamples=200_000, level=0.8, **names)
    # The distribution has steps, so the quantile may fall on either side of one.
    for end, share in ((found.low, 0.1), (found.high, 0.9)):
        assert (drawn < end - 1e-9).mean() <= share + 0.01
        assert (drawn <= end + 1e-9).mean() >= share - 0.01


def test_where_seeds_vary_more_than_questions_the_interval_is_students():
    before = [[False] * 100] * 3
    after = [[True] * right + [False] * (100 - right) for right in (90, 30, 60)]
    found = compare_seeds(before, after, before_seeds=[0, 1, 2], after_seeds=[0, 1, 2])
    assert (found.low, found.high) == pytest.approx(seed_interval([0.9, 0.3, 0.6]))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_one_seed_a_side_is_the_comparison_of_two_runs(pairs):
    before, after = map(list, zip(*pairs, strict=True))
    found, single = compare_seeds([before], [after], resamples=300), compare(before, after, resamples=300)
    assert found.difference == pytest.approx(single.difference)
    assert found.p_value == pytest.approx(single.p_value)
    assert "fewer than 3 seeds a side, seeds cannot be judged" in found.conclusion
    assert "questions only" in found.conclusion
    assert not found.judges_seeds


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 4))
def test_swapping_the_sides_negates(seed, old, new):
    rng = np.random.default_rng(seed)
    before, after = runs(old, 30, 0.5, rng=rng), runs(new, 30, 0.6, rng=rng)
    there, back = compare_seeds(before, after, resamples=4000), compare_seeds(after, before, resamples=4000)
    assert there.difference == pytest.approx(-back.difference)
    assert there.p_value == pytest.approx(back.p_value)
    assert (there.low, there.high) == (pytest.approx(-back.high, abs=0.03), pytest.approx(-back.low, abs=0.03))


def test_seeds_in_pairs_are_matched_by_name_and_sharper_than_apart():
    rng = np.random.default_rng(5)
    before = [(rng.random(300) < share).tolist() for share in (0.3, 0.5, 0.7)]
    after = [list(row) for row in before]
    for row, gained in zip(after, (28, 30, 33), strict=True):
        for index in [index for index, right in enumerate(row) if not right][:gained]:
            row[index] = True
    named = compare_seeds(before, after, before_seeds=[1, 2, 3], after_seeds=[1, 2, 3])
    turned = compare_seeds(before, after[::-1], before_seeds=[1, 2, 3], after_seeds=[3, 2, 1])
    assert turned == named
    assert named.paired
    assert "after is better than before by more than chance among seeds and questions" in named.conclusion
    apart = compare_seeds(before, after, before_seeds=[1, 2, 3], after_seeds=[4, 5, 6])
    assert not apart.paired
    assert apart.high - apart.low > 2 * (named.high - named.low)
    assert "no difference can be concluded" in apart.conclusion


def test_the_same_change_in_every_seed_adds_nothing_to_one():
    before, after = [True, False] * 30, [True] * 40 + [False, True] * 10
    one, many = compare_seeds([before], [after]), compare_seeds([before] * 4, [after] * 4)
    assert many.difference == one.difference
    assert many.p_value == pytest.approx(one.p_value)
    assert (many.low, many.high) == pytest.approx((one.low, one.high), abs=0.02)
    assert one.conclusion != many.conclusion


def test_runs_of_one_seed_count_as_one():
    rng = np.random.default_rng(5)
    before, after = runs(3, 60, 0.5, rng=rng), runs(3, 60, 0.6, rng=rng)
    plain = compare_seeds(before, after, before_seeds="abc", after_seeds="xyz", resamples=500)
    repeated = compare_seeds([*before, before[0]], after * 2, before_seeds="abca", after_seeds="xyzxyz", resamples=500)
    assert repeated == plain
    few = compare_seeds(before, after, before_seeds="aab", after_seeds="xyz", resamples=500)
    assert (few.before_seeds, few.judges_seeds) == (2, False)
    shares = np.stack([np.mean(before[:2], axis=0), before[2]]).mean(axis=0)
    assert few.before == pytest.approx(shares.mean())
    changes = 12 * (np.mean(after, axis=0) - shares)
    assert few.p_value == sign_flip_p([round(change) for change in changes])


def test_groups_widen_the_interval():
    rng = np.random.default_rng(6)
    before, after = runs(3, 60, 0.4, rng=rng), runs(3, 60, 0.5, rng=rng)
    copied = [[*row * 5] for row in before], [[*row * 5] for row in after]
    groups = list(range(60)) * 5
    grouped, naive = compare_seeds(*copied, groups=groups), compare_seeds(*copied)
    single = compare_seeds(before, after)
    assert (grouped.low, grouped.high) == (pytest.approx(single.low), pytest.approx(single.high))
    assert grouped.p_value == pytest.approx(single.p_value)
    assert naive.high - naive.low < grouped.high - grouped.low


@pytest.mark.parametrize("paired", [True, False])
def test_a_difference_that_is_not_there_is_rarely_claimed_and_covered_by_the_interval(paired):
    rng = np.random.default_rng(7)
    claims = covered = 0
    for trial in range(200):
        before, after = runs(4, 80, 0.5, 0.06, rng=rng), runs(4, 80, 0.5, 0.06, rng=rng)
        names = {"before_seeds": range(4), "after_seeds": range(4)} if paired else {}
        found = compare_seeds(before, after, resamples=500, seed=trial, **names)
        claims += "better" in found.conclusion or "worse" in found.conclusion
        covered += found.low <= 0 <= found.high
    assert claims <= 12  # 5 % of 200 and a little
    assert covered >= 176


def test_the_conclusion_claims_only_what_interval_and_test_agree_on():
    rng = np.random.default_rng(8)
    for share in (0.5, 0.55, 0.6, 0.7):
        for seeds in (1, 2, 3, 5):
            found = compare_seeds(runs(seeds, 100, 0.5, rng=rng), runs(seeds, 100, share, rng=rng), resamples=500)
            agreed = (found.low > 0 or found.high < 0) and found.p_value < 0.05
            assert ("better" in found.conclusion or "worse" in found.conclusion) == agreed
            assert ("seeds cannot be judged" in found.conclusion) == (seeds < 3)


def test_what_cannot_be_compared_is_refused_in_words():
    with pytest.raises(ValueError, match="before: needs one run or more"):
        compare_seeds([], [[True]])
    with pytest.raises(ValueError, match=r"after: needs one run or more.*got \[1, 2\]"):
        compare_seeds([[True]], [[True], [True, False]])
    with pytest.raises(ValueError, match="same questions in the same order, got 1 before, 2 after"):
        compare_seeds([[True]], [[True, False]])
    with pytest.raises(ValueError, match="3 groups"):
        compare_seeds([[True]], [[True]], groups=[1, 2, 3])
    with pytest.raises(ValueError, match=r"after_seeds are \[1\]; needed: one for each of 2 runs"):
        compare_seeds([[True]], [[True], [False]], after_seeds=[1])
    with pytest.raises(ValueError, match="level is 2"):
        compare_seeds([[True]], [[True]], level=2)
    with pytest.raises(ValueError, match="degrees of freedom are 0"):
        t_two_sided(1.0, 0)
