"""Records to token trees: what is shared, what branches, what is trained, and which segment a token belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
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
    Trace,
)
from spatial_lightning.tree import NO_SEGMENT, ImageFeatures, Node, Prompt, TokenTree, continue_positions

SegmentContext = Literal["single_pass", "independent"]


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
        tree = _Builder(self, record.id, record.images)
        tree.add_text(-1, tree.frame.prefix, images=tree.images)
        for branch, question in enumerate(chosen):
            self._check(question.text, question.answer)
            asked, _ = self.processor.tokenize(question.text + tree.frame.question_end)
            answer, _ = self.processor.tokenize(tree.frame.answer_start + question.answer + tree.frame.answer_end)
            trained = torch.cat([torch.zeros_like(asked), torch.ones_like(answer)]).bool()
            tree.add(0, torch.cat([asked, answer]), trained, branch=branch)
        return tree.build()

    def pair(self, record: PreferencePair) -> TokenTree:
        """Branch 0 is the chosen response, branch 1 the rejected one; ``reward_gap`` is NaN where rewards are missing."""
        self._check(record.question.text, record.chosen.text, record.rejected.text)
        tree = _Builder(self, record.id, record.images)
        tree.add_prompt(record.question)
        for branch, response in enumerate((record.chosen, record.rejected)):
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
        """Steps hang off one another, tool output between them as context; rejected attempts hang off the step they precede.

        Every accepted step and every rejected attempt is a branch of its own, counted in the order of the tree.
        """
        texts = [text for step in record.steps for text in (step.text, *(text for text, _ in step.rejected))]
        self._check(record.question.text, *texts)
        tree = _Builder(self, record.id, record.images)
        parent = tree.add_prompt(record.question)
        branch = 0
        for step in record.steps:
            here = parent
            for attempt, text in enumerate((step.text, *(text for text, _ in step.rejected))):
                ids, _ = self.processor.tokenize(tree.frame.answer_start + text + tree.frame.answer_end)
                node = tree.add(here, ids, torch.ones_like(ids).bool(), branch=branch)
                parent = node if attempt == 0 else parent
                branch += 1
            if step.observation or step.images:
                self._check(step.observation)
                images = tuple(self.processor.image(path) for path in step.images)
                text = self.processor.next_turn(len(images)) + step.observation + tree.frame.question_end
                parent = tree.add_text(parent, text, images=images)
        return tree.build()

    def prompt(self, images: Sequence[Path], question: Question) -> Prompt:
        """The tokens up to the answer, for generation: exactly the context that training puts before an answer."""
        self._check(question.text)
        tree = _Builder(self, question.id, images)
        tree.add_prompt(question)
        return Prompt(tree.nodes[0].ids, tree.images)

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

    def __init__(self, encoder: Encoder, identity: str, images: Sequence[Path]) -> None:
        self.processor = encoder.processor
        self.id = identity
        self.images = tuple(self.processor.image(path) for path in images)
        self.frame = self.processor.frame(len(self.images), encoder.system)
        self.nodes: list[Node] = []
        self.values: dict[str, Tensor] = {}

    def add_prompt(self, question: Question) -> int:
        """Append the root of a one-question tree, cut where questions that share a prefix are cut."""
        prefix, _ = self.processor.tokenize(self.frame.prefix, self.images)
        rest, _ = self.processor.tokenize(question.text + self.frame.question_end)
        ids = torch.cat([prefix, rest])
        return self.add(-1, ids, torch.zeros_like(ids).bool(), images=self.images)

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
