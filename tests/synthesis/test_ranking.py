"""The best of several responses against the worst."""

from __future__ import annotations

from pathlib import Path

from samples import question

from spatial_lightning.records import Response, Segment
from spatial_lightning.synthesis.ranking import best_against_worst, total

IMAGES = (Path("a.png"),)


def _response(text: str, description: float, reasoning: float) -> Response:
    cut = len(text) // 2
    return Response(
        text,
        (
            Segment("description", 0, cut, {"vc": description, "sp": 0.0}),
            Segment("reasoning", cut, len(text), {"lc": reasoning, "sp": 0.0}),
        ),
    )


def test_the_sum_of_all_rewards_decides() -> None:
    """The best description and the best reasoning are of other responses than the best sum."""
    responses = [_response("seen well", 4, 0), _response("thought well", 0, 4), _response("both", 3, 3)]
    responses.append(_response("neither", 1, 1))
    pair = best_against_worst("p", IMAGES, question(), responses)
    assert pair is not None
    assert (pair.chosen.text, pair.rejected.text) == ("both", "neither")
    assert pair.reward_gap == (2, 2)


def test_equally_good_responses_give_no_pair() -> None:
    assert best_against_worst("p", IMAGES, question(), [_response("one", 1, 2), _response("two", 2, 1)]) is None
    assert best_against_worst("p", IMAGES, question(), [_response("same", 1, 2), _response("same", 1, 2)]) is None
    assert best_against_worst("p", IMAGES, question(), [_response("alone", 1, 2)]) is None
    assert best_against_worst("p", IMAGES, question(), []) is None


def test_a_response_without_a_description_counts_with_its_reasoning() -> None:
    """So does one that nothing was understood of; the pair then has no gap by segment."""
    bare = Response("no idea", (Segment("reasoning", 0, 7, {"lc": 0.5, "sp": 0.0}),))
    assert total(bare) == 0.5
    pair = best_against_worst("p", IMAGES, question(), [bare, _response("better", 1, 0)])
    assert pair is not None
    assert pair.rejected is bare
    assert pair.reward_gap is None
