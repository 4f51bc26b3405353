"""Generated answers to held-out questions: raw texts kept, scored by kind, at any point of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np

from spatial_lightning.data import Encoder
from spatial_lightning.evaluation import Summary, summarise
from spatial_lightning.records import Question
from spatial_lightning.runs.answerers import Answerer, answerer
from spatial_lightning.runs.directory import json_line, write_text
from spatial_lightning.runs.rollouts import Arena, Rollouts, roll_out
from spatial_lightning.steps import StepError, read_action

Asked = tuple[tuple[Path, ...], Question]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How answers are generated and how many.

    Attributes:
        questions: direct questions of the held-out images, at most.
        reasoned: questions answered with a description and reasoning, at most.
        every: also during training, every so many optimizer steps, on a quarter of the questions; None only before and after.
        max_new_tokens: longest answer in tokens.
        batch_size: prompts generated together.
        checkpoint_every: optimizer steps between two checkpoints.
        guidance: how far the token values of ILQL bend what is generated, at least 0 (arXiv:2206.11871).
    """

    questions: int = 400
    reasoned: int = 100
    every: int | None = None
    max_new_tokens: int = 192
    batch_size: int = 64
    checkpoint_every: int = 100
    guidance: float = 0.0

    def __post_init__(self) -> None:
        if self.questions + self.reasoned < 1:
            raise ValueError("evaluation.questions and evaluation.reasoned are both 0: there is nothing to compare")
        if self.every is not None and self.every < 1:
            raise ValueError(f"evaluation.every is {self.every}; it must be at least 1, or null")
        if self.guidance < 0:
            raise ValueError(f"evaluation.guidance is {self.guidance}; it must be at least 0, and 0 for no guidance")


def choose(questions: Sequence[Asked], evaluation: Evaluation, seed: int = 0) -> list[Asked]:
    """The evaluation questions: so many direct and reasoned ones, drawn evenly over the images."""
    chosen: list[Asked] = []
    for style, count in (("direct", evaluation.questions), ("reasoned", evaluation.reasoned)):
        own = [asked for asked in questions if asked[1].style == style]
        order = np.random.default_rng(seed).permutation(len(own))[:count]
        chosen += [own[index] for index in sorted(order)]
    return chosen


def answer(backbone: Answerer, asked: Sequence[Asked], evaluation: Evaluation) -> list[str]:
    """The backbone's greedy answers, one a question."""
    encoder = Encoder(backbone.processor)
    direct = [index for index, (_, question) in enumerate(asked) if question.style == "direct"]
    reasoned = [index for index, (_, question) in enumerate(asked) if question.style != "direct"]
    answers = [""] * len(asked)
    # Apart, because a batch runs until its longest answer is done.
    for group, longest in ((direct, min(32, evaluation.max_new_tokens)), (reasoned, evaluation.max_new_tokens)):
        prompts = [encoder.prompt(asked[index][0], asked[index][1]) for index in group]
        texts = backbone.generate(prompts, max_new_tokens=longest, batch_size=evaluation.batch_size)
        for index, text in zip(group, texts, strict=True):
            answers[index] = text
    return answers


def by_family(asked: Sequence[Asked]) -> list[Question]:
    """The questions with their family as kind: forms of one relation together, direct and reasoned answers apart."""
    return [replace(question, kind=family(question.kind, question.style)) for _, question in asked]


def family(kind: str, style: str) -> str:
    """What a question's kind and style are reported as; see :func:`by_family`."""
    relation = kind.removesuffix("_choice").removesuffix("_classify")
    return relation if style == "direct" else f"{style}: {relation}"


@dataclass(frozen=True, slots=True)
class Answered:
    """Answers to the evaluation questions.

    Attributes:
        answers: raw texts, or the final answers of games.
        rollouts: the games, where tools were played with.
    """

    answers: list[str]
    summary: Summary
    rollouts: Rollouts | None = None

    def metrics(self, prefix: str = "") -> dict[str, float]:
        """Flat figures for a logger."""
        played = self.rollouts.metrics(f"{prefix}game/") if self.rollouts is not None else {}
        return self.summary.metrics(prefix) | played


def evaluate(
    backbone: Answerer, asked: Sequence[Asked], evaluation: Evaluation, arena: Arena | None = None
) -> Answered:
    """Answers and their scores; with an arena the questions are games with tools, without one each is answered at once."""
    if arena is None:
        answers, rollouts = answer(backbone, asked, evaluation), None
    else:
        rollouts = roll_out(
            backbone,
            arena,
            [question.id for _, question in asked],
            max_new_tokens=evaluation.max_new_tokens,
            batch_size=evaluation.batch_size,
        )
        answers = rollouts.answers
    return Answered(answers, summarise(by_family(asked), [said(text) for text in answers]), rollouts)


def said(text: str) -> str:
    """What a text answers: a final step says it in its own field, other texts as they are."""
    try:
        return read_action(text).answer or text
    except StepError:
        return text


def write_samples(run: Path, asked: Sequence[Asked], columns: Mapping[str, Answered]) -> None:
    """Keep every answer of a run, by column, in ``samples.jsonl``; games with all that was played."""
    games = {name: own.rollouts.transcripts() for name, own in columns.items() if own.rollouts is not None}
    rows = []
    for index, (images, question) in enumerate(asked):
        row: dict[str, Any] = {
            "id": question.id,
            "kind": question.kind,
            "style": question.style,
            "question": question.text,
            "answer": question.answer,
            "options": list(question.options),
            "value": question.value,
            "images": [str(path) for path in images],
            "answers": {name: own.answers[index] for name, own in columns.items()},
            "correct": {name: own.summary.scores[index].correct for name, own in columns.items()},
            "parsed": {name: own.summary.scores[index].parsed for name, own in columns.items()},
        }
        if any(own.summary.scores[index].rule for own in columns.values()):
            row["rules"] = {name: own.summary.scores[index].rule for name, own in columns.items()}
        if games:
            row["games"] = {name: transcripts[index] for name, transcripts in games.items()}
        rows.append(row)
    write_text(run / "samples.jsonl", "".join(map(json_line, rows)))


class AnswerDuringTraining(L.Callback):
    """Logs accuracy on a part of the evaluation questions every few steps."""

    def __init__(
        self,
        asked: Sequence[Asked],
        evaluation: Evaluation,
        record: Callable[[dict[str, float]], None],
        arena: Arena | None = None,
    ) -> None:
        self.asked = [*asked[::4]]
        # Another prefix than at the start and the end, whose figures are about all questions.
        self.evaluation, self.record, self.arena = evaluation, record, arena

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_args: Any) -> None:
        """Answer when it is time."""
        every = self.evaluation.every
        if every and trainer.global_step % every == 0 and trainer.global_step != trainer.max_steps:
            answered = evaluate(answerer(pl_module, self.evaluation.guidance), self.asked, self.evaluation, self.arena)
            self.record(answered.metrics("eval_part/"))
