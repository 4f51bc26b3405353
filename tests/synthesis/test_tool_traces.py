"""The imperfect policy, the geometric verifier, and the traces that they make."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from pathlib import Path
from statistics import correlation, fmean

import numpy as np
import pytest

from spatial_lightning.records import BadRows, ImageQuestions, Step, Trace, read_records
from spatial_lightning.scenes import Scene, generate
from spatial_lightning.steps import Action, StepError, read_action
from spatial_lightning.synthesis.game import ANSWERED, MALFORMED, UNFINISHED, Game
from spatial_lightning.synthesis.policy import ErrorRates, Policy
from spatial_lightning.synthesis.tasks import Task, argue
from spatial_lightning.synthesis.tools import DEPTH, SEGMENT, TOP_DOWN, Toolbox
from spatial_lightning.synthesis.traces import (
    TraceSettings,
    play,
    scene_traces,
    tasks_of,
    toolbox_of,
    write_task_questions,
    write_trace_corpus,
)
from spatial_lightning.synthesis.verifier import Verifier

ERRORS = tuple(entry.name for entry in fields(ErrorRates))
NEVER = ErrorRates(**dict.fromkeys(ERRORS, 0.0))


@pytest.fixture(scope="module")
def some() -> list[Scene]:
    return [generate(4, index) for index in range(40)]


@pytest.fixture(scope="module")
def tasks(some: list[Scene]) -> list[tuple[Toolbox, Task]]:
    boxes = [toolbox_of(scene) for scene in some]
    return [(box, task) for box in boxes for task in tasks_of(box, seed=0, count=3)]


def game_by(policy: Policy, box: Toolbox, task: Task, seed: int = 0, verifier: Verifier | None = None) -> Game:
    rng = np.random.default_rng(seed)
    return play(task, box, policy, verifier or Verifier(), rng, tau=0, attempts=0, max_steps=6)


def test_a_policy_without_errors_is_always_right_short_and_rated_ten(tasks: list[tuple[Toolbox, Task]]) -> None:
    for box, task in tasks:
        game = game_by(Policy(NEVER), box, task)
        assert game.outcome == ANSWERED
        assert game.correct
        assert len(game.steps) == 1 + min(len(argument.tools) for argument in task.arguments)
        assert {step.rating for step in game.steps} == {10.0}


@pytest.mark.parametrize("error", ERRORS)
def test_each_error_is_made_at_its_rate_and_rated_below_its_absence(
    tasks: list[tuple[Toolbox, Task]], error: str
) -> None:
    policy = Policy(ErrorRates(**(dict.fromkeys(ERRORS, 0.0) | {error: 0.5})))
    made, rng = Counter(), np.random.default_rng(1)
    for box, task in tasks:
        game = Game(task, box)
        while not game.outcome:
            proposal = policy.propose(task, game.steps, rng)
            verdict = Verifier().rate(task, game.steps, proposal.text)
            assert proposal.error in ("", error)
            assert (verdict.rating < 7) == bool(proposal.error), (proposal, verdict)
            assert bool(verdict.concern) == bool(proposal.error)
            made[proposal.error] += 1
            game.play(proposal.text)
    # Every error has its occasion at least once a game; some have more occasions than that, others fewer.
    assert 0.15 < made[error] / made.total() < 0.6, made


def test_errors_of_reasoning_change_some_answers_and_not_others(tasks: list[tuple[Toolbox, Task]]) -> None:
    for error in ("misread", "wrong_reasoning"):
        policy = Policy(ErrorRates(**(dict.fromkeys(ERRORS, 0.0) | {error: 1.0})))
        right = fmean(game_by(policy, box, task).correct for box, task in tasks)
        assert 0.05 < right < 0.95, error
    wrong = Policy(ErrorRates(**(dict.fromkeys(ERRORS, 0.0) | {"wrong_answer": 1.0})))
    assert not any(game_by(wrong, box, task).correct for box, task in tasks)


def test_feedback_lowers_the_error_rates(tasks: list[tuple[Toolbox, Task]]) -> None:
    rates = []
    for attempt in (0, 2):
        rng = np.random.default_rng(0)
        proposals = [Policy(learning=0.3).propose(task, (), rng, attempt=attempt) for _, task in tasks]
        rates.append(fmean(bool(proposal.error) for proposal in proposals))
    assert rates[1] < rates[0] / 2


def test_rates_are_checked_and_scaled() -> None:
    with pytest.raises(ValueError, match="error rate misread is 1.5; allowed: 0 to 1"):
        ErrorRates(misread=1.5)
    assert ErrorRates(misread=0.4).scaled(0.5).misread == 0.2
    assert ErrorRates(misread=0.4).scaled(100).misread == 0.95
    assert ErrorRates(misread=1.0).scaled(1.0).misread == 1.0


def test_a_game_ends_at_its_answer_at_a_malformed_step_or_at_its_limit(tasks: list[tuple[Toolbox, Task]]) -> None:
    box, task = tasks[0]
    for text, outcome in (
        ('{"action":"final_answer","text":"perhaps"}', ANSWERED),
        ('{"action":"tool_call","tool_name":"radar"}', MALFORMED),
        ("no idea", MALFORMED),
    ):
        game = Game(task, box)
        game.play(text)
        assert (game.outcome, game.correct) == (outcome, False)
        assert game.steps[-1].observation == ""
    game = Game(task, box, max_steps=2)
    game.play(Action(tool=SEGMENT).text())
    assert not game.outcome
    assert game.steps[-1].observation == box.use(SEGMENT).text
    game.play(Action(tool=SEGMENT).text())
    assert (game.outcome, game.answer) == (UNFINISHED, None)
    said = Game(task, box)
    said.play(Action(answer=f" {task.question.answer.upper()} ").text())
    assert said.correct


def of_kind(tasks: list[tuple[Toolbox, Task]], kind: str) -> tuple[Toolbox, Task]:
    return next((box, task) for box, task in tasks if task.question.kind == kind)


def test_the_rubric(tasks: list[tuple[Toolbox, Task]]) -> None:
    box, task = of_kind(tasks, "front_behind")
    verifier = Verifier()

    def seen(*tools: str) -> list[Step]:
        return [Step(Action(tool=tool).text(), box.use(tool).text) for tool in tools]

    def rate(action: Action | str, *tools: str) -> float:
        return verifier.rate(task, seen(*tools), action if isinstance(action, str) else action.text()).rating

    good = Action(argue(task.arguments[0].claims), answer=task.question.answer)
    other = {"yes": "no", "no": "yes"}[task.question.answer]
    assert rate(Action(tool=DEPTH)) == rate(Action(tool=TOP_DOWN)) == 10
    assert rate(Action(tool=SEGMENT)) <= 3
    assert rate(Action(tool=SEGMENT), DEPTH) <= 4
    assert rate(Action(tool=SEGMENT), SEGMENT) <= 4
    assert rate(good, DEPTH) == 10
    assert 4 <= rate(good) <= 7
    assert rate(Action(good.reasoning, answer=other), DEPTH) <= 4
    assert rate(Action("I think so", answer=task.question.answer), DEPTH) <= 5
    assert rate(good, TOP_DOWN) <= 6
    assert rate("no idea") == rate(Action(tool="radar")) == 1


def test_ratings_never_look_at_the_true_answer(tasks: list[tuple[Toolbox, Task]]) -> None:
    """A guess without reasoning is rated the same, right or wrong."""
    for box, task in tasks[:20]:
        steps = [Step(Action(tool=SEGMENT).text(), box.use(SEGMENT).text)]
        ratings = {Verifier().rate(task, steps, Action(answer=answer).text()) for answer in ("yes", "no", "2", "red")}
        assert len(ratings) == 1


def test_noise_moves_ratings_within_their_range(tasks: list[tuple[Toolbox, Task]]) -> None:
    _, task = tasks[0]
    text = Action(tool=SEGMENT).text()
    noisy, rng = Verifier(noise=3.0), np.random.default_rng(0)
    ratings = [noisy.rate(task, (), text, rng).rating for _ in range(200)]
    assert len(set(ratings)) > 4
    assert all(1 <= rating <= 10 and rating == int(rating) for rating in ratings)
    assert {noisy.rate(task, (), text).rating for _ in range(5)} == {Verifier().rate(task, (), text).rating}
    with pytest.raises(ValueError, match="must be at least 0"):
        Verifier(noise=-1)


def test_steps_below_the_threshold_are_proposed_anew_and_kept_as_rejected(tasks: list[tuple[Toolbox, Task]]) -> None:
    games = [
        play(task, box, Policy(), Verifier(), np.random.default_rng(i), tau=5, attempts=3, max_steps=6)
        for i, (box, task) in enumerate(tasks)
    ]
    steps = [step for game in games for step in game.steps]
    assert sum(bool(step.rejected) for step in steps) > 10
    for step in steps:
        assert step.rating is not None
        assert len(step.rejected) <= 3
        assert step.text not in [text for text, _ in step.rejected]
        assert all(rating is not None and rating < 5 and rating <= step.rating for _, rating in step.rejected)
    without = [game_by(Policy(), box, task, i) for i, (box, task) in enumerate(tasks)]
    assert not any(step.rejected for game in without for step in game.steps)
    assert fmean(game.correct for game in games) > fmean(game.correct for game in without)


def test_when_no_attempt_is_good_enough_the_best_is_taken(tasks: list[tuple[Toolbox, Task]]) -> None:
    box, task = tasks[0]
    policy = Policy(ErrorRates(**(dict.fromkeys(ERRORS, 1.0) | {"malformed": 0.5})), learning=1.0)
    for seed in range(20):
        game = play(task, box, policy, Verifier(), np.random.default_rng(seed), tau=10, attempts=3, max_steps=3)
        for step in game.steps:
            assert step.rating is not None
            assert all(step.rating >= (rating or 0) for _, rating in step.rejected)


@pytest.fixture(scope="module")
def traces(some: list[Scene]) -> list[Trace]:
    return [trace for scene in some for trace in scene_traces(scene, seed=0, count=4, settings=TraceSettings())]


def test_ratings_and_correctness_go_together_but_not_in_lockstep(traces: list[Trace]) -> None:
    ratings = [fmean(step.rating or 0 for step in trace.steps) for trace in traces]
    correct = [float(bool(trace.correct)) for trace in traces]
    assert 0.4 < correlation(ratings, correct) < 0.9
    assert 0.5 < fmean(correct) < 0.95
    good_and_wrong = [trace for trace, rating in zip(traces, ratings, strict=True) if rating > 7 and not trace.correct]
    bad_and_right = [trace for trace, rating in zip(traces, ratings, strict=True) if rating < 7 and trace.correct]
    assert good_and_wrong
    assert bad_and_right


def test_traces_of_a_question_are_neighbours_of_different_quality(traces: list[Trace]) -> None:
    groups = [traces[start : start + 4] for start in range(0, len(traces), 4)]
    assert all(len({trace.question.id for trace in group}) == 1 for group in groups)
    assert len({trace.id for trace in traces}) == len(traces)
    by_place = [fmean(bool(group[place].correct) for group in groups) for place in range(4)]
    assert by_place[0] > by_place[2] > by_place[3]
    unverified = [step for group in groups for trace in group[2:] for step in trace.steps]
    assert not any(step.rejected for step in unverified)


def test_traces_can_be_replayed(some: list[Scene], traces: list[Trace]) -> None:
    """What is on record is what the tools say, and a trace is right when its last step answers right."""
    boxes = {f"{scene.split}-{scene.index:06d}": toolbox_of(scene) for scene in some}
    for trace in traces:
        box = boxes["-".join(trace.id.split("-")[:2])]
        for step in trace.steps:
            try:
                action = read_action(step.text)
            except StepError:
                action = None
            wanted = box.use(action.tool).text if action is not None and action.tool is not None else ""
            assert step.observation == wanted
        final = read_action(trace.steps[-1].text) if trace.correct else None
        assert final is None or final.answer == trace.question.answer


def test_the_corpus_is_the_same_for_the_same_seed_and_for_any_part_of_the_scenes(
    some: list[Scene], tmp_path: Path
) -> None:
    def lines(name: str, scenes: list[Scene], seed: int = 0) -> list[str]:
        write_trace_corpus(tmp_path / name, scenes, seed=seed, questions_per_image=2)
        return (tmp_path / name).read_text().splitlines()

    whole = lines("a", some[:6])
    assert lines("b", some[:6]) == whole
    assert lines("c", some[3:6]) == whole[-len(lines("c", some[3:6])) :]
    assert lines("d", some[:6], seed=1) != whole


def test_the_questions_of_a_corpus_can_be_had_alone(some: list[Scene], tmp_path: Path) -> None:
    write_trace_corpus(tmp_path / "traces", some[:5], seed=0, questions_per_image=3, kinds=["count", "left_right"])
    write_task_questions(tmp_path / "asked", some[:5], seed=0, questions_per_image=3, kinds=["count", "left_right"])
    bad = BadRows()
    traced = {trace.question for trace in read_records(tmp_path / "traces", Trace, bad)}
    asked = {q for record in read_records(tmp_path / "asked", ImageQuestions, bad) for q in record.questions}
    assert traced == asked
    assert not bad.bad
    assert {question.kind for question in asked} == {"count", "left_right"}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"per_question": 0}, "per_question is 0; it must be at least 1"),
        ({"tau": 11}, "tau is 11; allowed: 0 to 10"),
        ({"qualities": ()}, "needs factors of at least 0"),
        ({"errors": {"lies": 0.1}}, "there is no error 'lies'; allowed: wrong_tool"),
    ],
)
def test_impossible_settings_are_refused(options: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        TraceSettings(**options)
