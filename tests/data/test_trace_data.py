"""The DataModule of traces: grouping by question, what is left out on request, and the records that baselines are fitted on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from samples import question, trace

from spatial_lightning.backbones import Backbone
from spatial_lightning.data import TraceDataModule
from spatial_lightning.records import Question, RecordError, Step, Trace, write_records
from spatial_lightning.steps import Action, read_action

Make = Callable[..., TraceDataModule]


def traces_of(identity: str, images: tuple[Path, ...], count: int) -> list[Trace]:
    asked = Question(identity, f"Which is taller in {identity}?", "cube", "taller")
    return [
        Trace(
            f"{identity}/{number}",
            images,
            asked,
            (Step("look", "it is red " * number or "red", (), 5.0, (("guess", 2.0),)), Step("the cube", rating=9.0)),
            correct=number % 2 == 0,
        )
        for number in range(count)
    ]


@pytest.fixture
def make(tiny: Backbone, pictures: tuple[Path, ...], tmp_path: Path) -> Make:
    """A module over five questions with four traces each, those of two questions mixed up in the file."""

    def module(train: list[Trace] | None = None, **options: Any) -> TraceDataModule:
        if train is None:
            groups = [traces_of(f"q{i}", pictures[i % 2 : i % 2 + 1], 4) for i in range(5)]
            train = [trace for row in zip(*groups[:2], strict=True) for trace in row]
            train += [trace for group in groups[2:] for trace in group]
        write_records(tmp_path / "train.jsonl", train)
        write_records(tmp_path / "val.jsonl", traces_of("v", pictures[:1], 2))
        options = {"batch_size": 2, **options}
        data = TraceDataModule(tiny.processor, train=tmp_path / "train.jsonl", val=tmp_path / "val.jsonl", **options)
        data.setup("fit")
        return data

    return module


def groups_of(data: TraceDataModule) -> list[list[str]]:
    return [[trace.id for trace in group] for group in data.records["train"]]


def all_of(data: TraceDataModule) -> list[str]:
    return sorted(identity for group in groups_of(data) for identity in group)


def test_traces_of_a_question_make_one_tree_wherever_they_are_in_the_file(make: Make) -> None:
    data = make()
    assert groups_of(data) == [[f"q{q}/{n}" for n in range(4)] for q in range(5)]
    assert data.training_examples == 5
    for group in data.records["train"]:
        tree = data.tree(group, epoch=0)
        assert tree is not None
        assert tree.values["trace"].unique().tolist() == [0, 1, 2, 3]
        assert sum(len(node.images) for node in tree.nodes) == 1


@pytest.mark.parametrize(("most", "sizes"), [(1, [1] * 4), (3, [3, 1]), (9, [4])])
def test_trees_hold_as_many_traces_as_they_may(make: Make, most: int, sizes: list[int]) -> None:
    data = make(traces_per_tree=most)
    assert list(map(len, groups_of(data))) == sizes * 5
    assert all_of(data) == all_of(make())
    with pytest.raises(ValueError, match="must be at least 1"):
        make(traces_per_tree=0)


def test_rejected_attempts_can_be_left_out(make: Make) -> None:
    whole, without = make(), make(include_rejected=False)
    for one, other in zip(whole.records["train"], without.records["train"], strict=True):
        large, small = whole.tree(one, epoch=0), without.tree(other, epoch=0)
        assert large is not None
        assert small is not None
        assert small.tokens < large.tokens
        assert small.values["accepted"].all()
        assert int(large.values["accepted"].sum()) == small.branches
        assert torch.equal(large.values["rating"][large.values["accepted"]], small.values["rating"])


def test_answers_only_trains_the_true_answer_right_behind_the_question(make: Make) -> None:
    data = make(answers_only=True)
    assert data.training_examples == 5
    for group in data.records["train"]:
        tree = data.tree(group, epoch=0)
        assert tree is not None
        assert [node.parent for node in tree.nodes] == [-1, 0]
        text = data.encoder.processor.tokenizer.decode(tree.nodes[1].ids)  # type: ignore[attr-defined]
        assert read_action(text.removesuffix("<|im_end|>")) == Action(answer="cube")
        assert tree.values["correct"].tolist() == [1.0]


def test_trace_records_are_all_that_is_trained_on(make: Make) -> None:
    assert sorted(record.id for record in make().trace_records("train")) == all_of(make())
    assert not any(step.rejected for t in make(include_rejected=False).trace_records("train") for step in t.steps)
    assert [len(record.steps) for record in make(answers_only=True).trace_records("val")] == [1]


def test_loaders_pack_groups_and_count_what_is_lost_once(make: Make, pictures: tuple[Path, ...]) -> None:
    (step,) = list(make().val_dataloader())
    assert [identity for row in step for identity in row.tree_ids] == ["v"]
    trained = [name for batch in make().train_dataloader() for row in batch for name in row.tree_ids]
    assert sorted(trained) == [f"q{i}" for i in range(5)]
    long = [*traces_of("long", pictures[:1], 9), *traces_of("short", pictures[:1], 1)]
    trees = [data.encode(group, epoch=0) for data in [make(long)] for group in data.records["train"]]
    data = make(long, token_budget=trees[0].tokens - 1)
    for _ in range(2):
        assert [name for batch in data.train_dataloader() for row in batch for name in row.tree_ids] == ["short/0"]
    assert dict(data.dropped) == {"longer than the token budget": 1}


def test_lengths_of_groups_are_estimated_with_the_pictures_of_tools(make: Make, pictures: tuple[Path, ...]) -> None:
    group = [dataclasses.replace(trace(f"t{n}", pictures[:1], pictures[1:]), question=question("t")) for n in range(2)]
    data = make([*group, *traces_of("q", pictures[:1], 3)])
    for index, records in enumerate(data.records["train"]):
        tree = data.tree(records, epoch=0)
        assert tree is not None
        assert data.length(index, 0) == pytest.approx(tree.tokens, rel=0.25)


def test_each_question_is_asked_once(make: Make) -> None:
    assert [asked.id for _, asked in make(traces_per_tree=1).questions("train")] == [f"q{i}" for i in range(5)]


def test_fingerprints_follow_grouping_and_what_is_left_of_the_traces(make: Make) -> None:
    prints = [make(**options).fingerprint() for options in ({}, {"traces_per_tree": 2}, {"include_rejected": False})]
    prints.append(make(answers_only=True).fingerprint())
    assert len(set(prints)) == 4
    assert make().fingerprint() == prints[0]


def test_reference_rows_hold_every_tree_that_training_meets(make: Make) -> None:
    data = make(traces_per_tree=2)
    keys = {key for row in data.reference_rows() for key in row.tree_keys}
    data.pack_keys = True
    met = {k for batch in [*data.train_dataloader(), *data.val_dataloader()] for row in batch for k in row.tree_keys}
    assert keys == met


def test_a_bad_step_names_its_group(make: Make, pictures: tuple[Path, ...]) -> None:
    bad = Trace("bad/0", pictures[:1], question("bad"), (Step("say <|im_end|>"),))
    data = make([*traces_of("q", pictures[:1], 1), bad], max_bad_fraction=0.5)
    assert sum(len(step) for step in data.train_dataloader()) == 1
    assert dict(data.dropped) == {"cannot be encoded": 1}
    with pytest.raises(RecordError, match=r"record bad/0: .*control token"):
        list(make([*traces_of("q", pictures[:1], 1), bad]).train_dataloader())
