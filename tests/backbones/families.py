"""Shrunken model directories of every family: a tokenizer with its control tokens, its template, processor and config."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samples import TEXTS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import CONFIG_MAPPING, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
_VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_SIGLIP = {**_VISION, "model_type": "siglip_vision_model", "patch_size": 14, "vision_use_head": False}
_SLIDING = {"head_dim": 16, "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}


@dataclass(frozen=True)
class Family:
    """How to write the directory of a family and build its backbone.

    Attributes:
        write: writes the directory, from the shared samples or from nothing; returns its path.
        arguments: of the backbone.
    """

    write: Callable[[Path, Path], Path]
    arguments: Mapping[str, Any] = field(default_factory=dict)


def _text_overrides(**more: Any) -> dict[str, Any]:
    return {f"text_config.{name}": value for name, value in {**_TEXT, **more}.items()}


def _qwen(config: str | None = None, **images: Any) -> Callable[[Path, Path], Path]:
    """The published tokenizer, template and processor with a published config."""

    def write(folder: Path, shared: Path) -> Path:
        shutil.copytree(shared / "tokenizers" / "qwen2_5_vl_7b", folder)
        if config is not None:
            shutil.copy(shared / "model_configs" / config, folder / "config.json")
        _edit(folder / "preprocessor_config.json", **images)
        return folder

    return write


def _smolvlm(model_type: str) -> Callable[[Path, Path], Path]:
    """The published tokenizer and template; tiles of 128 pixels, each four tokens."""

    def write(folder: Path, shared: Path) -> Path:
        shutil.copytree(shared / "tokenizers" / "smolvlm_256m_instruct", folder)
        _edit(folder / "config.json", model_type=model_type)
        _edit(folder / "processor_config.json", image_seq_len=4)
        return folder

    return write


def _edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


_SMOLVLM = {
    "overrides": _text_overrides()
    | {f"vision_config.{name}": value for name, value in _VISION.items()}
    | {"vision_config.image_size": 128},
    "image_settings": {"size": {"longest_edge": 256}, "max_image_size": {"longest_edge": 128}},
}


def _built(
    model_type: str,
    named: Mapping[str, str],
    template: str | None,
    image_processor: Any,
    settings: Mapping[str, Any] | None = None,
    *,
    special: tuple[str, ...] = (),
    **config: Any,
) -> Callable[[Path, Path], Path]:
    """A directory with a tokenizer of its own.

    Args:
        named: control tokens that the tokenizer knows by a name; ``image_token`` among them.
        settings: of ``processor_config.json``.
        special: control tokens without a name.
    """

    def write(folder: Path, _: Path) -> Path:
        tokenizer = _tokenizer(dict(named), special)
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder)
        image = named.get("context_image_token") or named["image_token"]
        ids = {"image_token_id": tokenizer.convert_tokens_to_ids(image)}
        for name, token in (("boi_token_index", "boi_token"), ("eoi_token_index", "eoi_token")):
            if token in named:
                ids[name] = tokenizer.convert_tokens_to_ids(named[token])
        text = {**_TEXT, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **config["text_config"]}
        text |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        CONFIG_MAPPING[model_type](**{**config, **ids, "text_config": text}).save_pretrained(folder)
        image_processor().save_pretrained(folder)
        if settings:
            (folder / "processor_config.json").write_text(json.dumps(settings))
        return folder

    return write


def _tokenizer(named: dict[str, str], special: tuple[str, ...]) -> PreTrainedTokenizerFast:
    control = ["<s>", "</s>", "<pad>", *named.values(), *special]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300 + len(control),
        special_tokens=control,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=list(special),
        model_specific_special_tokens=named,
    )


_LLAVA_IMAGES = "{% for c in m.content %}{% if c.type == 'image' %}<image>\n{% endif %}{% endfor %}"
_LLAVA = (
    "{% for m in messages %}{{ m.role.upper() }}: "
    + _LLAVA_IMAGES
    + "{% for c in m.content %}{% if c.type == 'text' %}"
    "{{ c.text + ' ' }}{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
_ONEVISION = (
    "{% for m in messages %}<|im_start|>{{ m.role }} "
    + _LLAVA_IMAGES.replace("\n", "")
    + "{% for c in m.content %}{% if c.type == 'text' %}{{ '\n' + c.text }}{% endif %}{% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_TURNS = (
    "START{% for m in messages %}OPEN{% for c in m.content %}{% if c.type == 'image' %}IMAGE{% else %}{{ c.text | trim }}"
    "{% endif %}{% endfor %}CLOSE{% endfor %}{% if add_generation_prompt %}ANSWER{% endif %}"
)


def _turns(start: str, opening: str, image: str, closing: str, answer: str) -> str:
    parts = {"START": start, "OPEN": opening, "IMAGE": image, "CLOSE": closing, "ANSWER": answer}
    template = _TURNS
    for name, text in parts.items():
        template = template.replace(name, text)
    return template


FAMILIES: dict[str, Family] = {
    "qwen2_vl": Family(
        _qwen("configs_qwen2_vl_2b.json"),
        {
            "max_pixels": 84 * 84,
            "overrides": _text_overrides(
                layer_types=["full_attention"] * 2,
                rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
            )
            | {f"vision_config.{n}": v for n, v in dict(depth=2, embed_dim=32, num_heads=2, hidden_size=64).items()},
        },
    ),
    "qwen2_5_vl": Family(
        _qwen("configs_qwen2_5_vl_3b.json"),
        {
            "max_pixels": 84 * 84,
            "overrides": _text_overrides(
                layer_types=["full_attention", "sliding_attention"],
                sliding_window=9,
                rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
            )
            | {
                f"vision_config.{n}": v
                for n, v in dict(
                    depth=2,
                    hidden_size=32,
                    num_heads=2,
                    intermediate_size=64,
                    out_hidden_size=64,
                    fullatt_block_indexes=[1],
                ).items()
            },
        },
    ),
    "qwen3_vl": Family(
        _qwen("configs_qwen3_vl_2b.json", patch_size=16, processor_class="Qwen3VLProcessor"),
        {
            "max_pixels": 96 * 96,
            "overrides": _text_overrides(
                head_dim=16,
                rope_parameters={
                    "rope_type": "default",
                    "rope_theta": 5e6,
                    "mrope_section": [4, 2, 2],
                    "mrope_interleaved": True,
                },
            )
            | {
                f"vision_config.{n}": v
                for n, v in dict(
                    depth=2,
                    hidden_size=32,
                    num_heads=2,
                    intermediate_size=64,
                    out_hidden_size=64,
                    num_position_embeddings=64,
                    deepstack_visual_indexes=[0],
                ).items()
            },
        },
    ),
    "idefics3": Family(_smolvlm("idefics3"), _SMOLVLM),
    "smolvlm": Family(_smolvlm("smolvlm"), _SMOLVLM),
    "llava": Family(
        _built(
            "llava",
            {"image_token": "<image>"},
            _LLAVA,
            lambda: CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
            {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
            text_config={"model_type": "llama"},
            vision_config={**_VISION, "model_type": "clip_vision_model", "image_size": 28, "patch_size": 14},
        ),
        {"dead": ["model.vision_tower.encoder.layers.-1", "model.vision_tower.post_layernorm"]},
    ),
    "llava_onevision": Family(
        _built(
            "llava_onevision",
            {"image_token": "<image>", "video_token": "<video>"},
            _ONEVISION,
            lambda: LlavaOnevisionImageProcessorPil(
                size={"height": 28, "width": 28}, image_grid_pinpoints=[[28, 56], [56, 28], [56, 56]]
            ),
            {"num_image_tokens": 4, "vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_9"},
            special=("<|im_start|>", "<|im_end|>"),
            text_config={"model_type": "qwen2"},
            vision_config={**_SIGLIP, "image_size": 28},
            image_grid_pinpoints=[[28, 56], [56, 28], [56, 56]],
        ),
        {"dead": ["model.vision_tower.post_layernorm"]},
    ),
    "internvl": Family(
        _built(
            "internvl",
            {
                "start_image_token": "<img>",
                "end_image_token": "</img>",
                "context_image_token": "<IMG_CONTEXT>",
                "video_token": "<video>",
            },
            _turns(
                "",
                "<|im_start|>{{ m.role }}\n",
                "<IMG_CONTEXT>\n",
                "<|im_end|>\n",
                "<|im_start|>assistant\n",
            ),
            lambda: GotOcr2ImageProcessorPil(size={"height": 56, "width": 56}, max_patches=4, min_patches=1),
            {"image_seq_length": 4},
            special=("<|im_start|>", "<|im_end|>"),
            text_config={"model_type": "qwen2"},
            vision_config={**_VISION, "image_size": [56, 56], "patch_size": [14, 14]},
            image_seq_length=4,
        )
    ),
    "gemma3": Family(
        _built(
            "gemma3",
            {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"},
            _turns(
                "{{ bos_token }}",
                "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n",
                "<start_of_image>",
                "<end_of_turn>\n",
                "<start_of_turn>model\n",
            ),
            lambda: Gemma3ImageProcessorPil(size={"height": 56, "width": 56}, image_seq_length=16),
            {"image_seq_length": 16},
            special=("<start_of_turn>", "<end_of_turn>"),
            text_config={**_SLIDING, "query_pre_attn_scalar": 16, "final_logit_softcapping": 5.0},
            vision_config={**_SIGLIP, "image_size": 56},
            mm_tokens_per_image=16,
        )
    ),
    "paligemma2": Family(
        _built(
            "paligemma",
            {"image_token": "<image>"},
            None,
            lambda: SiglipImageProcessorPil(size={"height": 56, "width": 56}, image_seq_length=16),
            text_config={
                **_SLIDING,
                "model_type": "gemma2",
                "query_pre_attn_scalar": 16,
                "attn_logit_softcapping": 2.0,
                "final_logit_softcapping": 3.0,
            },
            vision_config={**_SIGLIP, "image_size": 56, "projection_dim": 64},
            projection_dim=64,
        )
    ),
    "glm4v": Family(
        _built(
            "glm4v",
            {"image_token": "<|image|>", "video_token": "<|video|>"},
            _turns(
                "[gMASK]<sop>\n",
                "{{ '<|' + m.role + '|>' }}\n",
                "<|begin_of_image|><|image|><|end_of_image|>",
                "",
                "<|assistant|>\n",
            ),
            lambda: Glm4vImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": 2 * 84 * 84}),
            special=("[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|begin_of_image|>", "<|end_of_image|>"),
            text_config={
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 1e4,
                    "partial_rotary_factor": 0.5,
                    "mrope_section": [2, 1, 1],
                }
            },
            vision_config={
                "depth": 2,
                "hidden_size": 32,
                "num_heads": 2,
                "intermediate_size": 64,
                "out_hidden_size": 64,
                "image_size": 56,
            },
        )
    ),
}
