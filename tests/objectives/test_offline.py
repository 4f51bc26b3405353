"""Weighted imitation, advantage weights and expectiles: which special cases they contain, and what masking does."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_lightning.objectives import (
    advantage_weights,
    effective_sample_size,
    expectile_loss,
    rating_filter,
    weighted_nll,
)


def tokens(count: int = 12) -> torch.Tensor:
    return -5 * torch.rand(count, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


class TestWeightedNLL:
    def test_weights_of_1_are_cross_entropy(self):
        generator = torch.Generator().manual_seed(0)
        logits, targets = torch.randn(9, 5, generator=generator), torch.randint(5, (9,), generator=generator)
        logps = logits.log_softmax(-1)[torch.arange(9), targets]
        loss = weighted_nll(logps, torch.ones(9), denominator=9)
        torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, targets))

    def test_by_hand(self):
        logps, weights = torch.tensor([-1.0, -2.0, -4.0]), torch.tensor([1.0, 0.5, 0.0])
        assert weighted_nll(logps, weights, denominator=4).item() == pytest.approx(0.5)

    def test_masking_equals_taking_the_subset(self):
        logps, kept = tokens(), torch.arange(12) % 3 == 0
        masked = weighted_nll(logps, kept.double(), denominator=12)
        torch.testing.assert_close(masked, weighted_nll(logps[kept], torch.ones(4).double(), denominator=12))

    def test_micro_batches_and_order_change_nothing(self):
        logps, weights, count = tokens(), torch.linspace(0, 2, 12).double(), torch.tensor(12)
        whole = weighted_nll(logps, weights, denominator=count)
        parts = sum(weighted_nll(logps[cut], weights[cut], denominator=count) for cut in (slice(5), slice(5, 12)))
        torch.testing.assert_close(parts, whole)
        torch.testing.assert_close(weighted_nll(logps.flip(0), weights.flip(0), denominator=count), whole)

    def test_zero_weight_on_impossible_token_is_finite_and_gets_zero_gradient(self):
        logits = torch.tensor([[0.0, 1.0], [-math.inf, 1.0]], requires_grad=True)
        logps = logits.log_softmax(-1)[:, 0]
        assert logps[1] == -math.inf
        loss = weighted_nll(logps, torch.tensor([1.0, 0.0]), denominator=2)
        loss.backward()
        assert loss.isfinite()
        assert logits.grad is not None
        assert logits.grad[1].tolist() == [0, 0]
        assert logits.grad[0].abs().min() > 0

    def test_weights_get_no_gradient(self):
        logps, weights = torch.tensor([-1.0], requires_grad=True), torch.tensor([0.5], requires_grad=True)
        weighted_nll(logps, weights, denominator=1).backward()
        assert weights.grad is None
        torch.testing.assert_close(logps.grad, torch.tensor([-0.5]))

    def test_sums_half_precision_in_float32(self):
        ones = torch.ones(5000, dtype=torch.bfloat16)
        assert weighted_nll(-ones, ones, denominator=5000).item() == 1

    def test_batch_without_trained_tokens_gives_zero(self):
        logps = torch.zeros(0, requires_grad=True)
        loss = weighted_nll(logps, torch.zeros(0), denominator=3)
        loss.backward()
        assert loss.item() == 0

    def test_bad_arguments_are_refused(self):
        with pytest.raises(ValueError, match="denominator is 0; it must be a finite number above 0"):
            weighted_nll(torch.zeros(2), torch.zeros(2), denominator=0)
        with pytest.raises(ValueError, match=r"logps \(2,\), weights \(1,\)"):
            weighted_nll(torch.zeros(2), torch.zeros(1), denominator=2)


class TestAdvantageWeights:
    @given(
        advantage=st.floats(-50, 50),
        temperature=st.floats(0.05, 10),
        max_weight=st.floats(0.1, 1000),
    )
    @settings(max_examples=60, deadline=None)
    def test_agrees_with_formula_by_hand(self, advantage, temperature, max_weight):
        weight = advantage_weights(
            torch.tensor([advantage], dtype=torch.float64), temperature=temperature, max_weight=max_weight
        )
        exponent = advantage / temperature
        expected = max_weight if exponent > 700 else min(math.exp(exponent), max_weight)
        assert weight.item() == pytest.approx(expected)

    def test_infinite_temperature_is_supervised_fine_tuning(self):
        weights = advantage_weights(torch.tensor([-9.0, 0.0, 9.0]), temperature=math.inf, max_weight=20)
        assert weights.tolist() == [1, 1, 1]

    def test_high_temperature_tends_to_supervised_fine_tuning(self):
        logps, advantages = tokens(), torch.linspace(-3, 3, 12).double()
        supervised = weighted_nll(logps, torch.ones(12).double(), denominator=12)
        distances = []
        for temperature in (1, 10, 100, 1000):
            weights = advantage_weights(advantages, temperature=temperature, max_weight=20)
            distances.append((weighted_nll(logps, weights, denominator=12) - supervised).abs().item())
        assert distances == sorted(distances, reverse=True)
        assert distances[-1] < 1e-2

    @pytest.mark.parametrize("max_weight", [0.1, 1.0, 20.0, 33.3])
    def test_clipped_share_can_be_counted_exactly(self, max_weight):
        advantages = torch.tensor([1e30, 1e4, math.inf, math.log(max_weight) - 0.1, -1e30])
        weights = advantage_weights(advantages, temperature=1.0, max_weight=max_weight)
        assert (weights >= max_weight).tolist() == [True, True, True, False, False]
        assert weights.isfinite().all()
        assert weights[-1] == 0

    def test_keeps_shape_and_carries_no_gradient(self):
        advantages = torch.zeros(2, 3, requires_grad=True)
        weights = advantage_weights(advantages, temperature=0.5, max_weight=20)
        assert weights.shape == (2, 3)
        assert not weights.requires_grad

    @pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": math.nan}, {"max_weight": 0.0}])
    def test_out_of_range_is_refused(self, options):
        (name,) = options
        with pytest.raises(ValueError, match=f"^{name} is .* above 0"):
            advantage_weights(torch.zeros(1), **({"temperature": 0.5, "max_weight": 20.0} | options))


class TestExpectile:
    def test_a_half_is_half_the_squared_error(self):
        error = tokens() + 2.5
        torch.testing.assert_close(expectile_loss(error, tau=0.5), 0.5 * error.square())

    def test_by_hand(self):
        loss = expectile_loss(torch.tensor([2.0, -2.0, 0.0], dtype=torch.float64), tau=0.7)
        torch.testing.assert_close(loss, torch.tensor([2.8, 1.2, 0.0], dtype=torch.float64), rtol=1e-12, atol=0)

    @given(error=st.floats(-100, 100), tau=st.floats(0.01, 0.99))
    @settings(max_examples=30, deadline=None)
    def test_negating_the_error_mirrors_tau(self, error, tau):
        value = torch.tensor([error], dtype=torch.float64)
        torch.testing.assert_close(expectile_loss(-value, tau=tau), expectile_loss(value, tau=1 - tau))

    def test_minimiser_rises_from_mean_towards_maximum(self):
        targets = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
        grid = torch.linspace(0, 1, 1001, dtype=torch.float64)
        best = [
            grid[expectile_loss(targets - grid[:, None], tau=tau).mean(-1).argmin()].item() for tau in (0.5, 0.7, 0.99)
        ]
        # The tau-expectile v solves tau (1 - v) = 3 (1 - tau) v.
        assert best == pytest.approx([tau / (tau + 3 * (1 - tau)) for tau in (0.5, 0.7, 0.99)], abs=1e-3)

    @pytest.mark.parametrize("tau", [0.0, 1.0, -0.5, math.nan])
    def test_out_of_range_is_refused(self, tau):
        with pytest.raises(ValueError, match=r"^tau is .* above 0 and below 1"):
            expectile_loss(torch.zeros(1), tau=tau)


class TestRatingFilter:
    def test_keeps_the_threshold_itself_and_counts_unrated_as_0(self):
        ratings = torch.tensor([1.0, 3.99, 4.0, 10.0, math.nan])
        assert rating_filter(ratings, tau=4.0).tolist() == [False, False, True, True, False]
        assert rating_filter(ratings, tau=0.0).all()

    @pytest.mark.parametrize("tau", [-0.1, 10.5, math.nan])
    def test_out_of_range_is_refused(self, tau):
        with pytest.raises(ValueError, match=r"tau is .* in \[0, 10\]"):
            rating_filter(torch.zeros(1), tau=tau)


class TestEffectiveSampleSize:
    def test_equal_weights_count_all_and_a_single_one_counts_one(self):
        assert effective_sample_size(torch.full((7,), 0.3)).item() == pytest.approx(7)
        assert effective_sample_size(torch.tensor([0.0, 5.0, 0.0])).item() == pytest.approx(1)
        assert effective_sample_size(torch.tensor([1.0, 3.0])).item() == pytest.approx(16 / 10)

    def test_no_weight_at_all_counts_none(self):
        assert effective_sample_size(torch.zeros(4)).item() == 0
