"""Which examples make up a step is a function of seed, epoch and position alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_lightning.data.sampling import StepSampler, balanced

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 9))


def steps(sampler: StepSampler, epoch: int = 0) -> list[list[int]]:
    sampler.set_epoch(epoch)
    return list(sampler)


@given(SIZES, st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_meets_every_example_once(sizes: tuple[int, int], seed: int, epoch: int) -> None:
    examples, batch = sizes
    found = steps(StepSampler(examples, batch, seed=seed), epoch)
    assert sorted(index for step in found for index in step) == list(range(examples))
    assert [len(step) for step in found[:-1]] == [batch] * (len(found) - 1)
    assert len(found) == len(StepSampler(examples, batch))
    assert found == steps(StepSampler(examples, batch, seed=seed), epoch)


@given(SIZES, st.integers(1, 4), st.integers(0, 3))
def test_ranks_partition_every_step(sizes: tuple[int, int], ranks: int, epoch: int) -> None:
    examples, batch = sizes[0], max(sizes[1], ranks)
    whole = steps(StepSampler(examples, batch), epoch)
    parts = [steps(StepSampler(examples, batch, rank=rank, world_size=ranks), epoch) for rank in range(ranks)]
    assert {len(part) for part in parts} == {len(whole)}
    for index, step in enumerate(whole):
        shares = [part[index] for part in parts]
        assert sorted(i for share in shares for i in share) == sorted(step)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(SIZES, st.integers(0, 3), st.integers(0, 40))
def test_resuming_leaves_out_what_was_seen_and_only_in_that_epoch(
    sizes: tuple[int, int], epoch: int, seen: int
) -> None:
    whole = [steps(StepSampler(*sizes), e) for e in (epoch, epoch + 1)]
    sampler = StepSampler(*sizes)
    sampler.resume(epoch, seen)
    assert steps(sampler, epoch) == whole[0][seen:]
    assert steps(sampler, epoch + 1) == whole[1]


@given(SIZES, st.integers(1, 4), st.integers(0, 3))
def test_shares_by_length_partition_every_step_too(sizes: tuple[int, int], ranks: int, epoch: int) -> None:
    examples, batch = sizes[0], max(sizes[1], ranks)
    whole = steps(StepSampler(examples, batch), epoch)
    parts = [
        steps(StepSampler(examples, batch, rank=rank, world_size=ranks, length=_length), epoch) for rank in range(ranks)
    ]
    for index, step in enumerate(whole):
        assert sorted(i for part in parts for i in part[index]) == sorted(step)
        # A step with an example for each rank leaves none without work.
        assert len(step) < ranks or all(part[index] for part in parts)


def _length(index: int, epoch: int) -> float:
    return 1 + (index * 7919 + epoch) % 101


@given(st.lists(st.integers(1, 50), min_size=1, max_size=7), st.integers(2, 3))
def test_shares_are_within_a_third_of_the_best(lengths: list[int], ranks: int) -> None:
    shares = balanced(lengths, ranks)
    assert sorted(place for share in shares for place in share) == list(range(len(lengths)))
    assert shares == balanced(lengths, ranks)
    best = min(
        max(sum(own for own, to in zip(lengths, owners, strict=True) if to == rank) for rank in range(ranks))
        for owners in itertools.product(range(ranks), repeat=len(lengths))
    )
    assert max(sum(lengths[place] for place in share) for share in shares) <= 4 / 3 * best


def test_many_examples_of_any_length_are_shared_to_a_few_percent() -> None:
    lengths = np.random.default_rng(0).lognormal(6, 1, 64).tolist()
    sums = [sum(lengths[place] for place in share) for share in balanced(lengths, 4)]
    in_turn = [sum(lengths[rank::4]) for rank in range(4)]
    assert max(sums) / min(sums) < 1.05 < max(in_turn) / min(in_turn)


def test_orders_differ_between_epochs_and_seeds() -> None:
    orders = [steps(StepSampler(30, 30, seed=seed), epoch)[0] for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert steps(StepSampler(5, 2, shuffle=False), 3) == [[0, 1], [2, 3], [4]]


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="data set is empty"):
        StepSampler(0, 1)
    with pytest.raises(ValueError, match="fewer than the 4 ranks"):
        StepSampler(10, 2, world_size=4)
