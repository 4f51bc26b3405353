"""Generation: greedy, the same alone and in a batch, behind exactly the context that training used."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from samples import asked, pair, question

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.processor import BackboneError
from spatial_lightning.data import Encoder
from spatial_lightning.tree import Prompt

LENGTH = 6


@pytest.fixture(scope="module")
def prompts(tiny: Backbone, pictures: tuple[Path, ...]) -> list[Prompt]:
    encoder = Encoder(tiny.processor)
    texts = ["How far?", "Which of the red cube and the green sphere is to the left of it?", "Is it near the cone?"]
    images = [pictures[:1], pictures[1:], (), pictures[2:]]
    return [encoder.prompt(paths, question(text=text)) for paths, text in zip(images, [*texts, texts[1]], strict=True)]


@pytest.mark.parametrize("size", [1, 3, 64])
def test_batches_answer_like_single_prompts(
    tiny: Backbone, separate: Backbone, prompts: list[Prompt], size: int
) -> None:
    expected = [_greedy(separate, prompt) for prompt in prompts]
    assert len(set(expected)) == len(prompts)
    for backbone in (tiny, separate):
        assert backbone.generate(prompts, max_new_tokens=LENGTH, batch_size=size) == expected


def test_sampling_defaults_of_a_model_directory_are_left_out(policy: Backbone, prompts: list[Prompt]) -> None:
    expected = policy.generate(prompts, max_new_tokens=LENGTH)
    policy.model.generation_config.update(repetition_penalty=5.0, temperature=1e-6, do_sample=True, top_k=1)
    before = copy.deepcopy(policy.model.generation_config.to_dict())
    assert policy.generate(prompts, max_new_tokens=LENGTH) == expected
    assert policy.model.generation_config.to_dict() == before


def test_answers_end_at_the_end_of_turn(policy: Backbone, prompts: list[Prompt]) -> None:
    """A head that always says the end-of-turn marker leaves an empty answer."""
    end = policy.processor.tokenizer.convert_tokens_to_ids(policy.processor.frame(0).answer_end)
    policy.model.get_output_embeddings().register_forward_hook(
        lambda _module, _inputs, logits: torch.nn.functional.one_hot(torch.tensor(end), logits.shape[-1]).expand_as(
            logits
        )
    )
    assert policy.generate(prompts, max_new_tokens=LENGTH) == [""] * len(prompts)


def test_generation_leaves_the_training_mode_and_the_engine(policy: Backbone, prompts: list[Prompt]) -> None:
    policy.train()
    before = policy.decoder.config._attn_implementation
    policy.generate(prompts[:1], max_new_tokens=1)
    assert policy.training
    assert policy.decoder.config._attn_implementation == before == "token_tree"


def test_training_and_generation_share_the_context(tiny: Backbone, pictures: tuple[Path, ...]) -> None:
    encoder = Encoder(tiny.processor, system="Be brief.")
    record = asked("a", pictures[:2], 3)
    tree = encoder.questions(record)
    for branch, asked_question in enumerate(record.questions):
        node = tree.nodes[1 + branch]
        context = torch.cat([tree.nodes[0].ids, node.ids[~node.trained]])
        prompt = encoder.prompt(record.images, asked_question)
        assert torch.equal(prompt.ids, context)
        assert [image.key for image in prompt.images] == [image.key for image in tree.nodes[0].images]
    preference = pair("p", pictures[:1])
    prompt = encoder.prompt(preference.images, preference.question)
    assert torch.equal(prompt.ids, encoder.pair(preference).nodes[0].ids)


def test_wrong_settings_are_refused(tiny_folder: Path) -> None:
    with pytest.raises(BackboneError, match="engine is 'fast'"):
        Backbone(tiny_folder, engine="fast")  # type: ignore[arg-type]
    with pytest.raises(BackboneError, match="weights is 'none'"):
        Backbone(tiny_folder, weights="none")  # type: ignore[arg-type]
    with pytest.raises(BackboneError, match="cannot load weights"):
        Backbone(tiny_folder)
    with pytest.raises(BackboneError, match="needs backbone.weights=random"):
        Backbone(tiny_folder, overrides={"text_config.hidden_size": 1})
    with pytest.raises(BackboneError, match="has no 'text_config.colour'"):
        Backbone(tiny_folder, weights="random", overrides={"text_config.colour": 1})


def _greedy(backbone: Backbone, prompt: Prompt) -> str:
    """Token by token through the stock forward, the whole sequence each time, without cache or padding."""
    ids = prompt.ids
    names = prompt.images[0].tensors if prompt.images else {}
    images = {name: torch.cat([image.tensors[name] for image in prompt.images]) for name in names}
    end = backbone.processor.tokenizer.eos_token_id
    with torch.no_grad():
        for _ in range(LENGTH):
            kinds = (ids == backbone.processor.image_token_id).int().unsqueeze(0)
            logits = backbone.model(input_ids=ids.unsqueeze(0), mm_token_type_ids=kinds, **images).logits
            ids = torch.cat([ids, logits[0, -1].argmax(keepdim=True)])
            if int(ids[-1]) == end:
                break
    new = ids[prompt.ids.numel() :]
    return backbone.processor.tokenizer.decode(new, skip_special_tokens=True).strip()
