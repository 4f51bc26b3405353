"""SpatialTraceGen experiment folders become rated traces with rejected attempts; broken folders say what is wrong."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from reading import encode, pictures_of, read, write_picture

from spatial_lightning.backbones import Backbone
from spatial_lightning.data import Encoder
from spatial_lightning.data.corpora import TraceFolders
from spatial_lightning.data.corpora.trace_folders import mean_rating
from spatial_lightning.records import RecordError

LONG = "Because of the shadow, " * 12
CALL = json.dumps({"reasoning": "look closer", "action": "tool_call", "tool_name": "dav2"})
REJECTED_WHOLE = json.dumps({"reasoning": "guess", "action": "final_answer", "text": "no"})
REJECTED_CUT = json.dumps({"reasoning": LONG, "action": "final_answer", "text": "no"})
FINAL = json.dumps({"reasoning": LONG, "action": "final_answer", "text": "Yes"})


def verified(step: int, attempt: int, text: str, rating: Any) -> dict[str, Any]:
    return {
        "step_index": step,
        "attempt_number": attempt,
        "timestamp": "2025-09-01T00:00:00",
        "step_content": text[:200],
        "result": {"rating": rating, "regeneration_needed": False, "critical_concerns": ""},
        "passed_threshold": True,
        "regeneration_triggered": False,
        "verification_retries": 0,
    }


HISTORY = [
    verified(1, 1, REJECTED_WHOLE, 2),
    verified(1, 2, REJECTED_CUT, 3.5),
    verified(1, 3, CALL, 7),
    verified(2, 1, FINAL, 8),
]


def as_url(path: Path) -> dict[str, Any]:
    data = base64.b64encode(path.read_bytes()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}", "detail": "low"}}


def write_question(experiment: Path, number: int = 3, **change: Any) -> Path:
    """A question folder as the pipeline writes it; ``change`` replaces entries of the trace."""
    folder = experiment / "questions" / f"q{number:03d}_Is it large_CLEVR_train_00000{number}"
    image = write_picture(folder / "images" / f"CLEVR_train_00000{number}.png", 40 + number)
    seen = write_picture(folder / "images" / "step_1_attempt_3_dav2_result.png", 48)
    question = "Is it large?"
    tool = {"step_index": 1, "attempt": 3, "tool_name": "dav2", "path": f"images/{seen.name}", "filename": seen.name}
    asked = {"type": "text", "text": f"Solve this spatial reasoning question: {question}"}
    row: dict[str, Any] = {
        "id": f"trace_{number}",
        "question_index": number,
        "question": question,
        "expected_answer": "yes",
        "difficulty": "easy",
        "image_filename": image.name,
        "original_image_path": f"images/{image.name}",
        "trace": [
            {"role": "system", "content": "You are an expert."},
            {"role": "user", "content": [asked, as_url(image)]},
            {"role": "assistant", "content": CALL},
            {"role": "user", "content": [{"type": "text", "text": "Tool output: near is bright"}, as_url(seen)]},
            {"role": "assistant", "content": FINAL},
        ],
        "verification_history": HISTORY,
        "average_rating": 5.125,
        "tool_images": [tool],
        "generation_timestamp": "2025-09-01T00:00:00",
    } | change
    (folder / "traces").mkdir()
    (folder / "traces" / "complete_trace.json").write_text(json.dumps(row, indent=2))
    (folder / "traces" / "messages.json").write_text(json.dumps(row["trace"]))
    return folder


def messages(*steps: Any) -> list[dict[str, Any]]:
    """A conversation of steps with tool output between them."""
    turns: list[dict[str, Any]] = [{"role": "system", "content": "Be."}, {"role": "user", "content": "Q"}]
    for step in steps:
        text = step if isinstance(step, str) else json.dumps(step)
        turns += [{"role": "assistant", "content": text}, {"role": "user", "content": f"Tool output: {len(turns)}"}]
    return turns[:-1]


def test_a_folder_is_a_trace(tmp_path: Path) -> None:
    folder = write_question(tmp_path / "WITH_basic_4.0")
    (trace,) = read(TraceFolders(path=str(tmp_path)), tmp_path)
    assert trace.id == f"WITH_basic_4.0/{folder.name}"
    assert (trace.question.text, trace.question.answer, trace.question.kind) == ("Is it large?", "yes", "easy")
    assert trace.system == "You are an expert."
    assert trace.correct is True
    first, last = trace.steps
    assert (first.text, first.observation, first.rating) == (CALL, "Tool output: near is bright", 7.0)
    assert first.images == (folder / "images" / "step_1_attempt_3_dav2_result.png",)
    assert first.rejected == ((REJECTED_WHOLE, 2.0), (REJECTED_CUT[:200], 3.5))
    assert (last.text, last.observation, last.rating, last.rejected) == (FINAL, "", 8.0, ())


def test_truncated_attempts_can_be_left_out(tmp_path: Path) -> None:
    write_question(tmp_path / "experiment")
    (trace,) = read(TraceFolders(path=str(tmp_path), truncated_attempts="drop"), tmp_path)
    assert trace.steps[0].rejected == ((REJECTED_WHOLE, 2.0),)


def test_whole_attempts_are_kept_whole(tmp_path: Path) -> None:
    whole = [
        entry | {"step_content": text}
        for entry, text in zip(HISTORY, (REJECTED_WHOLE, REJECTED_CUT, CALL, FINAL), strict=True)
    ]
    write_question(tmp_path / "experiment", verification_history=whole)
    for option in ("keep", "drop"):
        (trace,) = read(TraceFolders(path=str(tmp_path), truncated_attempts=option), tmp_path)  # type: ignore[arg-type]
        assert trace.steps[0].rejected == ((REJECTED_WHOLE, 2.0), (REJECTED_CUT, 3.5))


def test_both_mean_ratings_are_there(tmp_path: Path) -> None:
    folder = write_question(tmp_path / "experiment")
    (trace,) = read(TraceFolders(path=str(tmp_path)), tmp_path)
    published = json.loads((folder / "traces" / "complete_trace.json").read_text())["average_rating"]
    assert mean_rating(trace, attempts=True) == published
    assert mean_rating(trace) == 7.5


def test_a_history_that_was_never_cleared_counts_from_the_last_question(tmp_path: Path) -> None:
    other = json.dumps({"reasoning": "another question", "action": "final_answer", "text": "3"})
    earlier = [verified(1, 1, other, 1), verified(1, 1, CALL, 1), verified(2, 1, other, 1)]
    write_question(tmp_path / "experiment", verification_history=[*earlier, *HISTORY])
    (trace,) = read(TraceFolders(path=str(tmp_path)), tmp_path)
    assert [step.rating for step in trace.steps] == [7.0, 8.0]
    assert len(trace.steps[0].rejected) == 2


def test_the_history_may_be_in_the_file_beside_the_trace(tmp_path: Path) -> None:
    folder = write_question(tmp_path / "experiment", verification_history=None)
    (folder / "verification").mkdir()
    for content in (HISTORY, {"min_acceptable_rating": 4.0, "verification_history": HISTORY}):
        (folder / "verification" / "verification_history.json").write_text(json.dumps(content))
        (trace,) = read(TraceFolders(path=str(tmp_path)), tmp_path)
        assert [step.rating for step in trace.steps] == [7.0, 8.0]


def test_an_attempt_that_is_kept_as_best_need_not_be_the_last(tmp_path: Path) -> None:
    best = [verified(1, 1, CALL, 3.5), verified(1, 2, REJECTED_WHOLE, 2), verified(2, 1, FINAL, 8)]
    write_question(tmp_path / "experiment", verification_history=best, tool_images=[])
    (trace,) = read(TraceFolders(path=str(tmp_path)), tmp_path)
    assert (trace.steps[0].rating, trace.steps[0].rejected) == (3.5, ((REJECTED_WHOLE, 2.0),))


def test_tool_pictures_come_from_the_conversation_where_none_is_saved(tmp_path: Path) -> None:
    folder = write_question(tmp_path / "experiment", tool_images=[])
    (trace,) = read(TraceFolders(path=str(tmp_path)), tmp_path)
    saved = folder / "images" / "step_1_attempt_3_dav2_result.png"
    (seen,) = trace.steps[0].images
    assert seen != saved
    assert seen.read_bytes() == saved.read_bytes()


def test_the_same_picture_of_two_experiments_is_one(tmp_path: Path) -> None:
    for name in ("WITHOUT_verification", "WITH_basic"):
        write_question(tmp_path / name)
    first, second = read(TraceFolders(path=str(tmp_path)), tmp_path)
    assert first.id != second.id
    assert first.images == second.images
    assert first.question == second.question


def test_traces_of_one_question_share_a_tree(tmp_path: Path, tiny: Backbone) -> None:
    for name in ("WITHOUT_verification", "WITH_basic"):
        write_question(tmp_path / name)
    records = read(TraceFolders(path=str(tmp_path)), tmp_path)
    tree = Encoder(tiny.processor).traces(records)
    assert tree.branches == 8
    assert torch.equal(tree.values["rating"], torch.tensor([7.0, 2.0, 3.5, 8.0] * 2))
    assert tree.values["accepted"].tolist() == [True, False, False, True] * 2
    assert encode(Encoder(tiny.processor), records[0]).branches == 4


@pytest.mark.parametrize("images", [False, True])
def test_pictures_may_be_elsewhere(images: bool, tmp_path: Path) -> None:
    folder = write_question(tmp_path / "experiment")
    copy = folder / "images" / "CLEVR_train_000003.png"
    content = copy.read_bytes()
    copy.unlink()
    options: dict[str, Any] = {}
    if images:
        write_picture(tmp_path / "clevr" / copy.name, 43)
        options["images"] = str(tmp_path / "clevr")
    (trace,) = read(TraceFolders(path=str(tmp_path / "experiment"), **options), tmp_path)
    assert trace.images[0].read_bytes() == content
    assert trace.steps[0].images[0].parent == folder / "images"


@pytest.mark.parametrize(
    "below", ["", "experiment", "experiment/questions", "exp*", "one", "one/traces/complete_trace.json"]
)
def test_every_level_can_be_read(below: str, tmp_path: Path) -> None:
    folder = write_question(tmp_path / "all" / "experiment")
    path = str(tmp_path / "all" / below).replace(str(tmp_path / "all" / "one"), str(folder))
    assert len(read(TraceFolders(path=path), tmp_path)) == 1


@pytest.mark.parametrize(("expected", "said", "correct"), [("yes", "YES", True), (3, 3, True), ("3", "4", False)])
def test_correct_is_the_same_text_in_lower_case(expected: Any, said: Any, correct: bool, tmp_path: Path) -> None:
    step = {"reasoning": "so", "action": "final_answer", "text": said}
    trace = messages(step)
    history = [verified(1, 1, json.dumps(step), 5)]
    write_question(tmp_path / "e", trace=trace, verification_history=history, expected_answer=expected, tool_images=[])
    assert read(TraceFolders(path=str(tmp_path)), tmp_path)[0].correct is correct


def test_unfinished_and_unrated_traces_can_be_taken(tmp_path: Path) -> None:
    write_question(tmp_path / "a", trace=messages(CALL), verification_history=HISTORY[:3])
    (trace,) = read(TraceFolders(path=str(tmp_path / "a"), require_answer=False), tmp_path)
    assert (trace.correct, len(trace.steps)) == (False, 1)
    write_question(tmp_path / "b", verification_history=HISTORY[:3])
    (trace,) = read(TraceFolders(path=str(tmp_path / "b"), require_ratings=False), tmp_path)
    assert [step.rating for step in trace.steps] == [7.0, None]
    assert mean_rating(trace) == 7.0


THOUGHT = {"action": "reasoning", "text": "hm"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trace": "text"}, "a conversation must be a list of turns, got str"),
        ({"trace": messages(CALL)}, "the trace has no final answer; allowed: require_answer=false"),
        ({"trace": messages(CALL, FINAL, CALL)}, "step 2 of 3 gives a final answer; allowed: the last step only"),
        ({"trace": messages("So it is.")}, "step 1 is not valid JSON: 'So it is.'"),
        ({"trace": messages({"reasoning": "r", "action": "wait"})}, "step 1 has the action 'wait'; allowed: tool_call"),
        ({"trace": messages([1])}, "step 1 has the action 'list'"),
        ({"trace": messages({"reasoning": "r", "action": "final_answer", "text": " "})}, "the final answer is empty"),
        ({"trace": messages(THOUGHT, FINAL)}, "two versions of the format are mixed"),
        ({"trace": messages(" ", FINAL)}, "step 1 is empty"),
        ({"verification_history": None}, "step 1 has no verification; allowed: require_ratings=false"),
        ({"verification_history": HISTORY[:3]}, "step 2 has no verification"),
        ({"verification_history": HISTORY[:2]}, "history of step 1 is about other texts .* of different versions"),
        ({"verification_history": [*HISTORY, HISTORY[3]]}, r"history of step 2 has an attempt twice: \[1, 1\]"),
        ({"verification_history": 3}, "verification_history must be a list, got int"),
        ({"verification_history": [3]}, "an entry of verification_history is a int"),
        ({"verification_history": [HISTORY[0] | {"step_index": "1"}]}, "step_index in verification_history is '1'"),
        ({"verification_history": [HISTORY[0] | {"attempt_number": 0}]}, "attempt_number in verification_history is 0"),
        ({"verification_history": [verified(1, 3, CALL, 11), HISTORY[3]]}, "rating of step 1 is 11; allowed: 1 to 10"),
        ({"verification_history": [verified(1, 3, CALL, 0), HISTORY[3]]}, "rating of step 1 is 0; allowed: 1 to 10"),
        (
            {"verification_history": [verified(1, 3, CALL, "7"), HISTORY[3]]},
            "rating of step 1 is '7'; allowed: a number",
        ),
        ({"verification_history": [verified(1, 3, CALL, None), HISTORY[3]]}, "rating of step 1 is None"),
        ({"verification_history": [verified(1, 1, "no", 99), *HISTORY[2:]]}, "rating of step 1 is 99"),
        ({"verification_history": [HISTORY[2] | {"result": 7}, HISTORY[3]]}, "rating of step 1 is None"),
        ({"question": 3}, "question must be text, got int"),
        ({"expected_answer": None}, "key 'expected_answer' is missing"),
        ({"original_image_path": "../../../../lost.png", "trace": messages(CALL, FINAL)}, "leads out of"),
        ({"original_image_path": "images/lost.png", "trace": messages(CALL, FINAL)}, "lost.png does not exist"),
        ({"tool_images": [{"step_index": 1, "attempt": 3, "path": "images/lost.png"}]}, "lost.png does not exist"),
        ({"tool_images": ["images/lost.png"]}, "an entry of tool_images is a str"),
    ],
)
def test_broken_folders_say_what_is_wrong(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_question(tmp_path / "experiment", **change)
    with pytest.raises(RecordError, match=message):
        read(TraceFolders(path=str(tmp_path)), tmp_path)


def test_steps_that_repeat_are_refused(tmp_path: Path) -> None:
    turns = messages(CALL, CALL, FINAL)
    turns[3]["content"] = turns[5]["content"] = "Tool output: the same"
    write_question(tmp_path / "experiment", trace=turns)
    with pytest.raises(RecordError, match="step 2 repeats step 1 word for word"):
        read(TraceFolders(path=str(tmp_path)), tmp_path)


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="truncated_attempts is 'cut'; allowed: keep, drop"):
        TraceFolders(path="unused", truncated_attempts="cut")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"no complete_trace\.json at or below"):
        pictures_of(TraceFolders(path=str(tmp_path)), tmp_path)
