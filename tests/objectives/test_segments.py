"""Segment sums: each trained token counted once in its own cell, everything else without value and gradient."""

import math

import pytest
import torch

from spatial_lightning.objectives import (
    length_desensitised_weights,
    preference_loss,
    segment_counts,
    segment_sums,
)

BRANCH = torch.tensor([0, 0, 0, 2, 2, -1, 2])
SEGMENT = torch.tensor([0, 1, 1, 0, 0, 0, -1])
SIZE = {"branches": 3, "segments": 2}


def test_by_hand():
    logps = torch.tensor([-1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0])
    sums = segment_sums(logps, BRANCH, SEGMENT, **SIZE)
    assert sums.tolist() == [[-1, -5], [0, 0], [-9, 0]]
    assert segment_counts(BRANCH, SEGMENT, **SIZE).tolist() == [[1, 2], [0, 0], [2, 0]]


def test_agrees_with_a_loop_and_order_changes_nothing():
    generator = torch.Generator().manual_seed(1)
    logps = -torch.rand(200, generator=generator).double()
    branch, segment = (torch.randint(-1, n, (200,), generator=generator) for n in (5, 3))
    sums = segment_sums(logps, branch, segment, branches=5, segments=3)
    counts = segment_counts(branch, segment, branches=5, segments=3)
    for b in range(5):
        for s in range(3):
            members = [p for p, i, j in zip(logps, branch, segment, strict=True) if (i, j) == (b, s)]
            assert counts[b, s] == len(members)
            assert sums[b, s].item() == pytest.approx(math.fsum(members))
    order = torch.randperm(200, generator=generator)
    torch.testing.assert_close(segment_sums(logps[order], branch[order], segment[order], branches=5, segments=3), sums)


def test_gradient_reaches_the_tokens_of_a_cell_and_no_others():
    logps = -torch.rand(7, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(segment_sums(logps, BRANCH, SEGMENT, **SIZE)[0, 1], logps)
    assert gradient.tolist() == [0, 1, 1, 0, 0, 0, 0]
    assert torch.autograd.gradcheck(lambda x: segment_sums(x, BRANCH, SEGMENT, **SIZE), logps.detach().requires_grad_())


def test_impossible_token_that_is_left_out_stays_finite():
    logits = torch.zeros(7, 2)
    logits[5:, 0] = -math.inf
    logits.requires_grad_()
    sums = segment_sums(logits.log_softmax(-1)[:, 0], BRANCH, SEGMENT, **SIZE)
    sums.sum().backward()
    assert sums.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad[5:] == 0).all()
    assert (logits.grad[:5] != 0).all()


def test_half_precision_is_summed_in_float32():
    ones = torch.ones(3000, dtype=torch.bfloat16)
    zeros = torch.zeros(3000, dtype=torch.long)
    sums = segment_sums(ones, zeros, zeros, branches=1, segments=1)
    assert sums.dtype == torch.float32
    assert sums.item() == 3000


@pytest.mark.parametrize(("branch", "segment"), [(3, 0), (0, 2)])
def test_index_past_the_end_does_not_spill_into_another_branch(branch, segment):
    with pytest.raises(IndexError):
        segment_sums(torch.zeros(1), torch.tensor([branch]), torch.tensor([segment]), **SIZE)
    with pytest.raises(IndexError):
        segment_counts(torch.tensor([branch]), torch.tensor([segment]), **SIZE)


def test_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"logps \(2,\), branch \(1,\), segment \(1,\)"):
        segment_sums(torch.zeros(2), torch.zeros(1).long(), torch.zeros(1).long(), **SIZE)


class TestLengthDesensitised:
    # A pair of 2 and 5 tokens: the common length is 2.
    POSITION = torch.tensor([0, 1, 0, 1, 2, 3, 4])
    BRANCH = torch.tensor([0, 0, 1, 1, 1, 1, 1])

    def weights(self, alpha: float) -> torch.Tensor:
        return length_desensitised_weights(self.POSITION, torch.full((7,), 2), alpha=alpha)

    def sums(self, logps: torch.Tensor, alpha: float) -> torch.Tensor:
        whole = torch.zeros(7).long()
        return segment_sums(logps * self.weights(alpha), self.BRANCH, whole, branches=2, segments=1)[:, 0]

    def test_only_the_surplus_is_discounted(self):
        assert self.weights(0.25).tolist() == [1, 1, 1, 1, 0.25, 0.25, 0.25]

    def test_alpha_1_is_dpo_and_alpha_0_ignores_the_surplus(self):
        logps = -torch.arange(1.0, 8.0)
        assert self.sums(logps, 1.0).tolist() == [-3, -25]
        assert self.sums(logps, 0.0).tolist() == [-3, -7]

    @pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
    def test_policy_equal_to_reference_still_gives_ln_2(self, alpha):
        chosen, rejected = self.sums(-torch.arange(1.0, 8.0), alpha)
        loss = preference_loss(chosen[None], rejected[None], chosen[None], rejected[None])
        torch.testing.assert_close(loss, torch.tensor([math.log(2)]))

    @pytest.mark.parametrize("alpha", [-0.1, 1.1])
    def test_out_of_range_is_refused(self, alpha):
        with pytest.raises(ValueError, match=r"alpha is .* must be in \[0, 1\]"):
            self.weights(alpha)
