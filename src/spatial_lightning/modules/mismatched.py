"""Mismatched pairs of state and action, on which KTO measures how far a policy has drifted from its reference."""

from __future__ import annotations

import bisect
import hashlib
import heapq
from collections.abc import Iterable
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor

from spatial_lightning.backbones.processor import Processor
from spatial_lightning.modules.steps import Steps
from spatial_lightning.records import RecordError, Step, Trace
from spatial_lightning.tree import NO_SEGMENT, TreeBatch

POOL = 1024
"""Actions kept for mismatched pairs, drawn from all steps of the corpus."""


@final
class ForeignActions:
    """Actions of many questions, one of which is put behind every accepted step's state of another question.

    Which one depends on the example alone, by hash of its id: neither packing nor the number of ranks changes it, and a
    cache can hold what the reference says of it. (A shift by one within the batch would depend on all three.) The new
    actions branch off the tree as it is, so the row's pictures and prompts are read once for all of them.

    Args:
        traces: the corpus.
        processor: turns text into tokens.
    """

    def __init__(self, traces: Iterable[Trace], processor: Processor) -> None:
        steps = ((trace, step, f"{trace.id}/{place}") for trace in traces for place, step in enumerate(trace.steps))
        drawn = heapq.nsmallest(POOL, steps, key=lambda entry: _number(entry[2]))
        self.actions: list[tuple[Int[Tensor, " question"], Int[Tensor, " action"]]] = []
        for trace, step, _ in drawn:
            try:
                self.actions.append(_tokens(trace, step, processor))
            except RecordError:
                continue  # text that encoding leaves out too

    def row(self, batch: TreeBatch) -> TreeBatch | None:
        """The row with mismatched actions as its only targets; None where no action is foreign to any of its trees."""
        ids, starts = batch.ids.cpu(), batch.node_starts
        steps = Steps.of(batch)
        roots = [node for node, parent in enumerate(batch.node_parents) if parent < 0]
        at = batch.targets[steps.first].tolist()
        questions, numbers = steps.question.tolist(), _within(steps.question.tolist())
        nodes: list[int] = []
        chosen: list[Int[Tensor, " action"]] = []
        trees: list[int] = []
        for branch in steps.accepted.nonzero().flatten().tolist():
            tree, node = questions[branch], bisect.bisect_right(starts, at[branch]) - 1
            if starts[node] != at[branch] or batch.node_parents[node] < 0:
                raise ValueError(f"{batch.tree_ids[tree]}: a step must be a node of its own for mismatched pairs")
            root = roots[tree]
            prompt = ids[starts[root] : starts[root + 1]]
            action = self._choose(f"{batch.tree_ids[tree]}/{numbers[branch]}", prompt)
            if action is not None:
                nodes.append(node)
                chosen.append(action)
                trees.append(tree)
        return _replaced(batch, nodes, chosen, trees) if chosen else None

    def _choose(self, name: str, prompt: Int[Tensor, " prompt"]) -> Int[Tensor, " action"] | None:
        """The first action, from a place that the name gives, whose question is not the one that the prompt ends with."""
        first = _number(name)
        for offset in range(len(self.actions)):
            question, action = self.actions[(first + offset) % len(self.actions)]
            if not torch.equal(prompt[-question.numel() :], question):
                return action
        return None


def _replaced(batch: TreeBatch, nodes: list[int], actions: list[Int[Tensor, " action"]], trees: list[int]) -> TreeBatch:
    """The row with ``actions`` as siblings of ``nodes``, and nothing else trained."""
    device, starts = batch.ids.device, list(batch.node_starts)
    positions, predictors = [batch.positions], []
    for node, action in zip(nodes, actions, strict=True):
        end = starts[-1]
        previous = torch.arange(end - 1, end - 1 + action.numel())
        previous[0] = starts[batch.node_parents[node] + 1] - 1
        predictors.append(previous)
        own = torch.arange(action.numel(), device=device)
        positions.append(batch.positions[:, starts[node] : starts[node] + 1] + own)
        starts.append(end + action.numel())
    lengths = torch.tensor([action.numel() for action in actions])
    present = sorted(set(trees))
    own_actions = {tree: [a for a, other in zip(actions, trees, strict=True) if other == tree] for tree in present}
    branch = torch.arange(len(actions)).repeat_interleave(lengths)
    return TreeBatch(
        ids=torch.cat([batch.ids, torch.cat(actions).to(device)]),
        positions=torch.cat(positions, dim=1),
        node_starts=tuple(starts),
        node_parents=batch.node_parents + tuple(batch.node_parents[node] for node in nodes),
        targets=torch.arange(batch.tokens, starts[-1], device=device),
        predictors=torch.cat(predictors).to(device),
        branch=branch.to(device),
        segment=torch.full_like(branch, NO_SEGMENT).to(device),
        branches=len(actions),
        images=batch.images,
        values={},
        tree_ids=tuple(batch.tree_ids[tree] for tree in present),
        tree_keys=tuple(_key(batch.tree_keys[tree], own_actions[tree]) for tree in present) if batch.tree_keys else (),
        tree_targets=tuple(sum(action.numel() for action in own_actions[tree]) for tree in present),
        image_counts=batch.image_counts + (0,) * len(actions),
        image_rows=batch.image_rows,
    )


def _tokens(trace: Trace, step: Step, processor: Processor) -> tuple[Tensor, Tensor]:
    processor.check_text(trace.question.text)
    processor.check_text(step.text)
    frame = processor.frame(len(trace.images))
    question, _ = processor.tokenize(trace.question.text + frame.question_end)
    action, _ = processor.tokenize(frame.answer_start + step.text + frame.answer_end)
    return question, action


def _key(tree: str, actions: list[Int[Tensor, " action"]]) -> str:
    """Content hash of a tree with foreign actions; their order says where each hangs."""
    digest = hashlib.blake2b(tree.encode(), digest_size=16)
    for action in actions:
        digest.update(f"{action.numel()}".encode() + action.numpy().tobytes())
    return digest.hexdigest()


def _within(trees: list[int]) -> list[int]:
    """Number of each branch within its tree; branches of a tree are neighbours."""
    first: dict[int, int] = {}
    return [branch - first.setdefault(tree, branch) for branch, tree in enumerate(trees)]


def _number(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
