"""Forms in which models state the option they pick, by example: wrappings, statements, corrections and option texts."""

from __future__ import annotations

import time

import pytest

from spatial_lightning.evaluation.parsing import extract_choice

SIDES, FOUR, YES_NO, TRUTH = (
    ("left", "right"),
    ("left", "right", "in front of", "behind"),
    ("yes", "no"),
    ("true", "false"),
)
CORNERS = ("front-left", "front-right", "left", "right")
THINGS = ("red cube", "blue ball", "large red cube", "green cone")
MUGS = ("A mug to the left of a table", "A mug to the right of a table", "A mug on a table", "A mug under a table")
LENGTHS = ("1.5 m", "2.5 m", "15 m")
CUPS = ("Yes, the cup is left", "No, the cup is right")


@pytest.mark.parametrize("options", [SIDES, THINGS])
@pytest.mark.parametrize(
    "answer",
    ["Answer: (A) or (B)", "Answer: (A) and (B)", "A, B", "A,B", "A or B", '["A", "B"]', "Neither A nor B is correct"],
)
def test_two_letters_decide_nothing(answer, options):
    assert extract_choice(answer, options) is None


@pytest.mark.parametrize(
    "answer",
    ["B</s>", "B<|im_end|>", "<|begin_of_box|>B<|end_of_box|>", "<b>B</b>", "[ANSWER]B[/ANSWER]", "[B]", "{B}", "【B】",
     '["B"]', '{"answer": "B"}', '```json\n{"answer": "B"}\n```', "{'answer': 'B'}", "### Answer\nB",
     "### Final Answer\n\n**B**", r"\[ \boxed{B} \]", r"\(\boxed{B}\)", r"\fbox{B}", r"\boxed{\text{B}}", "B?", "- B",
     "1. B", "→ B", "✅ B", "Assistant: B", '{"reasoning": "A red cube? No.", "answer": "B"}',
     "B is correct", "B is the correct answer", "B is the answer", "B would be correct.", "I think B", "I'd say B",
     "I'd guess B", "It must be B", "It should be B", "The letter is B", "Answer B", "answer - B", "final answer B",
     "Final Answer - B", "Final: B", "Selected: B", "Correct: B", "B it is", "B (not A)", "答案是B", "答案：B", "选B",
     "La respuesta es B", "Die Antwort ist B.", "Ответ: B", "Caption B", "A... wait, actually B."],
)  # fmt: skip
def test_wrappings_and_statements_of_a_letter(answer):
    assert extract_choice(answer, THINGS) == 1


@pytest.mark.parametrize(
    ("answer", "options", "expected"),
    [
        ("B because the cat is left of the dog, which is to its right", FOUR, 1),
        ('{"reasoning": "It is left of the plate? No, it is right.", "answer": "B"}', SIDES, 1),
        ("Left? No, right.", SIDES, 1),
        ("Left. Correction: right.", SIDES, 1),
        ("A... wait, actually C.", FOUR, 2),
        ("front left", CORNERS, 0),
        ("It is to the front right.", CORNERS, 1),
        ("in-front-of", FOUR, 2),
        ("B is left of A.", SIDES, 0),
        ("The answer is (A) left. (B) right is wrong.", SIDES, 0),
        ("The correct option is (A) left, (B) right does not fit.", SIDES, 0),
        ("(A) left. (B) right is not visible.", SIDES, 0),
        ("Not A, not B, so C or D; the best is D.", FOUR, 3),
        ("A is not correct, B is not correct, C is correct.", FOUR, 2),
        ("A is the answer", FOUR, 0),
        ("Answer: A) right", SIDES, 1),
        ("Q: left or right?\nA: right", SIDES, 1),
        ("I think A cup is there", SIDES, None),
        ("right.", ("the right cube", "the left cube"), 0),
        ("B is closer", ("Point A", "Point B"), 1),
        ("Caption C", FOUR, 2),
    ],
)
def test_statements_corrections_and_listings(answer, options, expected):
    assert extract_choice(answer, options) == expected


@pytest.mark.parametrize("options", [YES_NO, TRUTH, CUPS])
@pytest.mark.parametrize(
    ("answer", "expected"),
    [("It's true", 0), ("That's true.", 0), ("It's correct.", 0), ("I think yes", 0), ("I would say yes", 0),
     ("Answer yes", 0), ("probably yes", 0), ("Yep", 0), ("Yeah", 0), ("Definitely!", 0), ('{"answer": "yes"}', 0),
     ('{"answer": true}', 0), ("Yes", 0), ("It's false.", 1), ("It's not true", 1), ("I'd say no", 1), ("Nope", 1),
     ("True or false? False", 1), ("Absolutely not.", 1), ("No.", 1), ("Is it left? No, it is right.", 1)],
)  # fmt: skip
def test_yes_and_no_in_many_words(answer, options, expected):
    assert extract_choice(answer, options) == expected


@pytest.mark.parametrize(
    ("answer", "options", "expected"),
    [
        ("1.5 meters", LENGTHS, 0),
        ("1.50m", LENGTHS, 0),
        ("about 1.5 meters", LENGTHS, 0),
        ("150 cm", LENGTHS, 0),
        ("B: 2.5 m", LENGTHS, 1),
        ("3 meters", LENGTHS, None),
        ("none", ("2", "0", "1"), 1),
        ("The mug is to the left of the table.", MUGS, 0),
        ("The mug is on the right of the table.", MUGS, 1),
        ("It is on the table.", MUGS, 2),
        ("to the left", MUGS, 0),
        ("left", MUGS, 0),
        ("It is not on the table.", MUGS, None),
        ("left or right", MUGS, None),
    ],
)
def test_option_texts_in_other_words(answer, options, expected):
    assert extract_choice(answer, options) == expected


@pytest.mark.parametrize(
    "unit", ["The cup is left (A) so it. ", "\\boxed{", "Wait, no, left? No, ", "<b>", "A, B or ", "it is "]
)
def test_a_megabyte_is_read_at_once(unit):
    start = time.process_time()
    extract_choice(unit * (1_000_000 // len(unit)), SIDES)
    assert time.process_time() - start < 0.3
