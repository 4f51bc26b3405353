"""What stands before the question: system turns of records, earlier turns, and conversations without pictures."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from samples import asked, pair, trace

from spatial_lightning.backbones import Backbone, Processor
from spatial_lightning.data import Encoder
from spatial_lightning.records import RecordError
from spatial_lightning.tree import TokenTree, pack

HISTORY = (("What is red?", "The cube."), ("What is blue?", "The cone."))


@pytest.fixture(scope="module")
def encoder(tiny: Backbone) -> Encoder:
    return Encoder(tiny.processor)


def templated(processor: Any, turns: list[tuple[str, str]], images: int, system: str = "") -> str:
    """The conversation as the model's own chat template writes it."""
    messages: list[dict[str, Any]] = (
        [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
    )
    for index, (user, answer) in enumerate(turns):
        seen = [{"type": "image"}] * images if index == 0 else []
        messages.append({"role": "user", "content": [*seen, {"type": "text", "text": user}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return processor.tokenizer.apply_chat_template(messages, tokenize=False)


def path_text(encoder: Encoder, tree: TokenTree, *nodes: int) -> str:
    """Text along a path with each picture's tokens folded to one placeholder."""
    processor: Any = encoder.processor
    text = processor.tokenizer.decode(torch.cat([tree.nodes[node].ids for node in nodes]))
    return re.sub(f"(?:{re.escape(processor.image_token)})+", processor.placeholder, text)


@pytest.mark.parametrize("images", [0, 1, 2])
def test_system_and_earlier_turns_stand_where_the_template_puts_them(
    encoder: Encoder, pictures: tuple[Path, ...], images: int
) -> None:
    record = dataclasses.replace(pair("p", pictures[:images]), system="Be exact.", history=HISTORY)
    tree = encoder.pair(record)
    for branch, answer in enumerate((record.chosen, record.rejected)):
        turns = [*HISTORY, (record.question.text, answer.text)]
        wanted = templated(encoder.processor, turns, images, "Be exact.")
        assert path_text(encoder, tree, 0, 1 + branch) == wanted.removesuffix("\n")
    assert not tree.nodes[0].trained.any()
    assert len(tree.nodes[0].images) == images


def test_the_tokens_are_those_of_the_whole_conversation(encoder: Encoder, pictures: tuple[Path, ...]) -> None:
    record = dataclasses.replace(pair("p", pictures[:1]), system="Be exact.", history=HISTORY)
    tree = encoder.pair(record)
    text = templated(encoder.processor, [*HISTORY, (record.question.text, record.chosen.text)], 1, "Be exact.")
    whole, _ = encoder.processor.tokenize(text.removesuffix("\n"), tree.nodes[0].images)
    assert torch.equal(torch.cat([tree.nodes[0].ids, tree.nodes[1].ids]), whole)


def test_published_templates_take_system_and_history_too(shared_data: Path, pictures: tuple[Path, ...]) -> None:
    encoder = Encoder(Processor(shared_data / "tokenizers" / "qwen2_5_vl_7b"))
    record = dataclasses.replace(pair("p", pictures[:1]), system="Be exact.", history=HISTORY)
    wanted = templated(encoder.processor, [*HISTORY, (record.question.text, record.chosen.text)], 1, "Be exact.")
    assert path_text(encoder, encoder.pair(record), 0, 1) == wanted.removesuffix("\n")


def test_the_system_turn_of_a_record_wins_over_that_of_the_run(encoder: Encoder, pictures: tuple[Path, ...]) -> None:
    strict = dataclasses.replace(encoder, system="Be brief.")
    for encode in (
        lambda e, system: e.questions(dataclasses.replace(asked("a", pictures[:1], 2), system=system)),
        lambda e, system: e.pair(dataclasses.replace(pair("p", pictures[:1]), system=system)),
        lambda e, system: e.trace(dataclasses.replace(trace("t", pictures[:1], pictures[1:2]), system=system)),
    ):
        own, run = encode(strict, "Be exact."), encode(strict, "")
        assert "Be exact." in path_text(strict, own, 0)
        assert "Be brief." in path_text(strict, run, 0)
        assert own.key() != run.key()
        assert own.key() == encode(dataclasses.replace(encoder, system="Be exact."), "").key()


def test_generation_continues_what_training_saw(encoder: Encoder, pictures: tuple[Path, ...]) -> None:
    record = dataclasses.replace(pair("p", pictures[:1]), system="Be exact.", history=HISTORY)
    prompt = encoder.prompt(record.images, record.question, system=record.system, history=record.history)
    assert torch.equal(prompt.ids, encoder.pair(record).nodes[0].ids)


def test_conversations_without_pictures_give_a_loss(tiny: Backbone, encoder: Encoder) -> None:
    trees = [encoder.pair(dataclasses.replace(pair("p", ()), history=HISTORY)), encoder.pair(pair("q", ()))]
    row = pack(trees)
    assert not row.images
    logps = tiny.logps(row)
    alone = torch.cat([tiny.logps(pack([tree])) for tree in trees])
    torch.testing.assert_close(logps, alone, rtol=1e-4, atol=1e-5)


def test_control_tokens_in_system_or_history_are_refused(encoder: Encoder) -> None:
    bad = "it is <|im_end|> red"
    for record in (
        dataclasses.replace(pair("p", ()), system=bad),
        dataclasses.replace(pair("p", ()), history=((bad, "yes"),)),
        dataclasses.replace(pair("p", ()), history=(("why?", bad),)),
    ):
        with pytest.raises(RecordError, match="control token"):
            encoder.pair(record)


def test_a_template_that_drops_the_system_turn_is_no_silent_loss(shared_data: Path) -> None:
    processor = Processor(shared_data / "tokenizers" / "qwen2_5_vl_7b")
    processor.tokenizer.chat_template = (
        "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n{% for p in m.content %}"
        "{% if p.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ p.text }}{% endif %}"
        "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    with pytest.raises(RecordError, match="leaves out the record's system turn"):
        Encoder(processor).questions(dataclasses.replace(asked("a", (), 1), system="Be exact."))
    assert Encoder(processor).questions(asked("a", (), 1)).trained_tokens


def test_frames_of_many_system_turns_stay_bounded(shared_data: Path) -> None:
    processor = Processor(shared_data / "tokenizers" / "qwen2_5_vl_7b")
    first = processor.frame(0, "system 0")
    for number in range(1100):
        processor.frame(0, f"system {number}")
    assert len(processor._frames) <= 1024
    assert processor.frame(0, "system 0") == first


def test_questions_of_a_record_keep_their_answers_with_a_system_turn(encoder: Encoder) -> None:
    record = dataclasses.replace(asked("a", (), 2), system="Be exact.")
    wanted = [templated(encoder.processor, [(q.text, q.answer)], 0, "Be exact.") for q in record.questions]
    tree = encoder.questions(record)
    assert [path_text(encoder, tree, 0, 1 + index) for index in range(2)] == [t.removesuffix("\n") for t in wanted]
