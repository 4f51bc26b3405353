"""KTO: published numbers, its value at the reference, and where gradient flows."""

import math

import pytest
import torch

from spatial_lightning.objectives import kto_loss


def test_worked_example():
    gain, reference = torch.tensor([1.0, -1.0, 1.0, -1.0]), torch.tensor([-3.0, -4.0, -5.0, -6.0])
    desirable = torch.tensor([True, True, False, False])
    loss = kto_loss(reference + gain, reference, desirable, 0.2, beta=0.1)
    expected = torch.tensor([0.480011, 0.529964, 0.519989, 0.470036])
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("beta", "kl"), [(0.1, 0.0), (2.0, 0.3), (0.5, 4.0)])
def test_agrees_with_formula_by_hand(beta, kl):
    generator = torch.Generator().manual_seed(0)
    policy, reference = (-20 * torch.rand(12, generator=generator).double() for _ in range(2))
    desirable = torch.rand(12, generator=generator) > 0.5
    loss = kto_loss(policy, reference, desirable, kl, beta=beta, desirable_weight=1.3, undesirable_weight=0.7)
    expected = []
    for p, r, good in zip(policy.tolist(), reference.tolist(), desirable.tolist(), strict=True):
        sign, weight = (1, 1.3) if good else (-1, 0.7)
        expected.append(weight * (1 - 1 / (1 + math.exp(-beta * sign * (p - r - kl)))))
    torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_policy_equal_to_reference_gives_a_half():
    logps, desirable = torch.tensor([-3.0, -40.0]), torch.tensor([True, False])
    torch.testing.assert_close(kto_loss(logps, logps, desirable, 0.0, beta=0.1), torch.tensor([0.5, 0.5]))


def test_negative_drift_counts_as_none():
    inputs = torch.tensor([-3.0, -4.0]), torch.tensor([-2.0, -6.0]), torch.tensor([True, False])
    torch.testing.assert_close(kto_loss(*inputs, -5.0, beta=0.1), kto_loss(*inputs, 0.0, beta=0.1))


def test_gradient_raises_the_desirable_lowers_the_other_and_skips_the_drift():
    policy = torch.tensor([-3.0, -4.0], requires_grad=True)
    kl = torch.tensor(0.2, requires_grad=True)
    kto_loss(policy, torch.tensor([-2.0, -6.0]), torch.tensor([True, False]), kl, beta=0.1).sum().backward()
    assert kl.grad is None
    assert policy.grad is not None
    assert policy.grad[0] < 0 < policy.grad[1]


@pytest.mark.parametrize("gain", [-1e6, 1e6])
def test_finite_at_extreme_gains(gain):
    policy = torch.tensor([gain, gain], requires_grad=True)
    loss = kto_loss(policy, torch.zeros(2), torch.tensor([True, False]), 0.0, beta=1.0)
    loss.sum().backward()
    assert policy.grad is not None
    assert policy.grad.isfinite().all()
    assert loss.tolist() == ([1, 0] if gain < 0 else [0, 1])


@pytest.mark.parametrize("name", ["beta", "desirable_weight", "undesirable_weight"])
def test_out_of_range_is_refused(name):
    one = torch.ones(1)
    with pytest.raises(ValueError, match=f"^{name} is -1.0; it must be a finite number above 0"):
        kto_loss(one, one, one.bool(), 0.0, **({"beta": 0.1} | {name: -1.0}))
