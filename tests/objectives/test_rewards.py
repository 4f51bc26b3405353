"""SimPO, BCO and the implicit rewards: numbers by hand and how they relate to DPO."""

import math

import pytest
import torch

from spatial_lightning.objectives import bco_pair_loss, preference_loss, preference_metrics, simpo_loss

# Policy chosen and rejected, reference chosen and rejected: the margins of the log-ratios are 0, 10 and 20 nats.
ORACLE = torch.tensor([[-0.5, -10.0, -1.0], [-0.1, -30.0, -21.0], [-0.5, -10.1, -0.1], [-0.1, -20.1, -0.1]])


def random_inputs(pairs: int, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [-20 * torch.rand(pairs, generator=generator, dtype=torch.float64) for _ in range(4)]


class TestSimPO:
    def test_by_hand(self):
        chosen, rejected = torch.tensor([-4.0, -300.0]).double(), torch.tensor([-30.0, -2.0]).double()
        lengths = torch.tensor([2, 200]), torch.tensor([20, 4])
        loss = simpo_loss(chosen, rejected, *lengths, beta=2.0, gamma=0.5, label_smoothing=0.1)
        # token means -2, -1.5 and -1.5, -.5
        logits = [2 * (-2 + 1.5) - 0.5, 2 * (-1.5 + 0.5) - 0.5]
        expected = [0.9 * math.log1p(math.exp(-z)) + 0.1 * math.log1p(math.exp(z)) for z in logits]
        torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0)

    def test_without_margin_is_dpo_on_token_means_without_reference(self):
        chosen, rejected, _, _ = random_inputs(5, seed=4)
        tokens, zeros = torch.full((5,), 8), torch.zeros(5).double()
        loss = simpo_loss(chosen, rejected, tokens, tokens, beta=2.0, gamma=0.0)
        torch.testing.assert_close(loss, preference_loss(chosen / 8, rejected / 8, zeros, zeros, beta=2.0))

    def test_negative_margin_is_refused(self):
        one = torch.ones(1)
        with pytest.raises(ValueError, match=r"gamma is -1.*at least 0"):
            simpo_loss(one, one, one.long(), one.long(), beta=1.0, gamma=-1)


class TestBCO:
    def test_by_hand(self):
        inputs = random_inputs(3, seed=6)
        loss = bco_pair_loss(*inputs, beta=0.2, baseline=0.3)
        rows = zip(*(tensor.tolist() for tensor in inputs), strict=True)
        expected = [
            math.log1p(math.exp(-(0.2 * (a - c) - 0.3))) + math.log1p(math.exp(0.2 * (b - d) - 0.3))
            for a, b, c, d in rows
        ]
        torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0)

    def test_policy_equal_to_reference_gives_2_ln_2_and_baseline_gets_no_gradient(self):
        chosen = torch.zeros(2, requires_grad=True)
        baseline = torch.tensor(0.0, requires_grad=True)
        loss = bco_pair_loss(chosen, chosen, chosen.detach(), chosen.detach(), beta=0.1, baseline=baseline)
        loss.sum().backward()
        torch.testing.assert_close(loss, torch.full((2,), 2 * math.log(2)))
        assert baseline.grad is None


class TestMetrics:
    def test_by_hand(self):
        metrics = preference_metrics(*ORACLE, beta=0.1)
        torch.testing.assert_close(metrics["reward_chosen"], torch.tensor([0.0, 0.01, -0.09]), atol=1e-6, rtol=0)
        torch.testing.assert_close(metrics["reward_rejected"], torch.tensor([0.0, -0.99, -2.09]), atol=1e-6, rtol=0)
        torch.testing.assert_close(metrics["reward_margin"], torch.tensor([0.0, 1.0, 2.0]), atol=1e-6, rtol=0)
        assert metrics["reward_accuracy"].tolist() == [0, 1, 1]

    def test_swap_negates_the_margin(self):
        a, b, c, d = random_inputs(6, seed=9)
        forward, backward = preference_metrics(a, b, c, d, beta=0.3), preference_metrics(b, a, d, c, beta=0.3)
        torch.testing.assert_close(backward["reward_margin"], -forward["reward_margin"])
        torch.testing.assert_close(backward["reward_accuracy"], 1 - forward["reward_accuracy"])

    def test_margin_is_the_logit_of_the_loss(self):
        inputs = random_inputs(6, seed=9)
        margin = preference_metrics(*inputs, beta=0.3)["reward_margin"]
        torch.testing.assert_close(torch.nn.functional.softplus(-margin), preference_loss(*inputs, beta=0.3))

    def test_carries_no_gradient(self):
        inputs = [tensor.requires_grad_() for tensor in random_inputs(3, seed=1)]
        assert not any(value.requires_grad for value in preference_metrics(*inputs, beta=0.1).values())
