"""Preference losses against published numbers, an independent float64 formula, and the identities that define them."""

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_lightning.objectives import PREFERENCE_KINDS, preference_loss

# Inputs of torchtune's own loss tests: the margins of the log-ratios are 0, 10 and 20 nats.
POLICY_CHOSEN = [-0.5, -10.0, -1.0]
POLICY_REJECTED = [-0.1, -30.0, -21.0]
REFERENCE_CHOSEN = [-0.5, -10.1, -0.1]
REFERENCE_REJECTED = [-0.1, -20.1, -0.1]
ORACLE = {
    ("sigmoid", 0.0): [0.693147, 0.313262, 0.126928],
    ("sigmoid", 0.1): [0.693147, 0.413262, 0.326928],
    ("robust", 0.1): [0.693147, 0.188262, -0.123072],
    ("hinge", 0.0): [1.0, 0.0, 0.0],
    ("ipo", 0.0): [25.0, 25.0, 225.0],
    ("nca_pair", 0.0): [1.386294, 1.195220, 1.122047],
    ("sppo_hard", 0.0): [50.0, 48.02, 287.62],
    ("exo_pair", 0.1): [0.510826, 0.114082, 0.001942],
    ("apo_zero", 0.0): [1.0, 0.768412, 0.632557],
    ("apo_down", 0.0): [1.0, 0.771441, 0.596718],
    ("aot", 0.0): [0.693147, 0.126928, 0.313262],
}
SMOOTHED = {"sigmoid", "robust", "exo_pair", "aot"}
# The losses that see nothing but the margin between the two log-ratios.
MARGIN_ONLY = ("sigmoid", "robust", "hinge", "ipo", "exo_pair")


def smoothing_of(kind: str) -> float:
    return 0.1 if kind in ("robust", "exo_pair") else 0.0


def oracle_inputs() -> list[torch.Tensor]:
    return [torch.tensor(row) for row in (POLICY_CHOSEN, POLICY_REJECTED, REFERENCE_CHOSEN, REFERENCE_REJECTED)]


def random_inputs(pairs: int, seed: int, scale: float = 20.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [-scale * torch.rand(pairs, generator=generator, dtype=torch.float64) for _ in range(4)]


def by_hand(kind: str, rows: list[list[float]], beta: float, flipped: float) -> list[float]:
    """The losses written with probabilities on plain floats, in the form of the papers."""
    policy_chosen, policy_rejected, reference_chosen, reference_rejected = rows

    def prefer(score: float) -> float:
        return 1 / (1 + math.exp(-score))

    if kind == "aot":
        policy = sorted(a - b for a, b in zip(policy_chosen, policy_rejected, strict=True))
        reference = sorted(a - b for a, b in zip(reference_chosen, reference_rejected, strict=True))
        zeros = [0.0] * len(policy)
        return by_hand("sigmoid", [policy, zeros, reference, zeros], beta, flipped)
    losses = []
    for pc, pr, rc, rr in zip(policy_chosen, policy_rejected, reference_chosen, reference_rejected, strict=True):
        c, r = pc - rc, pr - rr
        p = prefer(beta * (c - r))
        match kind:
            case "sigmoid":
                loss = -(1 - flipped) * math.log(p) - flipped * math.log(1 - p)
            case "robust":
                loss = (-(1 - flipped) * math.log(p) + flipped * math.log(1 - p)) / (1 - 2 * flipped)
            case "hinge":
                loss = max(0.0, 1 - beta * (c - r))
            case "ipo":
                loss = (c - r - 1 / (2 * beta)) ** 2
            case "nca_pair":
                loss = -math.log(prefer(beta * c)) - 0.5 * (math.log(prefer(-beta * c)) + math.log(prefer(-beta * r)))
            case "sppo_hard":
                loss = (c - 0.5 / beta) ** 2 + (r + 0.5 / beta) ** 2
            case "exo_pair":
                loss = p * math.log(p / (1 - flipped)) + (1 - p) * math.log((1 - p) / flipped)
            case "apo_zero":
                loss = 1 - prefer(beta * c) + prefer(beta * r)
            case "apo_down":
                loss = prefer(beta * c) + 1 - p
            case _:
                raise AssertionError(f"no formula by hand for {kind}")
        losses.append(loss)
    return losses


@pytest.mark.parametrize(("kind", "smoothing"), ORACLE)
def test_oracle(kind, smoothing):
    loss = preference_loss(*oracle_inputs(), kind=kind, beta=0.1, label_smoothing=smoothing)
    torch.testing.assert_close(loss, torch.tensor(ORACLE[kind, smoothing]), atol=2e-5, rtol=2e-6)


def test_oracle_covers_every_kind():
    assert {kind for kind, _ in ORACLE} == set(PREFERENCE_KINDS)


def test_every_kind_has_a_value_of_its_own():
    inputs = [tensor[1:2] for tensor in oracle_inputs()]
    inputs = [*inputs[:3], inputs[3] + 3]
    pair = [torch.cat([tensor, tensor + shift]) for tensor, shift in zip(inputs, (0, 4, 0, -1), strict=True)]
    values = {
        kind: round(preference_loss(*pair, kind=kind, label_smoothing=smoothing_of(kind))[0].item(), 6)
        for kind in PREFERENCE_KINDS
    }
    assert len(set(values.values())) == len(PREFERENCE_KINDS), values


@pytest.mark.parametrize("kind", PREFERENCE_KINDS)
@pytest.mark.parametrize("beta", [0.05, 0.5])
def test_agrees_with_formula_by_hand(kind, beta):
    inputs = random_inputs(17, seed=3)
    flipped = 0.2 if kind in SMOOTHED else 0.0
    expected = by_hand(kind, [tensor.tolist() for tensor in inputs], beta, flipped)
    loss = preference_loss(*inputs, kind=kind, beta=beta, label_smoothing=flipped)
    torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float64), atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize("kind", PREFERENCE_KINDS)
def test_gradient_agrees_with_finite_differences(kind):
    inputs = [tensor.requires_grad_() for tensor in random_inputs(4, seed=8, scale=5.0)]

    def total(*tensors):
        return preference_loss(*tensors, kind=kind, beta=0.3, label_smoothing=smoothing_of(kind))

    assert torch.autograd.gradcheck(total, inputs)


def test_policy_equal_to_reference_gives_ln_2():
    chosen, rejected, _, _ = random_inputs(5, seed=1)
    for smoothing in (0.0, 0.1, 0.4):
        loss = preference_loss(chosen, rejected, chosen, rejected, label_smoothing=smoothing)
        torch.testing.assert_close(loss, torch.full_like(loss, math.log(2)))


@given(margin=st.floats(-200, 200), beta=st.floats(0.01, 2))
@settings(max_examples=50, deadline=None)
def test_swapping_a_pair_negates_the_logit(margin, beta):
    inputs = [torch.tensor([value], dtype=torch.float64) for value in (margin - 3.0, -2.0, -3.0, -2.0)]
    swapped = [inputs[1], inputs[0], inputs[3], inputs[2]]
    forward, backward = preference_loss(*inputs, beta=beta), preference_loss(*swapped, beta=beta)
    # -log sigmoid(z) + log sigmoid(-z) = -z
    torch.testing.assert_close(backward - forward, torch.tensor([beta * margin], dtype=torch.float64))


@pytest.mark.parametrize("kind", [kind for kind in PREFERENCE_KINDS if kind != "aot"])
def test_order_of_pairs_changes_nothing(kind):
    inputs = random_inputs(9, seed=5)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    loss = preference_loss(*inputs, kind=kind, label_smoothing=smoothing_of(kind))
    shuffled = preference_loss(*(t[order] for t in inputs), kind=kind, label_smoothing=smoothing_of(kind))
    torch.testing.assert_close(shuffled, loss[order])


def test_aot_does_not_depend_on_which_margin_belongs_to_which_pair():
    inputs = random_inputs(9, seed=5)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    permuted = [*inputs[:2], inputs[2][order], inputs[3][order]]
    torch.testing.assert_close(preference_loss(*permuted, kind="aot"), preference_loss(*inputs, kind="aot"))
    assert not torch.allclose(preference_loss(*permuted), preference_loss(*inputs))


@pytest.mark.parametrize("kind", MARGIN_ONLY)
def test_shifting_both_log_ratios_changes_nothing(kind):
    inputs = random_inputs(6, seed=2)
    shifted = [inputs[0] + 7, inputs[1] + 7, *inputs[2:]]
    options = {"kind": kind, "label_smoothing": smoothing_of(kind)}
    torch.testing.assert_close(preference_loss(*shifted, **options), preference_loss(*inputs, **options))


@pytest.mark.parametrize("kind", ["nca_pair", "sppo_hard", "apo_zero", "apo_down"])
def test_anchored_losses_do_see_a_shift_of_both_log_ratios(kind):
    inputs = random_inputs(6, seed=2)
    shifted = [inputs[0] + 7, inputs[1] + 7, *inputs[2:]]
    assert not torch.allclose(preference_loss(*shifted, kind=kind), preference_loss(*inputs, kind=kind))


@pytest.mark.parametrize("kind", PREFERENCE_KINDS)
@pytest.mark.parametrize("gap", [-3e4, 3e4])
def test_loss_and_gradient_stay_finite_at_extreme_margins(kind, gap):
    chosen = torch.tensor([gap], requires_grad=True)
    rejected = torch.tensor([-gap], requires_grad=True)
    zero = torch.zeros(1)
    loss = preference_loss(chosen, rejected, zero, zero, kind=kind, beta=1.0, label_smoothing=smoothing_of(kind))
    loss.sum().backward()
    for value in (loss, chosen.grad, rejected.grad):
        assert value is not None
        assert value.isfinite().all()


def test_badly_wrong_pair_keeps_its_whole_gradient():
    chosen = torch.tensor([-1e5], requires_grad=True)
    zero = torch.zeros(1)
    preference_loss(chosen, zero, zero, zero, beta=0.1).sum().backward()
    torch.testing.assert_close(chosen.grad, torch.tensor([-0.1]))


def test_half_precision_is_subtracted_in_float32():
    # The log-ratios are 999 and 997; bfloat16, in steps of 4 there, would make them 1000 and 996.
    inputs = [torch.tensor([value], dtype=torch.bfloat16) for value in (-1.0, -3.0, -1000.0, -1000.0)]
    loss = preference_loss(*inputs, beta=0.5)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, torch.tensor([math.log1p(math.exp(-1.0))]))


class TestLengthRobustIPO:
    @staticmethod
    def long_and_short(length: int, **options):
        """A pair whose tokens each carry the same log-ratios, whatever their number."""
        per_token = torch.tensor([-0.2, -0.9, -0.5, -0.6], dtype=torch.float64)
        tokens = torch.tensor([length])
        counts = {"chosen_tokens": tokens, "rejected_tokens": tokens} if options.pop("counted") else {}
        return preference_loss(*(value[None] * length for value in per_token), kind="ipo", beta=0.1, **counts)

    def test_token_means_do_not_depend_on_length(self):
        short, long = self.long_and_short(2, counted=True), self.long_and_short(200, counted=True)
        # The log-ratios per token are .3 and -.3: (.6 - 5)^2.
        torch.testing.assert_close(short, torch.tensor([19.36], dtype=torch.float64))
        torch.testing.assert_close(long, short)

    def test_sums_do(self):
        # (1.2 - 5)^2 and (120 - 5)^2.
        torch.testing.assert_close(self.long_and_short(2, counted=False), torch.tensor([14.44], dtype=torch.float64))
        torch.testing.assert_close(self.long_and_short(200, counted=False), torch.tensor([13225.0]).double())

    def test_each_response_is_divided_by_its_own_length(self):
        inputs = [torch.tensor([value]) for value in (4.0, -100.0, 0.0, 0.0)]
        tokens = {"chosen_tokens": torch.tensor([2]), "rejected_tokens": torch.tensor([200])}
        loss = preference_loss(*inputs, kind="ipo", beta=0.1, **tokens)
        torch.testing.assert_close(loss, torch.tensor([(2.0 + 0.5 - 5) ** 2]))

    def test_single_token_responses_make_both_forms_equal(self):
        inputs, ones = random_inputs(4, seed=0), torch.ones(4, dtype=torch.long)
        means = preference_loss(*inputs, kind="ipo", chosen_tokens=ones, rejected_tokens=ones)
        torch.testing.assert_close(means, preference_loss(*inputs, kind="ipo"))

    @pytest.mark.parametrize("kind", [kind for kind in PREFERENCE_KINDS if kind != "ipo"])
    def test_other_losses_ignore_token_counts(self, kind):
        inputs, tokens = random_inputs(4, seed=0), torch.tensor([2, 200, 7, 1])
        options = {"kind": kind, "label_smoothing": smoothing_of(kind)}
        counted = preference_loss(*inputs, **options, chosen_tokens=tokens, rejected_tokens=tokens)
        torch.testing.assert_close(counted, preference_loss(*inputs, **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "sigmoyd"}, "unknown preference loss 'sigmoyd'; did you mean 'sigmoid'? allowed: sigmoid, robust,"),
        ({"kind": "?"}, "unknown preference loss '?'; allowed: sigmoid, robust, hinge, ipo,"),
        ({"beta": 0.0}, "beta is 0.0; it must be a finite number above 0"),
        ({"beta": -0.1}, "beta is -0.1"),
        ({"beta": math.nan}, "beta is nan"),
        ({"label_smoothing": 0.5}, "label_smoothing is 0.5; it is the chance that a preference label is flipped"),
        ({"label_smoothing": -0.1}, "must be at least 0 and below 0.5"),
        ({"kind": "hinge", "label_smoothing": 0.1}, "'hinge' has no place for it; set it to 0 or choose from sigmoid"),
        ({"kind": "exo_pair"}, "'exo_pair' needs it above 0 and below 0.5 (it takes the logarithm of it)"),
        ({"kind": "robust"}, "'robust' needs it above 0 and below 0.5 (without it the loss is 'sigmoid')"),
        ({"chosen_tokens": torch.ones(3).long()}, "token counts are given for one side only"),
        (
            {"chosen_tokens": torch.ones(2).long(), "rejected_tokens": torch.ones(2).long()},
            "inputs must have one shape, got policy_chosen (3,)",
        ),
    ],
)
def test_bad_arguments_are_refused_in_words(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        preference_loss(*oracle_inputs(), **options)


def test_column_against_row_is_not_broadcast():
    chosen, rejected, reference_chosen, reference_rejected = oracle_inputs()
    with pytest.raises(ValueError, match=r"policy_rejected \(3, 1\)"):
        preference_loss(chosen, rejected[:, None], reference_chosen, reference_rejected)
