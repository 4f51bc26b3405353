"""Implicit Q-learning: targets by hand, special cases, and where gradient flows."""

import pytest
import torch

from spatial_lightning.objectives import q_loss, q_targets, v_loss


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_targets_go_on_from_the_value_behind_and_end_with_the_reward():
    rewards, values = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 20.0, 30.0], requires_grad=True)
    following = torch.tensor([2, -1, 1])
    targets = q_targets(rewards, values, following, 0.5)
    assert targets.tolist() == [16.0, 2.0, 13.0]
    assert not targets.requires_grad
    discounts = torch.tensor([0.5, 0.5, 1.0])
    assert q_targets(rewards, values, following, discounts).tolist() == [16.0, 2.0, 23.0]


def test_an_expectile_of_a_half_is_half_the_squared_error_to_the_smaller_head():
    values, q = numbers(7), numbers(2, 7, seed=1)
    expected = 0.5 * (q.min(dim=0).values - values).square()
    torch.testing.assert_close(v_loss(values, q, tau=0.5), expected)


def test_v_agrees_with_the_formula():
    values, q = numbers(7), numbers(2, 7, seed=1)
    expected = []
    for v, a, b in zip(values.tolist(), *q.tolist(), strict=True):
        u = min(a, b) - v
        expected.append(abs(0.7 - (u < 0)) * u * u)
    torch.testing.assert_close(v_loss(values, q, tau=0.7), torch.tensor(expected, dtype=torch.float64))


def test_v_learns_from_q_and_q_from_its_targets_and_neither_the_other_way_round():
    values, q = numbers(3).requires_grad_(), numbers(2, 3, seed=1).requires_grad_()
    v_loss(values, q, tau=0.7).sum().backward()
    assert q.grad is None
    assert values.grad is not None
    targets = numbers(3, seed=2).requires_grad_()
    q_loss(q, targets).sum().backward()
    assert targets.grad is None
    torch.testing.assert_close(q.grad, 2 * (q - targets).detach())


def test_fitted_values_of_a_chain_are_its_returns():
    """Regression to the fixed point by hand: with eta = 1/2 and one action a state, V = Q = the sum of rewards to come."""
    rewards, following = torch.tensor([0.1, 0.2, 0.4]), torch.tensor([1, 2, -1])
    values = torch.zeros(3)
    for _ in range(3):
        values = q_targets(rewards, values, following, 1.0)
    torch.testing.assert_close(values, torch.tensor([0.7, 0.6, 0.4]))


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        q_targets(torch.zeros(2), torch.zeros(3), torch.zeros(3).long(), 1.0)
    with pytest.raises(ValueError, match="one shape"):
        q_loss(torch.zeros(2, 3), torch.zeros(2))
