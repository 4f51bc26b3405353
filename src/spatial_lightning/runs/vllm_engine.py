"""Answers by vLLM's offline engine, on the model as a Hugging Face directory; an optional extra."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spatial_lightning.backbones.processor import load_image
from spatial_lightning.runs.answering import Asked
from spatial_lightning.runs.config import ConfigError
from spatial_lightning.runs.evaluated import Evaluated
from spatial_lightning.runs.generating import AnswerBatch


def require_vllm() -> None:
    """Refuse ``engine=vllm`` where vLLM is not installed.

    Raises:
        ConfigError: it is not.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError("engine=vllm needs vLLM, which is not installed: pip install vllm, or engine=transformers")


def by_vllm(evaluated: Evaluated, run: Path, *, max_new_tokens: int) -> AnswerBatch:
    """Greedy answers; the model is written to ``run/model`` first unless it comes from a directory.

    Raises:
        ConfigError: vLLM is not installed.
    """
    require_vllm()
    from vllm import LLM, SamplingParams  # pyright: ignore[reportMissingImports]

    model = directory_of(evaluated, run)
    settings = SamplingParams(temperature=0.0, max_tokens=max_new_tokens)
    dtype = str(evaluated.backbone.model.dtype).removeprefix("torch.")
    engines: dict[int, Any] = {}

    def answer(batch: Sequence[Asked]) -> list[str]:
        # The engine has to know beforehand how many pictures a conversation may have.
        most = max(len(images) for images, _ in batch)
        if not engines or most > max(engines):
            engines.clear()
            limit = {"image": max(most, 1)}
            engines[most] = LLM(model=str(model), dtype=dtype, seed=0, limit_mm_per_prompt=limit)
        llm = next(iter(engines.values()))
        conversations = [conversation(pair, evaluated.system) for pair in batch]
        outputs = llm.chat(conversations, settings, use_tqdm=False)
        return [output.outputs[0].text.strip() for output in outputs]

    return answer


def directory_of(evaluated: Evaluated, run: Path, *, write: bool = True) -> Path:
    """A Hugging Face directory that holds the model: its own, or one below ``run``, written if ``write``."""
    if evaluated.exported is not None:
        return evaluated.exported
    folder = run / "model"
    if write and not (folder / "config.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        evaluated.backbone.save_pretrained(folder)
    return folder


def conversation(pair: Asked, system: str | None) -> list[dict[str, Any]]:
    """Messages as vLLM takes them: the pictures, then the question."""
    images, question = pair
    pictures = [{"type": "image_pil", "image_pil": load_image(path)} for path in images]
    messages = [{"role": "user", "content": [*pictures, {"type": "text", "text": question.text}]}]
    return [{"role": "system", "content": system}, *messages] if system else messages
