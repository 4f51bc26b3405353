"""fDPO: published segment weights, its reduction to DPO, and what carries a gradient."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_lightning.objectives import fdpo_loss, preference_loss, preference_metrics, segment_betas

PAPER = {"beta": 0.1, "alpha": 0.3, "lam": 0.6}
gaps = st.floats(-8, 8)


def margins_as_logps(margin: list[list[float]]) -> list[torch.Tensor]:
    """Policy and reference log-probabilities whose segment margins are as given."""
    margin_tensor = torch.tensor(margin, dtype=torch.float64)
    reference = -7 - torch.arange(margin_tensor.numel(), dtype=torch.float64).reshape(margin_tensor.shape)
    return [reference + 0.25 * margin_tensor, reference - 1 - 0.75 * margin_tensor, reference, reference - 1]


def random_inputs(pairs: int = 6, segments: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(11)
    logps = [-30 * torch.rand(pairs, segments, generator=generator).double() for _ in range(4)]
    return [*logps, 4 * torch.randn(pairs, segments, generator=generator).double()]


class TestBetas:
    def test_worked_example(self):
        betas = segment_betas(torch.tensor([[0.5, 2.0], [0.0, 1.0]]), **PAPER)
        expected = torch.tensor([[0.087343, 0.112657], [0.091261, 0.108739]])
        torch.testing.assert_close(betas, expected, atol=1e-6, rtol=0)

    @given(description=gaps, reasoning=gaps, alpha=st.floats(0, 1), lam=st.floats(0.01, 100), beta=st.floats(0.01, 2))
    @settings(max_examples=60, deadline=None)
    def test_two_segments_follow_the_tanh_form_and_share_two_betas(self, description, reasoning, alpha, lam, beta):
        gap = torch.tensor([[description, reasoning]], dtype=torch.float64)
        betas = segment_betas(gap, beta=beta, alpha=alpha, lam=lam)
        tilt = alpha * math.tanh(lam * (description - reasoning) / 2)
        expected = torch.tensor([[beta * (1 + tilt), beta * (1 - tilt)]], dtype=torch.float64)
        torch.testing.assert_close(betas, expected, rtol=1e-9, atol=1e-12)
        assert betas.sum().item() == pytest.approx(2 * beta)

    @pytest.mark.parametrize("segments", [1, 2, 3, 5])
    def test_any_number_of_segments_keeps_the_mean(self, segments):
        gap = random_inputs(segments=segments)[-1]
        betas = segment_betas(gap, **PAPER)
        torch.testing.assert_close(betas.mean(dim=-1), torch.full((6,), 0.1).double())
        assert (betas >= 0.07 - 1e-12).all()
        assert (betas <= 0.1 * (1 + 0.3 * (segments - 1)) + 1e-12).all()
        assert (betas.argsort(dim=-1) == gap.argsort(dim=-1)).all()

    @pytest.mark.parametrize("missing", [[math.nan, math.nan], [math.nan, 3.0], [3.0, math.nan]])
    def test_missing_score_makes_the_segments_of_that_pair_weigh_the_same(self, missing):
        betas = segment_betas(torch.tensor([missing, [0.5, 2.0]]), **PAPER)
        torch.testing.assert_close(betas[0], torch.full((2,), 0.1))
        torch.testing.assert_close(betas[1], segment_betas(torch.tensor([[0.5, 2.0]]), **PAPER)[0])

    def test_extreme_gaps_do_not_overflow(self):
        betas = segment_betas(torch.tensor([[8.0, -8.0]]), beta=0.1, alpha=0.3, lam=1e6)
        torch.testing.assert_close(betas, torch.tensor([[0.13, 0.07]]))

    def test_carry_no_gradient(self):
        gap = torch.tensor([[0.5, 2.0]], requires_grad=True)
        assert not segment_betas(gap, **PAPER).requires_grad

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"beta": 0.0}, r"beta is 0.0; it must be a finite number above 0"),
            ({"alpha": 1.5}, r"alpha is 1.5; it must be in \[0, 1\]"),
            ({"alpha": -0.1}, r"alpha is -0.1"),
            ({"lam": -1.0}, r"lam is -1.0; it must be a finite number, at least 0"),
            ({"lam": math.inf}, r"lam is inf"),
        ],
    )
    def test_out_of_range_is_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            segment_betas(torch.zeros(1, 2), **(PAPER | options))

    def test_shape_is_checked(self):
        with pytest.raises(ValueError, match=r"reward_gap has shape \(2,\); it must be \(pairs, segments\)"):
            segment_betas(torch.zeros(2), **PAPER)


class TestLoss:
    def test_worked_example_differs_from_dpo(self):
        gap = torch.tensor([[0.5, 2.0]]).double()
        inputs = margins_as_logps([[2.0, 5.0]])
        assert fdpo_loss(*inputs, gap, **PAPER).item() == pytest.approx(0.390746, abs=1e-6)
        assert preference_loss(*(t.sum(-1) for t in inputs)).item() == pytest.approx(0.403186, abs=1e-6)

    def test_hard_negative(self):
        """Both responses share their description, so that only the reasoning counts, and more than in DPO."""
        inputs, gap = margins_as_logps([[0.0, 3.0]]), torch.tensor([[0.0, 1.0]]).double()
        assert fdpo_loss(*inputs, gap, **PAPER).item() == pytest.approx(0.543282, abs=1e-6)

    @pytest.mark.parametrize("segments", [1, 2, 4])
    def test_alpha_0_and_equal_gaps_and_missing_gaps_are_dpo(self, segments):
        *inputs, gap = random_inputs(segments=segments)
        dpo = preference_loss(*(tensor.sum(-1) for tensor in inputs), beta=0.1, label_smoothing=0.1)
        equal, missing = torch.full_like(gap, 1.7), torch.full_like(gap, math.nan)
        for gap_, alpha in ((gap, 0.0), (equal, 0.3), (missing, 0.3)):
            loss = fdpo_loss(*inputs, gap_, beta=0.1, alpha=alpha, lam=0.6, label_smoothing=0.1)
            torch.testing.assert_close(loss, dpo)

    def test_policy_equal_to_reference_gives_ln_2(self):
        chosen, rejected, _, _, gap = random_inputs()
        loss = fdpo_loss(chosen, rejected, chosen, rejected, gap, **PAPER, label_smoothing=0.2)
        torch.testing.assert_close(loss, torch.full_like(loss, math.log(2)))

    def test_swapping_a_pair_negates_the_margin(self):
        pc, pr, rc, rr, gap = random_inputs()
        betas = segment_betas(gap, **PAPER)
        margin = preference_metrics(pc, pr, rc, rr, beta=betas)["reward_margin"]
        forward, backward = fdpo_loss(pc, pr, rc, rr, gap, **PAPER), fdpo_loss(pr, pc, rr, rc, gap, **PAPER)
        torch.testing.assert_close(backward - forward, margin)

    def test_gradient_of_a_segment_is_proportional_to_its_beta_and_none_reaches_the_judge(self):
        pc, pr, rc, rr, gap = (tensor.requires_grad_() for tensor in random_inputs())
        fdpo_loss(pc, pr, rc, rr, gap, **PAPER).sum().backward()
        assert gap.grad is None
        assert pc.grad is not None
        assert pr.grad is not None
        betas = segment_betas(gap, **PAPER)
        torch.testing.assert_close(pc.grad[:, 0] / pc.grad[:, 1], betas[:, 0] / betas[:, 1])
        torch.testing.assert_close(pr.grad, -pc.grad)

    @pytest.mark.parametrize("margin", [-1e6, 1e6])
    def test_margin_is_not_clipped(self, margin):
        chosen, zero = torch.tensor([[margin, 0.0]], requires_grad=True), torch.zeros(1, 2)
        loss = fdpo_loss(chosen, zero, zero, zero, torch.tensor([[1.0, 1.0]]), **PAPER)
        loss.sum().backward()
        assert loss.isfinite().all()
        expected = torch.tensor([[-0.1, -0.1]]) if margin < 0 else torch.zeros(1, 2)
        torch.testing.assert_close(chosen.grad, expected)

    def test_bad_arguments_are_refused(self):
        *inputs, gap = random_inputs()
        with pytest.raises(ValueError, match=r"reward_gap \(6, 1\)"):
            fdpo_loss(*inputs, gap[:, :1], **PAPER)
        with pytest.raises(ValueError, match=r"label_smoothing is 0.5"):
            fdpo_loss(*inputs, gap, **PAPER, label_smoothing=0.5)
