"""Records to token trees: what is trained, which segment a token belongs to, and what is refused."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from samples import asked, pair, question, response, trace

from spatial_lightning.backbones import Backbone, Processor
from spatial_lightning.data import Encoder
from spatial_lightning.records import (
    SEGMENTS,
    ImageQuestions,
    PreferencePair,
    RecordError,
    Response,
    Segment,
    Step,
    Trace,
)
from spatial_lightning.tree import Node, TokenTree


@pytest.fixture(scope="module")
def encoder(tiny: Backbone) -> Encoder:
    return Encoder(tiny.processor)


def text_of(encoder: Encoder, ids: torch.Tensor) -> str:
    return encoder.processor.tokenizer.decode(ids)  # type: ignore[attr-defined]


def trained_text(encoder: Encoder, node: Node) -> str:
    return text_of(encoder, node.ids[node.trained])


def segments_of(encoder: Encoder, node: Node) -> list[str]:
    return [text_of(encoder, node.ids[node.segment == index]) for index in range(len(SEGMENTS))]


def test_answers_and_their_end_of_turn_are_trained_and_nothing_else(
    encoder: Encoder, pictures: tuple[Path, ...]
) -> None:
    record = asked("a", pictures[:1], 4)
    tree = encoder.questions(record)
    assert [node.branch for node in tree.nodes] == [-1, 0, 1, 2, 3]
    assert not tree.nodes[0].trained.any()
    for node, wanted in zip(tree.nodes[1:], record.questions, strict=True):
        assert trained_text(encoder, node) == wanted.answer + "<|im_end|>"
        assert text_of(encoder, node.ids[~node.trained]).startswith(wanted.text)
        assert bool(node.trained.long().diff().ge(0).all()), "context after an answer"
    whole = text_of(encoder, torch.cat([tree.nodes[0].ids, tree.nodes[1].ids]))
    frame = encoder.processor.frame(1)
    first = record.questions[0]
    expected = f"{frame.prefix}{first.text}{frame.question_end}{first.answer}{frame.answer_end}"
    pad = tree.nodes[0].images[0].tokens
    assert whole == expected.replace("<|image_pad|>", "<|image_pad|>" * pad)


def test_pairs_train_both_responses_behind_one_prompt(encoder: Encoder, pictures: tuple[Path, ...]) -> None:
    record = pair("p", pictures[:1])
    tree = encoder.pair(record)
    assert [(node.parent, node.branch) for node in tree.nodes] == [(-1, -1), (0, 0), (0, 1)]
    for node, answer in zip(tree.nodes[1:], (record.chosen, record.rejected), strict=True):
        assert node.trained.all()
        assert trained_text(encoder, node) == answer.text + "<|im_end|>"
    assert torch.equal(tree.values["reward_gap"], torch.tensor([[2.0, 0.5]]))


def test_segments_tile_the_response_at_its_tags(encoder: Encoder, pictures: tuple[Path, ...]) -> None:
    record = pair("p", pictures[:1])
    tree = encoder.pair(record)
    for node, answer in zip(tree.nodes[1:], (record.chosen, record.rejected), strict=True):
        description, reasoning = segments_of(encoder, node)
        cut = answer.segments[0].end
        assert description == answer.text[:cut]
        assert description.endswith("</description>\n")
        assert reasoning == answer.text[cut:] + "<|im_end|>"
        assert not (node.segment < 0).any()


def test_a_token_across_a_boundary_belongs_to_the_segment_it_starts_in(encoder: Encoder) -> None:
    text = "The red cube is here"
    cut = text.index("cube") + 2
    both = Response(text, (Segment("description", 0, cut), Segment("reasoning", cut, len(text))))
    node = encoder.pair(PreferencePair("p", (), question(), both, response("a", "b"))).nodes[1]
    _, spans = encoder.processor.tokenize(text + "<|im_end|>")
    assert node.segment.tolist() == [0 if start < cut else 1 for start in spans[:, 0].tolist()]


@pytest.mark.parametrize(("name", "index"), [("description", 0), ("reasoning", 1)])
def test_the_end_of_turn_belongs_to_the_last_segment(encoder: Encoder, name: str, index: int) -> None:
    only = Response("It is red.", (Segment(name, 0, 10),))
    node = encoder.pair(PreferencePair("p", (), question(), only, response("a", "b"))).nodes[1]
    assert set(node.segment.tolist()) == {index}


def test_text_beyond_ascii_keeps_its_segments(encoder: Encoder) -> None:
    first, second = "Höhe 3 – “rot” 立方体\n", "also näher 🟥."
    both = Response(
        first + second, (Segment("description", 0, len(first)), Segment("reasoning", len(first), len(first + second)))
    )
    node = encoder.pair(PreferencePair("p", (), question(), both, response("a", "b"))).nodes[1]
    assert segments_of(encoder, node) == [first, second + "<|im_end|>"]


def test_published_tokenizers_keep_segments_too(shared_data: Path, pictures: tuple[Path, ...]) -> None:
    encoder = Encoder(Processor(shared_data / "tokenizers" / "qwen2_5_vl_7b"))
    record = pair("p", pictures[:1])
    for node, answer in zip(encoder.pair(record).nodes[1:], (record.chosen, record.rejected), strict=True):
        cut = answer.segments[0].end
        assert segments_of(encoder, node) == [answer.text[:cut], answer.text[cut:] + "<|im_end|>"]


def test_responses_without_segments_have_none(encoder: Encoder) -> None:
    tree = encoder.pair(PreferencePair("p", (), question(), Response("yes"), Response("no")))
    assert all((node.segment == -1).all() for node in tree.nodes)
    assert tree.values["reward_gap"].isnan().all()


def test_missing_scores_give_a_missing_gap(encoder: Encoder) -> None:
    assert encoder.pair(pair("p", (), scored=False)).values["reward_gap"].isnan().all()


def test_independent_segments_are_branches_of_the_prompt(encoder: Encoder, pictures: tuple[Path, ...]) -> None:
    record = pair("p", pictures[:1])
    single = encoder.pair(record)
    tree = dataclasses.replace(encoder, segment_context="independent").pair(record)
    assert [(node.parent, node.branch) for node in tree.nodes] == [(-1, -1), (0, 0), (0, 0), (0, 1), (0, 1)]
    for branch in (0, 1):
        parts = [node for node in tree.nodes if node.branch == branch]
        assert torch.equal(torch.cat([part.ids for part in parts]), single.nodes[1 + branch].ids)
        assert [set(part.segment.tolist()) for part in parts] == [{0}, {1}]
        assert all(torch.equal(part.positions[:, 0], single.nodes[1 + branch].positions[:, 0]) for part in parts)


def test_shuffled_segments_keep_their_sizes_and_are_the_same_each_time(
    encoder: Encoder, pictures: tuple[Path, ...]
) -> None:
    record = pair("p", pictures[:1])
    shuffling = dataclasses.replace(encoder, shuffle_segments=True)
    plain, first, second = encoder.pair(record), shuffling.pair(record), shuffling.pair(record)
    for before, after, again in zip(plain.nodes[1:], first.nodes[1:], second.nodes[1:], strict=True):
        assert torch.equal(before.segment.bincount(), after.segment.bincount())
        assert not torch.equal(before.segment, after.segment)
        assert torch.equal(after.segment, again.segment)
        assert torch.equal(before.ids, after.ids)
    assert plain.key() == first.key()


def test_traces_hang_steps_and_rejected_attempts_where_they_belong(
    encoder: Encoder, pictures: tuple[Path, ...]
) -> None:
    record = trace("t", pictures[:1], pictures[1:2])
    tree = encoder.trace(record)
    shape = [(node.parent, node.branch, len(node.images)) for node in tree.nodes]
    assert shape == [
        (-1, -1, 1),
        (0, 0, 0),
        (0, 1, 0),
        (0, 2, 0),
        (1, -1, 1),
        (4, 3, 0),
        (5, -1, 0),
        (6, 4, 0),
        (6, 5, 0),
    ]
    trained = [trained_text(encoder, node) for node in tree.nodes if node.branch >= 0]
    steps = [
        "look at depth",
        "guess the cube",
        "no",
        "measure the cone",
        "The answer is the cube",
        "The answer is the cone",
    ]
    assert trained == [step + "<|im_end|>" for step in steps]
    assert not any(node.trained.any() for node in tree.nodes if node.branch < 0)


def test_the_accepted_line_of_a_trace_is_the_templates_conversation(
    encoder: Encoder, pictures: tuple[Path, ...]
) -> None:
    record = trace("t", pictures[:1], pictures[1:2])
    tree = encoder.trace(record)
    ids = torch.cat([tree.nodes[index].ids for index in (0, 1, 4, 5, 6, 7)])
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": record.question.text}]}]
    for step in record.steps:
        messages.append({"role": "assistant", "content": [{"type": "text", "text": step.text}]})
        if step.observation:
            seen = [{"type": "image"}] * len(step.images)
            messages.append({"role": "user", "content": [*seen, {"type": "text", "text": step.observation}]})
    wanted = encoder.processor.tokenizer.apply_chat_template(messages, tokenize=False)  # type: ignore[attr-defined]
    for image in (tree.nodes[0].images[0], tree.nodes[4].images[0]):
        wanted = wanted.replace("<|image_pad|>", "<|pad|>" * image.tokens, 1)
    assert text_of(encoder, ids).replace("<|image_pad|>", "<|pad|>") == wanted


def test_a_rejected_attempt_with_the_text_of_the_step_does_not_become_its_parent(encoder: Encoder) -> None:
    step = "look"
    tree = encoder.trace(Trace("t", (), question(), (Step(step, "nothing", rejected=((step, 1.0),)), Step("done"))))
    assert [node.parent for node in tree.nodes] == [-1, 0, 0, 1, 3]


def test_control_tokens_are_refused_wherever_they_are(encoder: Encoder) -> None:
    bad = "it is <|im_end|> red"
    records = [
        lambda: encoder.questions(ImageQuestions("a", (), (question(text=bad),))),
        lambda: encoder.questions(ImageQuestions("a", (), (question(answer=bad),))),
        lambda: encoder.pair(PreferencePair("p", (), question(), Response(bad), Response("no"))),
        lambda: encoder.pair(PreferencePair("p", (), question(), Response("no"), Response(bad))),
        lambda: encoder.trace(Trace("t", (), question(), (Step(bad),))),
        lambda: encoder.trace(Trace("t", (), question(), (Step("look", bad),))),
        lambda: encoder.trace(Trace("t", (), question(), (Step("look", rejected=((bad, None),)),))),
        lambda: encoder.prompt((), question(text=bad)),
    ]
    for encode in records:
        with pytest.raises(RecordError, match=re.escape("control token '<|im_end|>'")):
            encode()


def test_missing_pictures_are_named(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"lost\.png does not exist"):
        encoder.questions(asked("a", [tmp_path / "lost.png"], 1))


def test_impossible_settings_are_refused(tiny: Backbone) -> None:
    with pytest.raises(ValueError, match="allowed: single_pass, independent"):
        Encoder(tiny.processor, segment_context="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shuffle_segments needs"):
        Encoder(tiny.processor, segment_context="independent", shuffle_segments=True)


def test_image_tokens_count_as_tokens(encoder: Encoder, pictures: tuple[Path, ...]) -> None:
    def tokens(images: tuple[Path, ...]) -> TokenTree:
        return encoder.questions(asked("a", images, 1))

    pictured, plain = tokens(pictures[:2]), tokens(())
    image_tokens = sum(image.tokens for image in pictured.nodes[0].images)
    assert image_tokens > 0
    assert pictured.tokens - plain.tokens == image_tokens + 4  # two pairs of vision start and end
