"""Records to token trees: what is shared, what branches, what is trained, and which segment a token belongs to."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from spatial_lightning.records import (
    SEGMENTS,
    ImageQuestions,
    PreferencePair,
    Question,
    RecordError,
    Response,
    Step,
    Trace,
)
from spatial_lightning.tree import NO_SEGMENT, ImageFeatures, Node, Prompt, TokenTree, continue_positions

SegmentContext = Literal["single_pass", "independent"]

_BranchValues = tuple[int, float, bool, int, float, int, bool]
_COLUMNS = ("step", "rating", "accepted", "next", "correct", "trace", "final")
_STEP_BREAK = "\n"


class TextAndImages(Protocol):
    """What encoding needs of a backbone's processor."""

    def frame(self, images: int, system: str | None = None) -> Any: ...
    def next_turn(self, images: int) -> str: ...
    def tokenize(self, text: str, images: Sequence[ImageFeatures] = ()) -> tuple[Tensor, Tensor]: ...
    def image(self, path: Path) -> ImageFeatures: ...
    def image_tokens(self, height: int, width: int) -> int: ...
    def positions(self, ids: Tensor, images: Sequence[ImageFeatures]) -> Tensor: ...
    def check_text(self, text: str) -> None: ...


@dataclass(frozen=True)
class Encoder:
    """Turns records into token trees by one model's processor.

    Attributes:
        system: system turn; None keeps what the chat template writes by itself.
        segment_context: ``single_pass`` conditions the reasoning on its own description; ``independent`` makes each segment
            a branch of its own behind the prompt (the paper's log pi(R_reason | T), arXiv:2506.21656).
        shuffle_segments: control experiment: assign the tokens of a response to its segments at random, keeping how many
            each has.

    Raises:
        ValueError: shuffled segments without the single-pass context.
    """

    processor: TextAndImages
    system: str | None = None
    segment_context: SegmentContext = "single_pass"
    shuffle_segments: bool = False

    def __post_init__(self) -> None:
        if self.segment_context not in ("single_pass", "independent"):
            raise ValueError(f"segment_context is {self.segment_context!r}; allowed: single_pass, independent")
        if self.shuffle_segments and self.segment_context == "independent":
            raise ValueError(
                "shuffle_segments needs segment_context=single_pass: independent segments are separate branches"
            )

    def questions(self, record: ImageQuestions, questions: Sequence[Question] | None = None) -> TokenTree:
        """One branch per question behind the shared images; answers and their end-of-turn are trained."""
        chosen = record.questions if questions is None else questions
        tree = _Builder(self, record.id, record.images, record.system)
        tree.add_text(-1, tree.frame.prefix, images=tree.images)
        for branch, question in enumerate(chosen):
            self._check(question.text, question.answer)
            asked, _ = self.processor.tokenize(question.text + tree.frame.question_end)
            answer, _ = self.processor.tokenize(tree.frame.answer_start + question.answer + tree.frame.answer_end)
            trained = torch.cat([torch.zeros_like(asked), torch.ones_like(answer)]).bool()
            tree.add(0, torch.cat([asked, answer]), trained, branch=branch)
        return tree.build()

    def pair(self, record: PreferencePair, *, chosen_only: bool = False) -> TokenTree:
        """Branch 0 is the chosen response, branch 1 the rejected one; ``reward_gap`` is NaN where rewards are missing.

        Args:
            chosen_only: leave out the rejected response.
        """
        self._check(record.question.text, record.chosen.text, record.rejected.text)
        tree = _Builder(self, record.id, record.images, record.system, record.history)
        tree.add_prompt(record.question)
        for branch, response in enumerate((record.chosen, record.rejected)[: 1 if chosen_only else 2]):
            ids, segment = self._response(record.id, response, tree.frame)
            if self.segment_context == "single_pass" or not response.segments:
                tree.add(0, ids, torch.ones_like(ids).bool(), segment=segment, branch=branch)
                continue
            for index in range(len(SEGMENTS)):
                own = segment == index
                if bool(own.any()):
                    tree.add(0, ids[own], torch.ones_like(ids[own]).bool(), segment=segment[own], branch=branch)
        gap = record.reward_gap
        tree.values["reward_gap"] = torch.tensor([[float("nan")] * 2 if gap is None else list(gap)])
        return tree.build()

    def trace(self, record: Trace) -> TokenTree:
        """The tree of a single trajectory; see :meth:`traces`."""
        return self.traces([record])

    def traces(self, records: Sequence[Trace]) -> TokenTree:
        """Trajectories that answer one question, each a chain of its own behind the images and the question they share.

        Every accepted step and every rejected attempt is a branch, counted in the order of the tree: a step, then the
        attempts at it, which hang off the step before. Tool output is context; behind the last step it is left out. Steps
        without tool output between them make up one assistant turn, a line each.

        ``values`` has one row a branch: ``step`` (its number in the trace), ``rating`` (1 to 10, NaN where nobody rated
        it), ``accepted``, ``next`` (how many branches further on the step that follows an accepted step is; 0 where none
        does), ``correct`` (of its trace; NaN where unknown), ``trace`` (its number in the tree) and ``final`` (whether it is
        the accepted last step of its trace).

        Raises:
            RecordError: no trace, or traces of different questions.
        """
        if not records:
            raise RecordError("there is no trace to encode")
        first = records[0]
        identity = first.id if len(records) == 1 else first.question.id
        tree = _Builder(self, identity, first.images, first.system)
        self._check(first.question.text)
        prompt = tree.add_prompt(first.question)
        rows: list[_BranchValues] = []
        for number, record in enumerate(records):
            if (record.images, record.question.text, record.system) != (
                first.images,
                first.question.text,
                first.system,
            ):
                raise RecordError(
                    f"traces {first.id} and {record.id} do not answer the same question about the same images"
                )
            correct = math.nan if record.correct is None else float(record.correct)
            rows += self._chain(tree, prompt, record.steps, number, correct)
        tree.values |= {
            name: torch.tensor(column) for name, column in zip(_COLUMNS, zip(*rows, strict=True), strict=True)
        }
        return tree.build()

    def step_prompt(
        self, images: Sequence[Path], question: Question, steps: Sequence[Step], *, system: str = ""
    ) -> Prompt:
        """The tokens up to the step that follows ``steps``: exactly the context that training puts before it."""
        self._check(question.text)
        tree = _Builder(self, question.id, images, system)
        line = [*(replace(step, rejected=()) for step in steps), Step("next")]
        self._chain(tree, tree.add_prompt(question), line, 0, math.nan)
        context = tree.nodes[:-1]
        pictures = tuple(image for node in context for image in node.images)
        return Prompt(torch.cat([node.ids for node in context]), pictures)

    def _chain(
        self, tree: _Builder, parent: int, steps: Sequence[Step], trace: int, correct: float
    ) -> list[_BranchValues]:
        """Append the steps of a trajectory with the attempts at each; returns the values of its branches."""
        rows: list[_BranchValues] = []
        first_branch = tree.branches
        opens = True
        for index, step in enumerate(steps):
            here, last = parent, index == len(steps) - 1
            observed = bool(step.observation or step.images)
            start = tree.frame.answer_start if opens else ""
            end = tree.frame.answer_end if observed or last else _STEP_BREAK
            for attempt, (text, rating) in enumerate(((step.text, step.rating), *step.rejected)):
                self._check(text)
                ids, _ = self.processor.tokenize(start + text + end)
                node = tree.add(here, ids, torch.ones_like(ids).bool(), branch=first_branch + len(rows))
                accepted = attempt == 0
                parent = node if accepted else parent
                follows = 1 + len(step.rejected) if accepted and not last else 0
                rated = math.nan if rating is None else float(rating)
                rows.append((index, rated, accepted, follows, correct, trace, accepted and last))
            self._check(step.observation)
            if observed and not last:
                images = tuple(self.processor.image(path) for path in step.images)
                text = self.processor.next_turn(len(images)) + step.observation + tree.frame.question_end
                parent = tree.add_text(parent, text, images=images)
            opens = observed
        return rows

    def prompt(
        self, images: Sequence[Path], question: Question, *, system: str = "", history: Sequence[tuple[str, str]] = ()
    ) -> Prompt:
        """The tokens up to the answer, for generation: exactly the context that training puts before an answer."""
        return self.prompts(images, [question], system=system, history=history)[0]

    def prompts(
        self,
        images: Sequence[Path],
        questions: Sequence[Question],
        *,
        system: str = "",
        history: Sequence[tuple[str, str]] = (),
    ) -> list[Prompt]:
        """As :meth:`prompt`, for several questions about the same images, which are decoded once."""
        self._check(*(question.text for question in questions))
        tree = _Builder(self, questions[0].id, images, system, history)
        return [Prompt(tree.nodes[tree.add_prompt(question)].ids, tree.images) for question in questions]

    def _check(self, *texts: str) -> None:
        for text in texts:
            self.processor.check_text(text)

    def _response(self, identity: str, response: Response, frame: Any) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
        """Ids of a response with its end-of-turn, and the segment of each token by where its text starts."""
        ids, spans = self.processor.tokenize(frame.answer_start + response.text + frame.answer_end)
        # A token belongs where its text starts; blanks before the response are part of its first token.
        starts = (spans[:, 0] - len(frame.answer_start)).clamp(min=0)
        segment = torch.full_like(ids, NO_SEGMENT)
        for part in response.segments:
            segment[(starts >= part.start) & (starts < part.end)] = SEGMENTS.index(part.name)
        if response.segments:
            segment[starts >= len(response.text)] = SEGMENTS.index(response.segments[-1].name)
        if self.shuffle_segments:
            seed = int.from_bytes(hashlib.blake2b(identity.encode() + response.text.encode(), digest_size=7).digest())
            segment = segment[torch.randperm(ids.numel(), generator=torch.Generator().manual_seed(seed))]
        return ids, segment


class _Builder:
    """A tree while it grows: appends nodes and continues positions along the path."""

    def __init__(
        self,
        encoder: Encoder,
        identity: str,
        images: Sequence[Path],
        system: str = "",
        history: Sequence[tuple[str, str]] = (),
    ) -> None:
        encoder._check(system, *(turn for turns in history for turn in turns))
        self.processor = encoder.processor
        self.id = identity
        self.images = tuple(self.processor.image(path) for path in images)
        self.frame = self.processor.frame(len(self.images), system or encoder.system)
        if system.strip() not in self.frame.prefix:
            raise RecordError(f"{identity}: the model's chat template leaves out the record's system turn")
        if history:
            self.frame = replace(self.frame, prefix=self.frame.prefix + self._turns(history))
        self.nodes: list[Node] = []
        self.branches = 0
        self.values: dict[str, Tensor] = {}

    def add_prompt(self, question: Question) -> int:
        """Append the root of a one-question tree, cut where questions that share a prefix are cut."""
        prefix, _ = self.processor.tokenize(self.frame.prefix, self.images)
        rest, _ = self.processor.tokenize(question.text + self.frame.question_end)
        ids = torch.cat([prefix, rest])
        return self.add(-1, ids, torch.zeros_like(ids).bool(), images=self.images)

    def _turns(self, history: Sequence[tuple[str, str]]) -> str:
        """Earlier turns as the chat template writes them, up to where the next user turn begins."""
        frame, turn = self.frame, self.processor.next_turn(0)
        return "".join(
            user + frame.question_end + frame.answer_start + answer + frame.answer_end + turn
            for user, answer in history
        )

    def add_text(self, parent: int, text: str, *, images: tuple[ImageFeatures, ...]) -> int:
        """Append context that may contain image placeholders."""
        ids, _ = self.processor.tokenize(text, images)
        return self.add(parent, ids, torch.zeros_like(ids).bool(), images=images)

    def add(
        self,
        parent: int,
        ids: Int[Tensor, " n"],
        trained: Bool[Tensor, " n"],
        *,
        segment: Int[Tensor, " n"] | None = None,
        branch: int = -1,
        images: tuple[ImageFeatures, ...] = (),
    ) -> int:
        """Append a node and return its index."""
        path = self._path(parent)
        if images or not path:
            before = torch.cat([*(node.ids for node in path), ids])
            pictures = [image for node in path for image in node.images] + list(images)
            positions = self.processor.positions(before, pictures)[:, -ids.numel() :]
        else:
            positions = continue_positions(torch.cat([node.positions for node in path], dim=1), ids.numel())
        if segment is None:
            segment = torch.full_like(ids, NO_SEGMENT)
        self.branches = max(self.branches, branch + 1)
        self.nodes.append(Node(parent, ids, positions.contiguous(), trained, segment, branch, images))
        return len(self.nodes) - 1

    def build(self) -> TokenTree:
        """The finished tree."""
        if not any(bool(node.trained.any()) for node in self.nodes):
            raise RecordError(f"{self.id}: no token of the response is trained")
        return TokenTree(self.id, tuple(self.nodes), self.values)

    def _path(self, node: int) -> list[Node]:
        path = []
        while node >= 0:
            path.append(self.nodes[node])
            node = self.nodes[node].parent
        return path[::-1]
