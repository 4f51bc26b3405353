"""Rewards, returns and rivals: the published mapping, a loop by hand, and what missing ratings and other traces do."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spatial_lightning.objectives import rating_rewards, rival_returns, step_returns


def test_rating_to_reward():
    ratings = torch.tensor([1.0, 4.0, 5.0, 10.0])
    torch.testing.assert_close(rating_rewards(ratings), torch.tensor([0, 1 / 3, 4 / 9, 1]))
    torch.testing.assert_close(rating_rewards(ratings, scale="tenths"), ratings / 10)
    assert rating_rewards(torch.tensor([math.nan])).isnan().all()


def by_hand(rewards, correct, bonus, gamma, normalise):
    """G_t of one trace, from its definition."""
    length = len(rewards)
    values = []
    for t in range(length):
        known = [(gamma ** (u - t), rewards[u]) for u in range(t, length) if not math.isnan(rewards[u])]
        total, weight = sum(g * r for g, r in known), sum(g for g, _ in known)
        mean = total / weight if weight else 0.0
        values.append((mean if normalise == "mean" else total) + gamma ** (length - 1 - t) * bonus * correct)
    return values


@given(
    traces=st.lists(
        st.tuples(st.lists(st.floats(0, 1) | st.just(math.nan), min_size=1, max_size=6), st.booleans()),
        min_size=1,
        max_size=4,
    ),
    gamma=st.floats(0.1, 1.0),
    normalise=st.sampled_from(["mean", "sum"]),
)
def test_returns_agree_with_the_definition_for_any_traces_in_one_tensor(traces, gamma, normalise):
    rewards = torch.tensor([r for own, _ in traces for r in own], dtype=torch.float64)
    following, bonus, expected = [], [], []
    for own, correct in traces:
        start = len(following)
        following += [start + t + 1 if t + 1 < len(own) else -1 for t in range(len(own))]
        bonus += [0.0] * (len(own) - 1) + [0.7 * correct]
        expected += by_hand(own, correct, 0.7, gamma, normalise)
    found = step_returns(
        rewards, torch.tensor(bonus).double(), torch.tensor(following), gamma=gamma, normalise=normalise
    )
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-7)


def test_steps_may_lie_apart_and_attempts_between_them():
    rewards, following = torch.tensor([0.2, 9.0, 0.4, 9.0, 0.6]), torch.tensor([2, -1, 4, -1, -1])
    returns = step_returns(rewards, torch.zeros(5), following, gamma=1.0, normalise="sum")
    torch.testing.assert_close(returns[[0, 2, 4]], torch.tensor([1.2, 1.0, 0.6]))


def test_the_mean_does_not_favour_long_traces():
    for length in (1, 5):
        following = torch.tensor([*range(1, length), -1])
        own = torch.full((length,), 0.5)
        returns = step_returns(own, torch.zeros(length), following, gamma=0.9, normalise="mean")
        torch.testing.assert_close(returns, own)


def test_rivals_leave_the_trace_itself_out_and_go_on_with_their_last_return():
    # Question 0: traces of 3, 1 and 2 steps; question 1: a single trace.
    returns = torch.tensor([1.0, 2.0, 3.0, 10.0, 4.0, 6.0, 7.0])
    step, trajectory = torch.tensor([0, 1, 2, 0, 0, 1, 0]), torch.tensor([0, 0, 0, 1, 2, 2, 3])
    rivals = rival_returns(returns, step, trajectory, (trajectory == 3).long())
    torch.testing.assert_close(rivals, torch.tensor([7.0, 8.0, 8.0, 2.5, 5.5, 6.0, math.nan]), equal_nan=True)
    changed = returns.clone()
    changed[:3] += 100
    torch.testing.assert_close(rival_returns(changed, step, trajectory, (trajectory == 3).long())[:3], rivals[:3])


def test_no_step_has_no_rival():
    empty = torch.zeros(0).long()
    assert rival_returns(torch.zeros(0), empty, empty, empty).numel() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 0.0}, "gamma is 0.0; a discount must be above 0 and at most 1"),
        ({"gamma": 1.1}, "gamma is 1.1"),
        ({"normalise": "max"}, "normalise is 'max'; allowed: mean, sum"),
    ],
)
def test_out_of_range_is_refused(options, message):
    one = torch.ones(1)
    with pytest.raises(ValueError, match=message):
        step_returns(one, one, torch.tensor([-1]), **{"gamma": 1.0, "normalise": "mean", **options})
    with pytest.raises(ValueError, match="reward is 'fifths'; allowed: ninths"):
        rating_rewards(one, scale="fifths")
