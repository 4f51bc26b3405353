"""The architecture of the embedded backbone: a Qwen2-VL of under two million parameters with its own small tokenizer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2VLConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_PATCH, _MERGE = 8, 2
_THETA, _SECTIONS = 100.0, [1, 4, 11]
"""Rotary base and how many frequencies time, row and column take, the fastest first. A picture is seven tokens across: at
the usual base of 10,000 and equal thirds its last column would differ from its first by a fiftieth of a radian."""
_DEVIATION = 0.08
"""Of random weights: about one over the root of the width. At the usual 0.02 attention starts out uniform."""


def write_skeleton(folder: Path, texts: Iterable[str], *, vocabulary: int = 600, pixels: int = 112 * 112) -> None:
    """Write tokenizer, chat template, image processor and config of the embedded backbone; weights come from training.

    Args:
        folder: the Hugging Face model directory to write.
        texts: what the tokenizer's merges are learned on.
        vocabulary: largest number of tokens, control tokens included.
        pixels: area in pixels that larger images are reduced to.
    """
    tokenizer = _train_tokenizer(texts, vocabulary)
    ids: dict[str, Any] = {token: tokenizer.convert_tokens_to_ids(token) for token in _SPECIAL}
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "initializer_range": _DEVIATION,
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "rope_theta": _THETA, "mrope_section": _SECTIONS},
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 3,
            "embed_dim": 96,
            "hidden_size": 128,
            "num_heads": 6,
            "initializer_range": _DEVIATION,
            "mlp_ratio": 4,
            "patch_size": _PATCH,
            "spatial_merge_size": _MERGE,
            "temporal_patch_size": 2,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
        architectures=["Qwen2VLForConditionalGeneration"],
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    config.save_pretrained(folder)
    Qwen2VLImageProcessorPil(
        size={"shortest_edge": (_PATCH * _MERGE) ** 2, "longest_edge": pixels}, patch_size=_PATCH, merge_size=_MERGE
    ).save_pretrained(folder)


def _train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which every digit is a token of its own, so that numbers are written alike everywhere."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                Regex(r"</?[a-z]+>|\s?\d|[%:.,?=()]+|\s?[^\s\d<>/%:.,?=()]+|[\s<>/]"), behavior="isolated"
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[t for t in _SPECIAL if t not in ("<|im_end|>", "<|endoftext|>")],
    )
    fast.chat_template = _TEMPLATE
    return fast
