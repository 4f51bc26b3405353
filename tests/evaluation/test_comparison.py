"""Intervals and tests against independent formulas, and conclusions that do not claim more than they allow."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spatial_lightning.evaluation.statistics import (
    compare,
    mcnemar_p,
    minimum_detectable,
    paired_bootstrap,
    wilson_interval,
)

answers = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@given(st.integers(1, 500), st.data())
def test_wilson_bounds_solve_the_score_equation(n, data):
    correct = data.draw(st.integers(0, n))
    low, high = wilson_interval(correct, n)
    assert 0 <= low <= correct / n <= high <= 1
    for bound in (low, high):
        if 0 < bound < 1:
            assert abs(correct / n - bound) == pytest.approx(1.959964 * math.sqrt(bound * (1 - bound) / n), rel=1e-5)
    mirrored = wilson_interval(n - correct, n)
    assert mirrored == (pytest.approx(1 - high), pytest.approx(1 - low))


def test_wilson_published_example_and_edges():
    assert wilson_interval(81, 263) == (
        pytest.approx(0.2553, abs=1e-4),
        pytest.approx(0.3662, abs=1e-4),
    )  # Newcombe 1998
    assert wilson_interval(0, 0) == (0, 1)
    with pytest.raises(ValueError, match="3 of 2"):
        wilson_interval(3, 2)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_two_sided_sign_test(gained, lost):
    n, least = gained + lost, min(gained, lost)
    expected = min(1.0, 2 * sum(math.comb(n, k) for k in range(least + 1)) * 0.5**n)
    assert mcnemar_p(gained, lost) == pytest.approx(expected)
    assert mcnemar_p(gained, lost) == mcnemar_p(lost, gained)


def test_mcnemar_by_hand():
    assert mcnemar_p(5, 0) == pytest.approx(2 / 32)
    assert mcnemar_p(0, 0) == 1
    assert 0 <= mcnemar_p(3000, 2000) < 1e-40
    with pytest.raises(ValueError, match="counts"):
        mcnemar_p(-1, 0)


@given(answers, st.integers(0, 3))
def test_swapping_the_runs_negates_and_order_changes_nothing(pairs, seed):
    before, after = zip(*pairs, strict=True)
    there, back = compare(before, after, resamples=500, seed=seed), compare(after, before, resamples=500, seed=seed)
    assert there.difference == pytest.approx(-back.difference)
    assert (there.gained, there.lost, there.p_value) == (back.lost, back.gained, back.p_value)
    assert -1 <= there.low <= there.high <= 1
    turned = compare(before[::-1], after[::-1], resamples=500, seed=seed)
    assert (turned.low, turned.high) == (there.low, there.high)


def test_the_bootstrap_interval_matches_the_normal_one_for_many_questions():
    rng = np.random.default_rng(1)
    before, after = rng.random(2000) < 0.5, rng.random(2000) < 0.6
    change = after.astype(float) - before
    half = 1.96 * change.std() / math.sqrt(len(change))
    low, high = paired_bootstrap(before.tolist(), after.tolist())
    assert (low, high) == (pytest.approx(change.mean() - half, abs=2e-3), pytest.approx(change.mean() + half, abs=2e-3))


def test_groups_of_one_change_nothing_and_copies_add_nothing():
    rng = np.random.default_rng(2)
    before, after = (rng.random(80) < 0.4).tolist(), (rng.random(80) < 0.6).tolist()
    single = paired_bootstrap(before, after)
    assert paired_bootstrap(before, after, groups=range(80)) == single
    copied = paired_bootstrap(before * 9, after * 9, groups=list(range(80)) * 9)
    assert copied == pytest.approx(single)
    naive = paired_bootstrap(before * 9, after * 9)
    assert naive[1] - naive[0] < 0.5 * (copied[1] - copied[0])


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    hits = 0
    for trial in range(200):
        before, after = rng.random(150) < 0.5, rng.random(150) < 0.55
        low, high = paired_bootstrap(before.tolist(), after.tolist(), resamples=1000, seed=trial)
        hits += low <= 0.05 <= high
    assert 0.90 <= hits / 200 <= 0.99


def test_the_same_seed_gives_the_same_interval():
    before, after = [True, False] * 20, [True, True, False, False] * 10
    assert paired_bootstrap(before, after, seed=5) == paired_bootstrap(before, after, seed=5)
    assert paired_bootstrap(before, after, level=0.5)[1] < paired_bootstrap(before, after, level=0.99)[1]


@given(answers)
def test_a_change_is_only_claimed_where_interval_and_test_agree(pairs):
    comparison = compare(*zip(*pairs, strict=True), resamples=500)
    claimed = "better" in comparison.conclusion or "worse" in comparison.conclusion
    assert claimed == ((comparison.low > 0 or comparison.high < 0) and comparison.p_value < 0.05)
    assert f"the same {len(pairs)} questions" in comparison.conclusion


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ([False] * 20 + [True] * 20, [True] * 40, "this run is better"),
        ([True] * 40, [False] * 20 + [True] * 20, "this run is worse"),
        ([True, False] * 20, [True, False] * 20, "no change was seen"),
        ([True, False] * 20, [False, True] * 20, "no difference can be concluded"),
        ([False] * 4 + [True] * 30, [True] * 34, "suggested but not shown"),
    ],
)
def test_conclusions(before, after, words):
    assert words in compare(before, after).conclusion


def test_unpaired_answers_are_refused_in_words():
    with pytest.raises(ValueError, match="same questions in the same order, got 1 before, 2 after"):
        compare([True], [True, False])
    with pytest.raises(ValueError, match="1 groups"):
        paired_bootstrap([True, False], [True, False], groups=["a"])
    with pytest.raises(ValueError, match="at least one question"):
        compare([], [])
    with pytest.raises(ValueError, match="level is 95"):
        paired_bootstrap([True], [False], level=95)


@given(answers)
def test_shares_and_counts_agree(pairs):
    assume(len(pairs) > 1)
    before, after = zip(*pairs, strict=True)
    comparison = compare(before, after, resamples=100)
    assert comparison.difference == pytest.approx((comparison.gained - comparison.lost) / len(pairs))


def power(n, discordant, difference):
    """Chance that McNemar's exact test finds ``difference``, by going through every outcome."""
    up, down = (discordant + difference) / 2, (discordant - difference) / 2
    total = 0.0
    for gained in range(n + 1):
        for lost in range(n + 1 - gained):
            if mcnemar_p(gained, lost) < 0.05:
                ways = math.comb(n, gained) * math.comb(n - gained, lost)
                total += ways * up**gained * down**lost * (1 - discordant) ** (n - gained - lost)
    return total


@pytest.mark.parametrize(("n", "discordant"), [(80, 0.3), (120, 0.5), (60, 0.9)])
def test_the_smallest_detectable_difference_has_the_power_it_claims(n, discordant):
    difference = minimum_detectable(n, discordant=discordant)
    assert 0.7 < power(n, discordant, difference) < 0.86  # the exact test is a little more cautious than the formula
    assert power(n, discordant, difference / 2) < 0.4


def test_the_smallest_detectable_difference_by_its_formula():
    for n, discordant in ((100, 0.5), (1000, 0.2), (400, 1.0)):
        d = minimum_detectable(n, discordant=discordant)
        needed = ((1.959964 * math.sqrt(discordant) + 0.841621 * math.sqrt(discordant - d * d)) / d) ** 2
        assert needed == pytest.approx(n, rel=1e-4)
    assert minimum_detectable(3) == 1
    assert minimum_detectable(10_000) < minimum_detectable(1_000) < minimum_detectable(100)
    assert minimum_detectable(100, power=0.95) > minimum_detectable(100) > minimum_detectable(100, level=0.8)
    for wrong in ({"n": 0}, {"n": 9, "discordant": 0}, {"n": 9, "power": 1}, {"n": 9, "level": 95}):
        with pytest.raises(ValueError, match="allowed: 1 question or more"):
            minimum_detectable(**wrong)


def test_the_conclusion_says_what_could_not_have_been_seen():
    comparison = compare([True, False] * 50, [True, False] * 45 + [False, True] * 5)
    reach = 100 * minimum_detectable(100, discordant=0.11)
    assert comparison.detectable == pytest.approx(reach / 100)
    assert f"where a true one is below about {reach:.1f} points" in comparison.conclusion
