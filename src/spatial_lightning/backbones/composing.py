"""The processor of a model, put together from its parts: transformers' own class, without torchvision and without video."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import PROCESSOR_MAPPING, AutoImageProcessor, AutoTokenizer, ProcessorMixin


class BackboneError(ValueError):
    """A model directory or a setting that cannot be used; the message says what to change."""


def compose_processor(path: str, config: Any, image_settings: Mapping[str, Any]) -> Any:
    """The processor that transformers has for a model, with the image processor that needs no torchvision.

    It knows how each image is cut and what its placeholder becomes in the text; that of ``AutoProcessor`` does not load
    without torchvision where the family also takes videos.

    Args:
        path: a Hugging Face model directory or hub id.
        config: of the model; its type decides the class where ``processor_config.json`` names none.
        image_settings: settings of the image processor that replace the model's own.

    Raises:
        BackboneError: a part is missing, transformers has no processor for this model, or its image processor has no such
            setting.
    """
    parts = {
        "tokenizer": load_part(AutoTokenizer, path, "a tokenizer"),
        # The same pixels whether torchvision is installed or not: caches and checkpoints depend on them.
        "image_processor": load_part(
            AutoImageProcessor, path, "preprocessor_config.json", backend="pil", **image_settings
        ),
    }
    known = sorted(parts["image_processor"].valid_kwargs.__annotations__)
    if unknown := sorted(set(image_settings) - set(known)):
        raise BackboneError(f"backbone.image_settings has no {unknown[0]!r} for {path}; allowed: {', '.join(known)}")
    settings = load_part(ProcessorMixin, path, "processor_config.json", method="get_processor_dict")[0]
    name = settings.get("processor_class")
    family: Any = getattr(transformers, name, None) if name else PROCESSOR_MAPPING.get(type(config), None)
    if family is None:
        raise BackboneError(
            f"{path} is of type {config.model_type}, for which transformers {transformers.__version__} has no processor"
            f"{f' called {name}' if name else ''}"
        )
    template = parts["tokenizer"].chat_template
    try:
        processor = _without_video(family).from_args_and_dict(
            [parts.get(attribute) for attribute in family.get_attributes()], settings
        )
    except (ImportError, TypeError, ValueError, AttributeError) as error:
        raise BackboneError(f"cannot compose the {family.__name__} of {path}: {error}") from error
    processor.__class__ = family  # transformers' own again, which can be pickled
    processor.tokenizer.chat_template = processor.chat_template or template
    return processor


def load_part(factory: Any, path: str, what: str, *, method: str = "from_pretrained", **options: Any) -> Any:
    """Load one part of a model directory.

    Raises:
        BackboneError: it is not there or cannot be read.
    """
    try:
        return getattr(factory, method)(path, **options)
    except (OSError, ValueError, KeyError) as error:
        raise BackboneError(f"cannot load {what} from {path!r}: {error}") from error


def _without_video(family: type[Any]) -> type[Any]:
    """The class, willing to do without the parts that this project does not use (video processors need torchvision)."""

    def check(self: Any, name: str, part: Any) -> Any:
        return None if part is None else family.check_argument_for_proper_class(self, name, part)

    # The signature of __init__ tells transformers which parts there are, so it must stay the family's own.
    return type(family.__name__, (family,), {"check_argument_for_proper_class": check, "__init__": family.__init__})


def save_processor(processor: Any, folder: Path) -> None:
    """Write tokenizer, template, image processor and the processor's own settings as a Hugging Face directory has them."""
    processor.tokenizer.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    settings = {key: value for key, value in processor.to_dict().items() if key not in processor.get_attributes()}
    (folder / "processor_config.json").write_text(json.dumps(settings, indent=2, default=str) + "\n", encoding="utf-8")
