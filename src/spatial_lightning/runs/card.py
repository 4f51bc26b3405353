"""The model card of an export: data, objective, settings, pixel limits, figures beside their baselines, how to load, limits."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from omegaconf import DictConfig, OmegaConf

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.towers import TOWERS
from spatial_lightning.runs.build import plain
from spatial_lightning.runs.config import resolve_path
from spatial_lightning.runs.mixed import corpora_of, kinds_of

_PACKAGES = ("spatial-lightning", "torch", "transformers", "tokenizers", "safetensors", "lightning", "peft")


def model_card(config: DictConfig, backbone: Backbone, checkpoint: Path, summary: Mapping[str, Any] | None) -> str:
    """The card in Markdown behind a YAML header, as the Hugging Face Hub reads it.

    Args:
        config: the run's configuration.
        backbone: what is exported.
        checkpoint: the folder its trained weights are from.
        summary: the run's ``summary.json``; None if the run has not finished.
    """
    objective = str(config.objective["_target_"]).rsplit(".", 1)[-1].removesuffix("Module")
    base = str(config.backbone.path)
    base = Path(base).name if resolve_path(base).is_dir() else base
    corpora = {name or "corpus": plain(node.corpus) for name, node in corpora_of(config).items()}
    data = summary["corpus"] if summary else ", ".join(sorted(kinds_of(config)))
    header = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        base_model=base,
        tags=["spatial-reasoning", "vision-language", objective.lower(), "spatial-lightning"],
        datasets=[data],
    )
    return f"""---
{header.to_yaml().strip()}
---

# {config.name}

`{base}`, trained with the objective {objective} on `{data}` by run `{checkpoint.parents[1].name}` of spatial_lightning; the
weights are those of its checkpoint `{checkpoint.name}`.

## Data

{_yaml(corpora)}

## Objective and settings

Towers: {", ".join(f"{tower} {config.towers[tower].mode}" for tower in TOWERS)}. Reference policy: {config.reference.kind}.
Warm start: {Path(config.warm_start or "none").name}. Precision {config.trainer.precision}, {config.data.module.batch_size}
examples a step, seed {config.seed}.

{_yaml({"objective": plain(config.objective), "optimization": plain(config.optimization), "towers": plain(config.towers)})}

## Pixel limits

{_pixels(backbone)} The image processor in this directory does the same; with other limits the answers are others.

## Results

{_results(summary, checkpoint)}

## How to load

```python
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("DIRECTORY")
processor = AutoProcessor.from_pretrained("DIRECTORY")  # families that also take videos need torchvision for this
question = [{{"type": "image", "path": "picture.png"}}, {{"type": "text", "text": "Is the cube left of the cone?"}}]
inputs = processor.apply_chat_template(
    [{{"role": "user", "content": question}}], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
)
print(processor.decode(model.generate(**inputs, max_new_tokens=192)[0], skip_special_tokens=True))
```

or, in spatial_lightning, `backbone=hf backbone.path=DIRECTORY`. Generation is greedy and ends with the turn.

## Limits

What was measured above is all that is known: other pictures, other questions and other languages than those of the data
were not tried. Answers sound sure whether they are right or wrong. What the base model knows and is biased towards, and its
licence, come with it.

## Made with

{", ".join(f"{name} {_version(name)}" for name in _PACKAGES)}{f"; commit {summary['git_sha']}" if summary else ""}
"""


def _results(summary: Mapping[str, Any] | None, checkpoint: Path) -> str:
    if summary is None:
        return "The run has not finished, so nothing was measured."
    after, baseline = summary["metrics"], summary["baseline"]
    before, majority = baseline["warm_start"], baseline["majority"]
    lines = ["| % | best constant answers | before training | after |", "| :-- | --: | --: | --: |"]
    for name in after:
        if name in before:
            cells = (f"{100 * column[name]:.1f}" if name in column else "" for column in (majority, before, after))
            lines.append(f"| {name} | {' | '.join(cells)} |")
    low, high = 100 * baseline["difference_low"], 100 * baseline["difference_high"]
    lines += [
        "",
        f"Accuracy after minus before: {100 * baseline['difference']:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}, on "
        "the same held-out questions.",
    ]
    if checkpoint.name != f"step-{summary['steps']:06d}":
        lines += ["", f"These figures are of the end of the run (step {summary['steps']}), not of `{checkpoint.name}`."]
    return "\n".join(lines)


def _pixels(backbone: Backbone) -> str:
    limits = backbone.processor.pixel_limits
    if limits is None:
        return (
            f"Pictures were resized by {dict(backbone.processor.image_processor.size)} in training and in evaluation."
        )
    return f"Pictures were resized to between {limits[0]} and {limits[1]} pixels (area) in training and in evaluation."


def _yaml(node: Any) -> str:
    return f"```yaml\n{OmegaConf.to_yaml(OmegaConf.create(plain(node))).strip()}\n```"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"
