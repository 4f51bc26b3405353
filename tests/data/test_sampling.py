"""Which examples make up a step is a function of seed, epoch and position alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_lightning.data.sampling import StepSampler

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


def test_orders_differ_between_epochs_and_seeds() -> None:
    orders = [steps(StepSampler(30, 30, seed=seed), epoch)[0] for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert steps(StepSampler(5, 2, shuffle=False), 3) == [[0, 1], [2, 3], [4]]


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="data set is empty"):
        StepSampler(0, 1)
    with pytest.raises(ValueError, match="fewer than the 4 ranks"):
        StepSampler(10, 2, world_size=4)
