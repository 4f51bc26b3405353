"""Traces of one question as one tree: values per branch, turns as the chat template writes them, prompts as trained."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from samples import paths, question, relative, stock_logps, targets_of, trace

from spatial_lightning.backbones import Backbone
from spatial_lightning.data import Encoder
from spatial_lightning.records import RecordError, Step, Trace
from spatial_lightning.tree import TokenTree, pack


@pytest.fixture(scope="module")
def encoder(tiny: Backbone) -> Encoder:
    return Encoder(tiny.processor)


def other(pictures: tuple[Path, ...]) -> Trace:
    """Another trajectory for the question of :func:`samples.trace`: two steps in one turn, nobody rated or judged it."""
    steps = (Step("think"), Step("answer", rejected=(("stop", 3.0),)))
    return Trace("u", pictures[:1], trace("t", (), ()).question, steps)


def path_ids(tree: TokenTree, nodes: list[int]) -> torch.Tensor:
    return torch.cat([tree.nodes[node].ids for node in nodes])


def test_values_say_what_each_branch_is(encoder: Encoder, pictures: tuple[Path, ...]) -> None:
    first = dataclasses.replace(trace("t", pictures[:1], pictures[1:2]), correct=True)
    tree = encoder.traces([first, other(pictures)])
    nan = math.nan
    wanted = {
        "step": [0, 0, 0, 1, 2, 2, 0, 1, 1],
        "rating": [5.0, 2.0, nan, nan, nan, 1.0, nan, nan, 3.0],
        "accepted": [True, False, False, True, True, False, True, True, False],
        "next": [3, 0, 0, 1, 0, 0, 1, 0, 0],
        "correct": [1.0] * 6 + [nan] * 3,
        "trace": [0] * 6 + [1] * 3,
        "final": [False] * 4 + [True, False, False, True, False],
    }
    wanted["rating"][3] = first.steps[1].rating if first.steps[1].rating is not None else nan
    wanted["rating"][4] = first.steps[2].rating if first.steps[2].rating is not None else nan
    assert tree.branches == 9
    assert set(tree.values) == set(wanted)
    for name, column in wanted.items():
        assert torch.equal(tree.values[name].nan_to_num(-1), torch.tensor(column).nan_to_num(-1)), name
        assert tree.values[name].dtype == torch.tensor(column).dtype
    assert tree.id == "t"
    assert [node.parent for node in tree.nodes if node.branch in (6, 7, 8)] == [0, 9, 9]


def test_one_trace_is_the_tree_of_a_group_of_one(encoder: Encoder, pictures: tuple[Path, ...]) -> None:
    record = trace("t", pictures[:1], pictures[1:2])
    one, group = encoder.trace(record), encoder.traces([record])
    assert (one.id, one.key()) == (group.id, group.key())


def test_next_still_points_at_the_next_step_after_packing(encoder: Encoder, pictures: tuple[Path, ...]) -> None:
    trees = [encoder.trace(trace("t", pictures[:1], pictures[1:2])), encoder.traces([other(pictures)] * 2)]
    row = pack(trees)
    values = row.values
    for branch in range(row.branches):
        follows = branch + int(values["next"][branch])
        if follows == branch:
            assert not values["accepted"][branch] or values["final"][branch]
        else:
            assert values["accepted"][follows]
            assert values["step"][follows] == values["step"][branch] + 1
            assert values["trace"][follows] == values["trace"][branch]


def test_trajectories_do_not_see_each_other(
    encoder: Encoder, tiny: Backbone, separate: Backbone, pictures: tuple[Path, ...]
) -> None:
    """A group in one row gives each trace the log-probabilities of a conversation of its own."""
    records = [trace("t", pictures[:1], pictures[1:2]), other(pictures)]
    both = encoder.traces(records)
    with torch.no_grad():
        together = tiny.logps(pack([both]))
        apart = pack([encoder.trace(record) for record in records])
        assert relative(together, tiny.logps(apart)) < 1e-5
        assert relative(together, stock_logps(separate, [both])) < 1e-4
        assert set(targets_of(apart, tiny.logps(apart))) == {"t", "u"}


def test_steps_without_observation_between_them_are_one_turn(encoder: Encoder, pictures: tuple[Path, ...]) -> None:
    steps = (Step("first"), Step("second", "seen", pictures[1:2]), Step("third"), Step("last"))
    record = Trace("t", pictures[:1], question(text="Why?"), steps)
    tree = encoder.trace(record)
    ids = torch.cat([node.ids for node in tree.nodes])
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Why?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "first\nsecond"}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "seen"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "third\nlast"}]},
    ]
    tokenizer = encoder.processor.tokenizer  # type: ignore[attr-defined]
    wanted = tokenizer.apply_chat_template(messages, tokenize=False)
    for node in (tree.nodes[0], next(node for node in tree.nodes[1:] if node.images)):
        wanted = wanted.replace("<|image_pad|>", "<|pad|>" * node.images[0].tokens, 1)
    assert tokenizer.decode(ids).replace("<|image_pad|>", "<|pad|>") == wanted


def test_what_comes_back_after_the_last_step_is_left_out(encoder: Encoder) -> None:
    tree = encoder.trace(Trace("t", (), question(), (Step("done", "well done"),)))
    assert len(tree.nodes) == 2


def test_groups_must_be_about_one_question(encoder: Encoder, pictures: tuple[Path, ...]) -> None:
    one = other(pictures)
    for different in (
        dataclasses.replace(one, id="v", images=pictures[1:2]),
        dataclasses.replace(one, id="v", question=question("q", "Another?")),
        dataclasses.replace(one, id="v", system="Be brief."),
    ):
        with pytest.raises(RecordError, match="traces u and v do not answer the same question"):
            encoder.traces([one, different])
    with pytest.raises(RecordError, match="no trace"):
        encoder.traces([])


WORDS = st.text(alphabet='abc {}":,1.', min_size=1, max_size=12).filter(str.strip)


@given(
    steps=st.lists(
        st.tuples(WORDS, st.one_of(st.just(""), WORDS), st.booleans(), st.booleans()), min_size=1, max_size=4
    ),
    system=st.sampled_from(["", "Use tools."]),
)
def test_prompts_of_steps_are_the_tokens_that_training_puts_before_them(
    encoder: Encoder, pictures: tuple[Path, ...], steps: list[tuple[str, str, bool, bool]], system: str
) -> None:
    line = tuple(
        Step(text, seen, pictures[1:2] if pictured else (), rejected=(("no", 1.0),) if attempted else ())
        for text, seen, pictured, attempted in steps
    )
    record = Trace("t", pictures[:1], question(), line, system=system)
    tree = encoder.trace(record)
    for number in range(len(line)):
        prompt = encoder.step_prompt(record.images, record.question, line[:number], system=system)
        branches = torch.nonzero(tree.values["step"] == number).flatten().tolist()
        for branch in branches:
            node = next(index for index, node in enumerate(tree.nodes) if node.branch == branch)
            path = next(path[: path.index(node)] for path in paths(tree) if node in path)
            assert torch.equal(prompt.ids, path_ids(tree, path))
            images = [image.key for index in path for image in tree.nodes[index].images]
            assert [image.key for image in prompt.images] == images


def test_the_first_prompt_is_that_of_the_question(encoder: Encoder, pictures: tuple[Path, ...]) -> None:
    record = other(pictures)
    prompt = encoder.step_prompt(record.images, record.question, ())
    assert torch.equal(prompt.ids, encoder.prompt(record.images, record.question).ids)
