"""Corrections for many comparisons: worked examples, their definitions, and sentences that name the correction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_lightning.evaluation.families import benjamini_hochberg, correct, holm
from spatial_lightning.evaluation.seeds import compare_seeds
from spatial_lightning.evaluation.statistics import Comparison, compare

p_lists = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def test_worked_examples():
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert benjamini_hochberg(p) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    # Benjamini and Hochberg 1995, section 4: of these fifteen, Holm's step-down keeps three and theirs four at 5 %.
    fifteen = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528,
               0.7590, 1.0]  # fmt: skip
    assert sum(own <= 0.05 for own in holm(fifteen)) == 3
    assert sum(own <= 0.05 for own in benjamini_hochberg(fifteen)) == 4


@given(p_lists, st.floats(0.001, 0.5))
def test_holm_rejects_what_its_steps_reject(p_values, level):
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    rejected: set[int] = set()
    for rank, index in enumerate(order):
        if p_values[index] * (len(order) - rank) > level:
            break
        rejected.add(index)
    assert {index for index, own in enumerate(holm(p_values)) if own <= level} == rejected


@given(p_lists, st.floats(0.001, 0.5))
def test_benjamini_hochberg_rejects_up_to_the_last_small_one(p_values, level):
    order = sorted(p_values)
    last = max((rank for rank, own in enumerate(order, 1) if own * (len(order) / rank) <= level), default=0)
    assert sum(own <= level for own in benjamini_hochberg(p_values)) >= last
    assert all(
        own > level
        for own, p in zip(benjamini_hochberg(p_values), p_values, strict=True)
        if p > order[last - 1] or not last
    )


@given(p_lists, st.randoms(use_true_random=False))
def test_corrections_never_lower_a_p_value_and_keep_the_order(p_values, shuffler):
    for method in (holm, benjamini_hochberg):
        corrected = method(p_values)
        assert all(p <= own <= 1 for p, own in zip(p_values, corrected, strict=True))
        pairs = sorted(zip(p_values, corrected, strict=True))
        assert [own for _, own in pairs] == sorted(own for _, own in pairs)
        order = list(range(len(p_values)))
        shuffler.shuffle(order)
        assert method([p_values[index] for index in order]) == [corrected[index] for index in order]
    assert all(b <= a + 1e-12 for a, b in zip(holm(p_values), benjamini_hochberg(p_values), strict=True))


def made(low, high, p, level=0.95):
    return Comparison(100, 0.5, 0.5 + (low + high) / 2, low, high, 0, 0, p, level)


def test_a_family_claims_only_what_survives_the_correction():
    family = correct(
        {
            "a": made(0.1, 0.2, 0.001),
            "b": made(0.01, 0.1, 0.03),
            "c": made(-0.3, -0.2, 0.004),
            "d": made(-0.1, 0.1, 0.9),
        }
    )
    assert {name: family.verdict(name) for name in "abcd"} == {
        "a": "better",
        "b": "suggested",
        "c": "worse",
        "d": "open",
    }
    said = family.conclusion
    assert "Of 4 comparisons to before, p-values corrected by Holm for all 4" in said
    assert "chance of any false claim is at most 5 %" in said
    assert "better than before: a (+15.0 points, corrected p = 0.004)" in said
    assert "worse than before: c (-25.0 points, corrected p = 0.012)" in said
    assert "a change is suggested but not shown: b (+5.5 points, corrected p = 0.06)" in said
    assert "no difference can be concluded: d (+0.0 points, corrected p = 0.9)" in said
    assert family.conclusions["b"] == (
        "b: after - before = +5.5 points (95 % interval of this comparison alone +1.0 to +10.0; p = 0.03, corrected for 4 "
        "p = 0.06): a change is suggested but not shown."
    )


def test_one_comparison_is_not_corrected_and_the_method_is_named():
    own = compare([False] * 20 + [True] * 20, [True] * 40)
    family = correct({"only": own}, "benjamini-hochberg")
    assert dict(family.corrected) == {"only": own.p_value}
    assert "Of 1 comparison to before, p-values corrected by Benjamini and Hochberg" in family.conclusion
    assert "on average at most 5 % of claims are false" in family.conclusion


def test_comparisons_over_seeds_make_a_family_as_well():
    before = [[True, False] * 30] * 3
    family = correct({"same": compare_seeds(before, before), "more": compare_seeds(before, [[True] * 60] * 3)})
    assert (family.verdict("same"), family.verdict("more")) == ("open", "better")


def test_what_is_no_family_is_refused_in_words():
    with pytest.raises(ValueError, match="got no comparisons"):
        correct({})
    with pytest.raises(ValueError, match=r"one level; got levels \[0.9, 0.95\]"):
        correct({"a": made(0, 1, 0.1), "b": made(0, 1, 0.1, level=0.9)})
    with pytest.raises(ValueError, match="method is 'bonferroni'; allowed: holm, benjamini-hochberg"):
        correct({"a": made(0, 1, 0.1)}, "bonferroni")
    with pytest.raises(ValueError, match="p-value is 1.5; allowed: 0 to 1"):
        holm([0.1, 1.5])
