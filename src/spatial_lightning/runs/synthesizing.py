"""Preference pairs from a policy's own responses: drawn, scored on the exact scene, the best against the worst."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import lightning as L
from omegaconf import DictConfig

from spatial_lightning.records import (
    BadRows,
    ImageQuestions,
    PreferencePair,
    RecordError,
    Response,
    read_records,
    write_records,
)
from spatial_lightning.runs.answering import Asked
from spatial_lightning.runs.build import build
from spatial_lightning.runs.config import ConfigError, resolve_path
from spatial_lightning.runs.corpora import Corpus, prepare, scenes_of
from spatial_lightning.runs.corpus_files import CorpusFiles
from spatial_lightning.runs.directory import git_sha, json_line, write_config, write_summary, write_text
from spatial_lightning.runs.evaluated import Evaluated, load_evaluated
from spatial_lightning.runs.generating import AnswerBatch, answer_all, by_transformers, require_askable
from spatial_lightning.runs.predictions import PREDICTIONS, Journal
from spatial_lightning.runs.progress import clock
from spatial_lightning.runs.unfinished import claim, leave
from spatial_lightning.synthesis.facts import SceneFacts, measure
from spatial_lightning.synthesis.grammar import parse_response
from spatial_lightning.synthesis.ranking import best_against_worst, total
from spatial_lightning.synthesis.rewards import concludes_right, scored_response

RESPONSES = "responses.jsonl"


@dataclass
class _Made:
    """What came out of the questions of a split.

    Attributes:
        rewards, right: of all responses, and whether their final answers are right.
        chosen, rejected: whether the final answers of those in pairs are right.
        kinds: number of pairs by kind of question.
    """

    questions: int = 0
    rewards: list[float] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    chosen: list[bool] = field(default_factory=list)
    rejected: list[bool] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)

    def summary(self) -> dict[str, Any]:
        pairs = self.kinds.total()
        return {
            "questions": self.questions,
            "pairs": pairs,
            "no_pair": self.questions - pairs,
            "mean_reward": fmean(self.rewards),
            "right": fmean(self.right),
            "chosen_right": fmean(self.chosen),
            "rejected_right": fmean(self.rejected),
            "kinds": dict(self.kinds),
        }


def synthesize(
    config: DictConfig,
    fresh: Path,
    say: Callable[[str], None],
    *,
    claimed: Callable[[Path], None] = lambda run: None,
) -> Path:
    """Write a folder of preference pairs that ``data=preferences data.scenes=records data.root=FOLDER`` trains on.

    Every question of the configured pairs is answered several times by the policy, the geometric judge scores each
    response against the exact scene, and the best is preferred to the worst; questions whose responses are all equally
    good give no pair (arXiv:2506.21656 App. D, with one generator, the policy itself). All responses are kept.

    Args:
        fresh: directory of new pairs; left out where unfinished ones go on.
        claimed: told the directory as soon as it is known, so that an error after that is written there.

    Returns:
        The folder.

    Raises:
        ConfigError: no policy, or a corpus without scenes.
        RecordError: no question gave a pair.
    """
    began = time.monotonic()
    corpus = _checked(config)
    L.seed_everything(config.seed, workers=True, verbose=False)
    files = prepare(corpus, resolve_path(config.cache), say=say)
    evaluated = load_evaluated(config)
    pairs = {"train": _pairs(files.train), "val": _spread(_pairs(files.val), config.data.module.val_examples)}
    asked = {split: [_question(pair) for pair in chosen] for split, chosen in pairs.items()}
    drawn = [_numbered(pair, n) for split in asked.values() for pair in split for n in range(config.responses)]
    require_askable(drawn, evaluated)
    run = claim(config, fresh, _identity(config, files, evaluated), say)
    claimed(run)
    try:
        write_config(run, config)
        (run / "error.txt").unlink(missing_ok=True)
        answers = answer_all(
            drawn, Journal(run / PREDICTIONS), _answerer(config, evaluated, say), batch_size=config.batch_size, say=say
        )
        texts = iter(answers)
        scenes = _scenes(corpus, resolve_path(config.cache), say)
        made: dict[str, _Made] = {}
        rows: list[dict[str, Any]] = []
        for split, questions in asked.items():
            responses = [[next(texts) for _ in range(config.responses)] for _ in questions]
            made[split] = _write_pairs(run / f"{split}.jsonl", questions, responses, scenes, rows)
        _copy_questions(files, run)
        write_text(run / RESPONSES, "".join(map(json_line, rows)))
        wall = time.monotonic() - began
        summary = {split: result.summary() for split, result in made.items()}
        policy = evaluated.checkpoint or evaluated.backbone.path
        facts = {"policy": str(policy), "git_sha": git_sha(), "wall_s": wall}
        write_summary(run, {**facts, **summary, "command": shlex.join(["python", *sys.argv])})
        say(_said(made["train"], wall))
        say(f"train on them: data=preferences data.scenes=records data.root={run}")
    finally:
        leave()
    return run


def _checked(config: DictConfig) -> Corpus:
    """The corpus, once everything that can be known beforehand is known to fit."""
    if config.checkpoint is None and config.backbone is None:
        raise ConfigError("no policy: give checkpoint=RUN, or backbone=NAME for a backbone as it comes")
    if config.responses < 2:
        raise ConfigError(f"responses is {config.responses}; a pair needs at least 2")
    if not config.temperature > 0:
        raise ConfigError(f"temperature is {config.temperature}; it must be above 0, or all responses are the same")
    if config.max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens is {config.max_new_tokens}; it must be at least 1")
    corpus = build(config.data.corpus)
    if not isinstance(corpus, Corpus) or corpus.kind != "preferences" or corpus.scenes == "records":
        raise ConfigError(
            "responses are scored against scenes whose geometry is known: data=preferences with data.scenes=procedural or clevr"
        )
    return corpus


def _pairs(source: Any) -> list[PreferencePair]:
    bad = BadRows()
    found = list(read_records(source, PreferencePair, bad))
    bad.check()
    return found


def _spread(pairs: Sequence[PreferencePair], most: int) -> list[PreferencePair]:
    """At most so many pairs, evenly spaced: as many as validation looks at."""
    count = min(most, len(pairs))
    return [pairs[index * len(pairs) // count] for index in range(count)]


def _question(pair: PreferencePair) -> Asked:
    return pair.images, replace(pair.question, id=pair.id)


def _numbered(asked: Asked, n: int) -> Asked:
    images, question = asked
    return images, replace(question, id=f"{question.id}/{n}")


def _identity(config: DictConfig, files: CorpusFiles, evaluated: Evaluated) -> dict[str, Any]:
    """What the pairs depend on."""
    processor = evaluated.backbone.processor
    return {
        "corpus": files.digest(),
        "weights": evaluated.backbone.fingerprint(),
        "pixel_limits": list(processor.pixel_limits or ()) or None,
        "system": evaluated.system,
        **{key: config[key] for key in ("responses", "temperature", "max_new_tokens", "seed", "batch_size")},
        "val_examples": config.data.module.val_examples,
    }


def _answerer(config: DictConfig, evaluated: Evaluated, say: Callable[[str], None]) -> AnswerBatch:
    return by_transformers(
        evaluated,
        max_new_tokens=config.max_new_tokens,
        share=config.share,
        device=config.device,
        say=say,
        temperature=config.temperature,
        seed=config.seed,
    )


def _scenes(corpus: Corpus, cache: Path, say: Callable[[str], None]) -> dict[Path, SceneFacts]:
    """What can be measured in each scene, by its picture."""
    train, val, _ = scenes_of(corpus, cache, say=say)
    return {scene.image.resolve(): measure(scene) for scene in (*train, *val)}


def _write_pairs(
    path: Path,
    asked: Sequence[Asked],
    responses: Sequence[Sequence[str]],
    scenes: Mapping[Path, SceneFacts],
    rows: list[dict[str, Any]],
) -> _Made:
    """Write the pairs of a split, and add every response with its rewards to ``rows``."""
    made = _Made()

    def found() -> Iterator[PreferencePair]:
        for (images, question), texts in zip(asked, responses, strict=True):
            facts = scenes[images[0].resolve()]
            scored = {text: scored_response(text, question, facts) for text in texts if text.strip()}
            right = {text: concludes_right(parse_response(text), question) for text in texts}
            rewards = {text: total(scored[text]) if text in scored else 0.0 for text in texts}
            pair = best_against_worst(question.id, _beside(path, images), question, list(scored.values()))
            made.questions += 1
            made.rewards += [rewards[text] for text in texts]
            made.right += [right[text] for text in texts]
            given = [
                {"text": text, "reward": rewards[text], "right": right[text], **_rewards(scored.get(text))}
                for text in texts
            ]
            rows.append({"id": question.id, "question": question.text, "responses": given, "pair": pair is not None})
            if pair is not None:
                made.kinds[question.kind] += 1
                made.chosen.append(right[pair.chosen.text])
                made.rejected.append(right[pair.rejected.text])
                yield pair

    write_records(path, found())
    if not made.kinds:
        raise RecordError(
            f"none of the {made.questions} questions of {path.name} has responses that differ in reward: raise the "
            "temperature or the number of responses, or take a policy that has learned the format"
        )
    return made


def _rewards(response: Response | None) -> dict[str, Any]:
    return {segment.name: dict(segment.rewards or {}) for segment in (response.segments if response else ())}


def _copy_questions(files: CorpusFiles, run: Path) -> None:
    """The questions of the corpus, so that the folder is a whole one."""
    for name in ("train_questions", "val_questions"):
        bad, path = BadRows(), run / f"{name}.jsonl"
        records = read_records(getattr(files, name), ImageQuestions, bad)
        write_records(path, (replace(record, images=_beside(path, record.images)) for record in records))
        bad.check()


def _beside(path: Path, images: tuple[Path, ...]) -> tuple[Path, ...]:
    """Copies of pictures beside a file of records, so that the folder can be moved and the cache emptied."""
    copies = tuple(path.parent / "images" / image.parent.name / image.name for image in images)
    for image, copy in zip(images, copies, strict=True):
        if not copy.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            part = copy.with_name(copy.name + ".part")
            shutil.copyfile(image, part)
            part.replace(copy)
    return copies


def _said(made: _Made, wall: float) -> str:
    figures = made.summary()
    right, chosen, rejected = (100 * figures[key] for key in ("right", "chosen_right", "rejected_right"))
    return (
        f"{figures['pairs']} pairs from {figures['questions']} questions, the responses to {figures['no_pair']} being equally "
        f"good; right answers: {right:.1f} % of all responses, {chosen:.1f} % of the chosen, {rejected:.1f} % of the rejected; "
        f"mean reward {figures['mean_reward']:.2f} of 16; {clock(wall)} in all"
    )
