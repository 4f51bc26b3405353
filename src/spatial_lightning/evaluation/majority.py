"""The best answer that ignores the image, learned on training questions: what a model has to beat."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from spatial_lightning.evaluation.forms import General
from spatial_lightning.evaluation.protocol import Protocol
from spatial_lightning.evaluation.scoring import true_option
from spatial_lightning.evaluation.summary import Summary, summarise
from spatial_lightning.records import Question

Options = frozenset[str]
_COMMON = 0.05
"""Share of a kind's closed questions that have a set of options, from which on it is answered by itself."""


def majority_baseline(
    train_questions: Sequence[Question], eval_questions: Sequence[Question], protocol: Protocol | None = None
) -> Summary:
    """What answering without looking scores on ``eval_questions``; see :func:`majority_answers`."""
    return summarise(eval_questions, majority_answers(train_questions, eval_questions, protocol), protocol)


def majority_answers(
    train_questions: Sequence[Question], eval_questions: Sequence[Question], protocol: Protocol | None = None
) -> list[str]:
    """The best constant answer of each question kind, learned on the training questions only.

    Closed questions: the option text, or the position among the options, that is most often right (the position where
    the options are names that change from question to question), apart for each set of options that is common in the kind,
    such as yes and no beside left and right. Lengths: the constant that lies within the protocol's
    band (50 to 200 %) of the most training values. Others: the most frequent answer. A kind without training questions
    gets no answer.

    Raises:
        ValueError: a closed training or evaluation question whose answer is none of its options.
    """
    common = _common_options(train_questions)
    seen: dict[tuple[str, str, Options], list[Question]] = defaultdict(list)
    for question in train_questions:
        seen[question.kind, _form(question), _options(question, common)].append(question)
    band = (protocol or General()).band
    constants = {key: _constant(key[1], questions, band) for key, questions in seen.items()}
    answers = []
    for question in eval_questions:
        constant = constants.get((question.kind, _form(question), _options(question, common)), "")
        if isinstance(constant, int):
            constant = question.options[constant] if constant < len(question.options) else ""
        answers.append(constant)
    return answers


def _common_options(questions: Sequence[Question]) -> set[tuple[str, Options]]:
    """Kinds with the sets of options that at least a twentieth of their closed questions have."""
    sets = Counter((question.kind, frozenset(question.options)) for question in questions if question.options)
    closed = Counter(question.kind for question in questions if question.options)
    return {(kind, options) for (kind, options), count in sets.items() if count >= max(2, _COMMON * closed[kind])}


def _options(question: Question, common: set[tuple[str, Options]]) -> Options:
    options = frozenset(question.options)
    return options if (question.kind, options) in common else frozenset()


def _is_length(question: Question) -> bool:
    return not question.options and question.value is not None


def _form(question: Question) -> str:
    return "closed" if question.options else "length" if _is_length(question) else "open"


def _constant(form: str, questions: Sequence[Question], band: tuple[float, float]) -> str | int:
    if form == "length":
        return _best_length(questions, band)
    return _best_option(questions) if form == "closed" else _best_text(questions)


def _best_option(questions: Sequence[Question]) -> str | int:
    truths = [true_option(question) for question in questions]
    texts = Counter(question.options[truth] for question, truth in zip(questions, truths, strict=True))
    (text, right_texts), (position, right_positions) = texts.most_common(1)[0], Counter(truths).most_common(1)[0]
    return text if right_texts >= right_positions else position


def _best_length(questions: Sequence[Question], band: tuple[float, float]) -> str:
    """The constant within ``band`` of the most values: the middle of the fullest window as wide as the band, in octaves."""
    low, high = (math.log2(end) for end in band)
    values = [question.value for question in questions if question.value is not None]
    octaves = np.sort(np.log2([value for value in values if value > 0]))
    if 2 * len(octaves) < len(values):
        return "0 meters"
    ends = np.searchsorted(octaves, octaves + (high - low), side="right")
    start = int(np.argmax(ends - np.arange(len(octaves))))
    return f"{2 ** ((octaves[start] + high + octaves[ends[start] - 1] + low) / 2):.6f} meters"


def _best_text(questions: Sequence[Question]) -> str:
    return Counter(question.answer for question in questions).most_common(1)[0][0]
