"""Tool-use traces: one tree a question, one chain of steps a trajectory, rejected attempts beside the steps they preceded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, final, overload

import torch

from spatial_lightning.data.corpora.pictures import Size
from spatial_lightning.data.corpora.store import RecordStore
from spatial_lightning.data.trees import TreeDataModule
from spatial_lightning.records import Question, Step, Trace
from spatial_lightning.steps import Action
from spatial_lightning.tree import TokenTree


@final
class TraceGroup(tuple[Trace, ...]):
    """The traces of one tree: they answer the same question about the same images."""

    __slots__ = ()

    @property
    def id(self) -> str:
        """Id of the first trace."""
        return self[0].id

    @property
    def images(self) -> tuple[Path, ...]:
        """The images that the question is about."""
        return self[0].images

    @property
    def question(self) -> Question:
        """The question."""
        return self[0].question


@final
class TraceGroups(Sequence[TraceGroup]):
    """The groups of a store of traces, read when asked for; only numbers of traces are in memory.

    Attributes:
        groups: numbers of the traces of each group in the store, in its order.
        change: what becomes of each trace that is read.
    """

    def __init__(
        self, store: RecordStore[Trace], groups: Sequence[Sequence[int]], change: Callable[[Trace], Trace]
    ) -> None:
        self.store, self.groups, self.change = store, groups, change

    def __len__(self) -> int:
        return len(self.groups)

    @overload
    def __getitem__(self, index: int) -> TraceGroup: ...
    @overload
    def __getitem__(self, index: slice) -> TraceGroups: ...
    def __getitem__(self, index: int | slice) -> TraceGroup | TraceGroups:
        if isinstance(index, slice):
            return TraceGroups(self.store, self.groups[index], self.change)
        return TraceGroup(self.change(self.store[number]) for number in self.groups[index])

    def sizes(self, index: int) -> list[Size]:
        """Height and width in pixels of each picture of a group, those of the question once."""
        first, *others = self.groups[index]
        shared = len(self.store[first].images)
        return [*self.store.sizes(first), *(size for number in others for size in self.store.sizes(number)[shared:])]

    def find(self, identity: str) -> int | None:
        """Where the group whose first trace has an id is; None where it is not."""
        number = self.store.find(identity)
        return next((index for index, group in enumerate(self.groups) if group[0] == number), None)

    def fingerprint(self) -> str:
        """Content hash of the traces and of how they are grouped."""
        return hashlib.blake2b(f"{self.store.fingerprint()}{self.groups}".encode(), digest_size=16).hexdigest()


@final
class TraceDataModule(TreeDataModule[Any]):
    """Rated traces (arXiv:2511.00054), grouped by question so that images and question are read once.

    A streamed corpus is not grouped: its trees have one trace each.

    Args:
        traces_per_tree: most traces of a question in one tree; None takes all.
        include_rejected: keep the attempts that the verifier turned down. Step-DPO and KTO learn from them, other
            objectives do not.
        answers_only: control experiment: each question once, its one step the true answer without reasoning or tools.
    """

    record_type = Trace

    def __init__(
        self,
        *args: Any,
        traces_per_tree: int | None = None,
        include_rejected: bool = True,
        answers_only: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if traces_per_tree is not None and traces_per_tree < 1:
            raise ValueError(f"data.traces_per_tree is {traces_per_tree}; it must be at least 1, or null for all")
        self.traces_per_tree, self.include_rejected, self.answers_only = traces_per_tree, include_rejected, answers_only

    def setup(self, stage: str | None = None) -> None:
        """See :meth:`TreeDataModule.setup`; each trace is read once to know its question."""
        if self.records:
            return
        super().setup(stage)
        groups = {split: self._grouped(store) for split, store in self.records.items()}
        self.records = groups  # pyright: ignore[reportAttributeAccessIssue]
        self._lost = torch.zeros(sum(map(len, groups.values())), dtype=torch.uint8).share_memory_()

    def encode(self, record: Trace | TraceGroup, *, epoch: int | None) -> TokenTree:
        """See :meth:`TreeDataModule.encode`."""
        return self.encoder.traces(self._traces(record))

    def texts(self, record: Trace | TraceGroup, *, epoch: int | None) -> list[str]:
        """See :meth:`TreeDataModule.texts`: one for each step, with the attempts at it and what came back."""
        steps = [step for trace in self._traces(record) for step in trace.steps]
        first, *others = [
            "".join((step.text, *(text for text, _ in step.rejected), step.observation)) for step in steps
        ]
        return [record.question.text + first, *others]

    def questions(self, split: str) -> list[tuple[tuple[Path, ...], Question]]:
        """See :meth:`TreeDataModule.questions`; each question once, however many traces it has."""
        unique = {group.question.id: (group.images, group.question) for group in self.records[split]}
        return list(unique.values())

    def trace_records(self, split: str) -> Iterator[Trace]:
        """All traces of a split as they are trained on, those of one tree behind one another.

        Raises:
            ValueError: the split is streamed.
        """
        if split not in self.records:
            raise ValueError(
                f"the {split} traces are streamed: what looks at all of them first needs data with an index"
            )
        return (trace for group in self.records[split] for trace in group)

    def fingerprint(self) -> str:
        """See :meth:`TreeDataModule.fingerprint`; what is left of the traces counts too."""
        settings = (self.include_rejected, self.answers_only)
        return hashlib.blake2b(f"{super().fingerprint()}{settings}".encode(), digest_size=16).hexdigest()

    def _traces(self, record: Trace | TraceGroup) -> Sequence[Trace]:
        return record if isinstance(record, TraceGroup) else [self._changed(record)]

    def _grouped(self, store: RecordStore[Trace]) -> TraceGroups:
        """Numbers of the traces of each tree, in the order in which their questions come first."""
        questions: dict[tuple[Any, ...], list[int]] = {}
        for number, trace in enumerate(store):
            key = (trace.question.id, trace.question.text, trace.images, trace.system)
            questions.setdefault(key, []).append(number)
        if self.answers_only:
            return TraceGroups(store, [numbers[:1] for numbers in questions.values()], self._changed)
        size = self.traces_per_tree or max(map(len, questions.values()), default=1)
        cut = [numbers[i : i + size] for numbers in questions.values() for i in range(0, len(numbers), size)]
        return TraceGroups(store, cut, self._changed)

    def _changed(self, trace: Trace) -> Trace:
        if self.answers_only:
            return replace(trace, steps=(Step(Action(answer=trace.question.answer).text()),), correct=True)
        if self.include_rejected:
            return trace
        return replace(trace, steps=tuple(replace(step, rejected=()) for step in trace.steps))
