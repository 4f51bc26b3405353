"""Ways of scoring: figures worked by hand, ends of intervals, groups, and answers of any kind."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_lightning.evaluation import majority_baseline, summarise
from spatial_lightning.evaluation.protocols import (
    Bands,
    Choice,
    CVBench,
    Exact,
    General,
    Omni3D,
    Protocol,
    QSpatial,
    RGPTBench,
    ThreeDSR,
    Truth,
)
from spatial_lightning.evaluation.scoring import score_answer
from spatial_lightning.evaluation.text import LONGEST
from spatial_lightning.records import Question

OPTIONS = ("a mug on a table", "a mug under a table")


def closed(name="q", answer=OPTIONS[0], options=OPTIONS, kind="on", **tags):
    return Question(name, "Which caption fits?", answer, kind, options, tags=tags)


def length(metres, name="q", kind="width_data"):
    return Question(name, "How wide is Region [0]?", f"{metres} meters", kind, value=metres)


def comparison(kind, answer, text="Is Region [0] taller than Region [1]?", options=()):
    return Question("q", text, answer, kind, options)


FITTING: dict[Protocol, Question] = {
    General(): closed(),
    Choice(groups=("pair",)): closed(pair="1"),
    Truth(): Question("q", "True?", "true", "near", ("true", "false")),
    Exact(): Question("q", "What shape?", "cube", "human"),
    Bands(): length(2.0),
    RGPTBench(): comparison("tall_predicate", "In fact, Region [0] may be shorter than Region [1]."),
    QSpatial(): length(2.0),
    CVBench(): closed(source="COCO"),
    Omni3D(): Question("q", "How many times as wide?", "2.5", "numeric_other"),
    ThreeDSR(): closed(kind="height_higher", base="ABCDEFGH", variant=""),
}


def test_every_protocol_is_tried():
    import spatial_lightning.evaluation.protocols as module

    assert {type(protocol).__name__ for protocol in FITTING} | {"Protocol", "Judged"} == set(module.__all__)


@pytest.mark.parametrize(("protocol", "question"), FITTING.items(), ids=lambda value: type(value).__name__)
class TestEveryProtocol:
    def test_the_true_answer_is_right_and_says_why(self, protocol, question):
        protocol.check([question])
        score = protocol.score(question, question.answer)
        assert score.correct
        assert score.parsed
        assert score.rule not in ("", "unreadable")
        assert score.said
        summary = summarise([question], [question.answer], protocol)
        assert next(iter(summary.figures.values())) == 1
        assert summary.rules == {score.rule: 1}

    @pytest.mark.parametrize("text", ["", " \n", "¯\\_(ツ)_/¯ \u202e\u0000", "about 300 pixels???"])
    def test_what_is_no_answer_is_wrong(self, protocol, question, text):
        assert not protocol.score(question, text).correct

    def test_nothing_said_is_unreadable(self, protocol, question):
        score = protocol.score(question, "")
        assert (score.correct, score.parsed, score.rule, score.said) == (False, False, "unreadable", "")
        summary = summarise([question], [""], protocol)
        assert (summary.overall.unparsed_share, summary.rules) == (1, {"unreadable": 1})
        assert "readable_accuracy" not in summary.metrics()

    @pytest.mark.parametrize(
        "unit",
        ["a", "1 ", "1,", "yes no ", "Region [0] is taller than Region [1], ", "therefore ", "\\scalar{", "(A) ", "\n"],
    )
    def test_a_million_characters_take_less_than_a_second(self, protocol, question, unit):
        start = time.process_time()
        protocol.score(question, unit * (1_000_000 // len(unit)))
        assert time.process_time() - start < 1

    def test_a_missing_answer_is_an_error_in_words(self, protocol, question):
        with pytest.raises(ValueError, match="question 'q': the answer is None; it must be text, and '' where"):
            protocol.score(question, None)

    def test_no_figures_without_questions(self, protocol, question):
        assert protocol.figures([], []) == {}
        with pytest.raises(ValueError, match="one score per question, got 0 for 1"):
            protocol.figures([question], [])

    @given(text=st.text(max_size=200))
    def test_any_text_gives_a_verdict(self, protocol, question, text):
        score = protocol.score(question, text)
        assert score.parsed or (not score.correct and score.rule == "unreadable")


def test_the_end_of_an_enormous_answer_counts():
    for filler in ("so ", "word " * 3, "\n"):
        text = filler * (1_000_000 // len(filler)) + " The final answer is (B)."
        assert Choice().score(closed(answer=OPTIONS[1]), text).correct
    assert Choice().score(closed(answer=OPTIONS[1]), "(B)\n" + "blah " * LONGEST).correct


def test_a_thought_before_the_answer_is_no_answer():
    thought = r"The answer is (A), 9 meters: \scalar{9} \distance_unit{m}, yes, 7."
    asked = (
        (Choice(), closed(answer=OPTIONS[1]), "B"),
        (General(), length(1.0), "1 meter"),
        (QSpatial(), length(1.0), r"\scalar{1} \distance_unit{m}"),
        (Exact(), Question("q", "What shape?", "cube", "human"), "cube"),
        (Omni3D(), Question("q", "How many?", "2", "numeric_count"), "2"),
        (RGPTBench(), comparison("tall_predicate", "No."), "No."),
    )
    for protocol, question, right in asked:
        for text in (f"<think>{thought}</think>\n{right}", f"{thought}</think><answer>{right}</answer> {thought}"):
            assert protocol.score(question, text).correct, (protocol, text)
        for text in (f"<think>{right}", f"<think>{right}</think>", f"<answer></answer>{right}"):
            assert not protocol.score(question, text).parsed, (protocol, text)
    assert not QSpatial(tagged=True).score(length(9.0), f"<think>{thought}</think>9 meters").parsed


@pytest.mark.parametrize(
    ("text", "correct", "parsed"),
    [
        ("red", True, True),
        ("The red.", True, True),
        ("The final answer is red", True, True),
        ("blue", False, True),
        ("dark metallic blue", False, True),
        ("It is red", False, False),
        ("I cannot tell.", False, False),
        ("a very small shiny dark blue", False, False),
        ("", False, False),
    ],
)
def test_a_sentence_where_a_word_is_asked_for_is_a_format_failure(text, correct, parsed):
    score = Exact().score(Question("q", "What color?", "red", "human"), text)
    assert (score.correct, score.parsed) == (correct, parsed)


@given(st.sampled_from(["left", "(B)", "1.9 m", "3 o'clock", "x", ""]))
def test_the_general_protocol_is_what_training_runs_use(text):
    for question in (
        closed(answer="left", options=("left", "right")),
        length(1.0),
        Question("q", "?", "3 o'clock", "k"),
    ):
        assert General().score(question, text) == score_answer(question, text)


@pytest.mark.parametrize(
    ("question", "text", "rule", "said"),
    [
        (closed(), "(B)", "option letter", OPTIONS[1]),
        (closed(), "It is a mug on a table.", "option text", OPTIONS[0]),
        (closed(), "(A) a mug under a table", "option text", OPTIONS[1]),
        (length(1.0), "half a meter", "length within 50-200 %", "0.5 m"),
        (Question("q", "Where?", "3 o'clock", "k"), "at 10 o'clock", "clock within 1 h", "10 o'clock"),
        (Question("q", "Turn?", "90 degrees", "k"), "80°", "angle within 30 degrees", "80 degrees"),
        (Question("q", "What?", "cube", "k"), "The Cube!", "same words", "cube"),
        (closed(), "hm", "unreadable", ""),
    ],
)
def test_scores_name_their_rule_and_what_was_read(question, text, rule, said):
    score = score_answer(question, text)
    assert (score.rule, score.said) == (rule, said)


def test_a_group_counts_where_all_its_questions_are_right():
    questions = [closed(str(n), pair=str(n // 2), set=str(n // 4)) for n in range(8)]
    answers = ["(A)"] * 5 + ["(B)"] + ["(A)"] * 2
    figures = summarise(questions, answers, Choice(groups=["pair", "set"])).figures
    assert list(figures) == ["accuracy", "macro_accuracy", "pair_accuracy", "set_accuracy"]
    assert (figures["accuracy"], figures["pair_accuracy"], figures["set_accuracy"]) == (7 / 8, 3 / 4, 1 / 2)


def test_what_a_protocol_needs_is_asked_for_before_a_model_is():
    with pytest.raises(
        ValueError, match="question 'q' has no tag 'pair', by which this protocol groups; its tags: set"
    ):
        Choice(groups=["pair"]).check([closed(set="1")])
    with pytest.raises(ValueError, match="no options to choose from"):
        Choice().check([length(1.0)])
    with pytest.raises(ValueError, match=r"value is None; allowed: a length in metres"):
        Bands().check([closed()])
    with pytest.raises(ValueError, match=r"no options|none of the options"):
        ThreeDSR().check([Question("q", "?", "x", "height_higher", tags={"base": "a", "variant": ""})])
    with pytest.raises(ValueError, match="source is 'Flickr'; allowed: ADE20K, COCO, Omni3D"):
        CVBench().check([closed(source="Flickr")])
    with pytest.raises(ValueError, match="variant is 'mirror'; allowed"):
        ThreeDSR().check([closed(base="ABCDEFGH", variant="mirror")])
    with pytest.raises(ValueError, match="'colour' is no category of SpatialRGPT-Bench"):
        RGPTBench().check([Question("q", "What colour?", "red", "colour")])
    with pytest.raises(ValueError, match="states no clock direction"):
        RGPTBench().check([Question("q", "Where?", "to the left", "direction")])
    with pytest.raises(ValueError, match=r"picks none of \['yes', 'no'\]"):
        RGPTBench().check([comparison("tall_predicate", "Who knows?")])
    with pytest.raises(ValueError, match="one that affirms and one that denies"):
        Truth().check([closed()])
    with pytest.raises(ValueError, match="says neither true nor false"):
        Truth().check([Question("q", "True?", "perhaps", "k")])
    with pytest.raises(ValueError, match="list of names of tags"):
        Choice(groups="pair")
    with pytest.raises(ValueError, match="each above the one before"):
        Bands(edges=(3.0, 1.0))


@pytest.mark.parametrize("options", [("true", "false"), ("no", "yes"), ()])
def test_truth_shows_who_always_says_yes(options):
    words = options or ("true", "false")
    affirm = words[0] if words[0] in ("true", "yes") else words[1]
    deny = next(word for word in words if word != affirm)
    questions = [Question(str(n), "So?", affirm if n < 6 else deny, "near", options) for n in range(8)]
    figures = summarise(questions, ["Yes."] * 7 + [""], Truth()).figures
    assert figures == {"accuracy": 0.75, "macro_accuracy": 0.75, "balanced_accuracy": 0.5, "said_true": 1.0}
    assert summarise(questions, ["that is False"] * 8, Truth()).figures["said_true"] == 0


def test_bands_by_distance():
    questions = [length(value, str(value)) for value in (0.5, 1.0, 2.0, 12.0)]
    figures = summarise(questions, ["0.5 m", "1.5 m", "3.1 m", "far away"], Bands(edges=[1, 10])).figures
    assert figures == {
        "within_50_200": 0.75,
        "within_66.7_150": 0.5,
        "within_90_110": 0.25,
        "gives_number": 0.75,
        "within_50_200/0-1 m": 1.0,
        "within_50_200/1-10 m": 1.0,
        "within_50_200/from 10 m": 0.0,
    }


@pytest.mark.parametrize(
    ("said", "two", "half"), [("1.0 m", 0, 0), ("1.01 m", 1, 0), ("1.34 m", 1, 1), ("2.99 m", 1, 1), ("3 m", 1, 0),
                              ("3.99 m", 1, 0), ("4 m", 0, 0), ("0 m", 0, 0), ("soon", 0, 0)],
)  # fmt: skip
def test_factors_of_q_spatial_are_strict(said, two, half):
    summary = summarise([length(2.0)], [said], QSpatial())
    assert summary.figures == {"within_factor_2": two, "within_factor_1.5": half}
    assert summary.correct == (bool(two),)


def test_q_spatial_reads_its_own_form_and_averages_several_numbers():
    text = r"Between 1 and 9 m. \scalar{30} \distance_unit{cm} or rather \scalar{1.5-2.5} \distance_unit{meters}"
    assert QSpatial(tagged=True).score(length(2.0), text).ratio == pytest.approx(1)
    assert not QSpatial(tagged=True).score(length(2.0), "2 m").parsed
    assert QSpatial().score(length(2.0), "2 m").correct


def test_cv_bench_weighs_sources():
    sources = ["ADE20K"] * 4 + ["COCO"] * 2 + ["Omni3D"] * 2
    questions = [closed(str(n), source=source) for n, source in enumerate(sources)]
    answers = ["(A)"] * 3 + ["(B)"] + ["(A)", "(B)"] + ["(A)"] * 2
    figures = summarise(questions, answers, CVBench()).figures
    assert next(iter(figures)) == "combined_accuracy"
    assert figures["combined_accuracy"] == pytest.approx(0.5 * ((0.75 + 0.5) / 2 + 1.0))
    assert figures["accuracy"] == 6 / 8
    assert "combined_accuracy" not in summarise(questions[:6], answers[:6], CVBench()).figures


def test_3dsrbench_groups_mirrored_and_turned_questions():
    variants = ("", "flip", "1", "flip-1")
    questions = [
        closed(f"{base}-{variant}", kind=kind, base=base, variant=variant)
        for base, kind in (("AAAAAAAA", "height_higher"), ("BBBBBBBB", "multi_object_facing"))
        for variant in variants
    ]
    answers = ["(A)"] * 4 + ["(A)", "(A)", "(A)", "(B)"]  # only the mirrored and turned form of the second is wrong
    figures = summarise(questions, answers, ThreeDSR()).figures
    assert list(figures)[:4] == ["vanilla_accuracy", "flip_accuracy", "circular_accuracy", "flip_circular_accuracy"]
    assert figures == {
        "vanilla_accuracy": 7 / 8,
        "flip_accuracy": 3 / 4,  # by turn: A, A-1, B, not B-1
        "circular_accuracy": 3 / 4,  # by side: A, A-flip, B, not B-flip
        "flip_circular_accuracy": 1 / 2,
        "height_accuracy": 1.0,
        "multi_object_accuracy": 3 / 4,
    }


@given(st.lists(st.floats(0.05, 30), min_size=1, max_size=30))
def test_the_best_constant_length_is_the_best_for_the_protocol(values):
    questions = [length(value) for value in values]
    for protocol, (low, high) in ((RGPTBench(), (0.75, 1.25)), (Bands(), (0.5, 2.0))):
        best = majority_baseline(questions, questions, protocol).overall.correct
        for constant in (end * value for value in values for end in (low, 1, high)):
            assert best >= sum(low * value * 1.0001 <= constant <= high * value * 0.9999 for value in values)
