"""Answers that deny one thing and affirm another: what is affirmed counts, for options, lengths and relations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_lightning.evaluation.contrasts import asserted, without_denied
from spatial_lightning.evaluation.parsing import extract_choice, parse_quantity
from spatial_lightning.evaluation.relations import read_relation

SIDES, DEPTHS = ("left", "right"), ("behind", "in front of")
THINGS = ("red cube", "blue ball", "large red cube", "green cone")


@pytest.mark.parametrize(
    ("answer", "options", "expected"),
    [
        ("not left, it is right", SIDES, 1),
        ("Not left, right.", SIDES, 1),
        ("It is not left but right", SIDES, 1),
        ("Left is wrong, so right", SIDES, 1),
        ("A is wrong, so B", SIDES, 1),
        ("(A) is wrong, so (B)", SIDES, 1),
        ("(A) left is wrong, so (B)", SIDES, 1),
        ("A is wrong, so it is B.", SIDES, 1),
        ("Option A is incorrect. Option B is correct.", SIDES, 1),
        ("It isn't behind but in front of", DEPTHS, 1),
        ("the answer is not (A); it is (B)", SIDES, 1),
        ("The answer isn't A, it's B.", SIDES, 1),
        ("The answer is not A but B", SIDES, 1),
        ("The final answer is not (A) but (B).", SIDES, 1),
        ("not (A), (B)", SIDES, 1),
        ("Neither (A) nor (B); it is (C)", THINGS, 2),
        ("Not the red cube, not the blue ball, but the green cone", THINGS, 3),
        ("The red cube is not the closest; the blue ball is.", THINGS, 1),
        ("Rather than left, it is right.", SIDES, 1),
        ("Instead of the red cube, the blue ball is closer", THINGS, 1),
        ("It is not clear, but left seems likely", SIDES, 0),
        ("It cannot be left, so it must be right.", SIDES, 1),
        ("It's not the left one—it's the right one.", SIDES, 1),
        ("It is not false, it is true.", ("true", "false"), 0),
        ("not three, it is four", ("3", "4"), 1),
        ("A is not closer; B is closer", ("A", "B"), 1),
        ("Option A is wrong. Option B is wrong. Option C is wrong. Option D fits.", THINGS, 3),
    ],
)
def test_the_affirmed_option_counts(answer, options, expected):
    assert extract_choice(answer, options) == expected


@pytest.mark.parametrize(
    ("answer", "options"),
    [
        ("It's not A or B.", SIDES),
        ("Neither A nor B", THINGS),
        ("The cup isn't on the left.", SIDES),
        ("The answer is not (A).", SIDES),
        ("It is not only left but also right", SIDES),
        ("So a cup is there", SIDES),
    ],
)
def test_a_denial_alone_affirms_nothing(answer, options):
    assert extract_choice(answer, options) is None


@pytest.mark.parametrize(
    "answer", ["right, not left", "It's the right rather than the left", "It is to the right, so not left.", "B, not A"]
)
def test_what_is_affirmed_first_stays(answer):
    assert extract_choice(answer, SIDES) == 1


words = st.text(alphabet="bcdefghjklmnpqrstuvwxyz", min_size=4, max_size=8)


@given(st.lists(words, min_size=2, max_size=5, unique=True), st.data())
def test_every_contrast_picks_what_it_affirms(options, data):
    wrong, right = data.draw(st.permutations(range(len(options))))[:2]
    no, yes, letter_no, letter_yes = options[wrong], options[right], "ABCDE"[wrong], "ABCDE"[right]
    for answer in (
        f"It is not the {no} but the {yes}.",
        f"The {no} is wrong, so the {yes}.",
        f"The answer is not ({letter_no}); it is ({letter_yes}).",
        f"({letter_no}) {no} is incorrect, so ({letter_yes})",
    ):
        assert extract_choice(answer, options) == right


@pytest.mark.parametrize(
    ("text", "metres"),
    [
        ("not 3 m but 2 m", 2),
        ("It isn't 3 feet, it's 2 meters.", 2),
        ("3 m is wrong, so 2 m", 2),
        ("Rather than 3 m, 2 m", 2),
        ("2 m, not 3 m", 2),
        ("It is not more than 2 m.", 2),
        ("Therefore it is not 3 m; it is 2 m", 2),
    ],
)
def test_a_denied_length_does_not_count_beside_another(text, metres):
    quantity = parse_quantity(text)
    assert quantity is not None
    assert quantity.value == metres


@pytest.mark.parametrize(
    ("text", "end", "region"),
    [
        ("Region [0] is not taller but shorter than Region [1].", "tall", "1"),
        ("Region [0] isn't behind but in front of Region [1]", "front", "0"),
        ("Region [0] isn't behind but in front of Region [1]", "behind", "1"),
    ],
)
def test_a_relation_that_corrects_another_counts(text, end, region):
    assert read_relation(text, end, ("0", "1")) == region


@given(st.lists(st.sampled_from(["not", "but", "left", ",", ";", "than", "so", "it", "rather", " "]), max_size=80))
def test_asserted_parts_are_in_order_and_apart(pieces):
    sentence = " ".join(pieces)
    ends = [at for span in asserted(sentence) for at in span]
    assert ends == sorted(ends)
    assert ends[-1] <= len(sentence)
    assert len(without_denied(sentence)) <= len(sentence)
