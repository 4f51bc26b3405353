"""Model directories with a part missing, or with parts that do not fit each other, are refused in words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.processor import BackboneError


def without(*names: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return remove


def without_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop(next(name for name in weights if "mlp" in name))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def with_a_stranger(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["visual.stranger"] = next(iter(weights.values())).clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def with_half_a_file(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def of_another_width(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] *= 2
    (folder / "config.json").write_text(json.dumps(config))


def with_template(template: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "chat_template.jinja").write_text(template) and None


@pytest.fixture(scope="module")
def whole(tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    tiny.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without("config.json"), "cannot load config.json from"),
        (without("tokenizer.json", "tokenizer_config.json"), "cannot load a tokenizer from"),
        (without("preprocessor_config.json"), "cannot load preprocessor_config.json from"),
        (without("chat_template.jinja"), "has no chat template: add chat_template.jinja"),
        (without("model.safetensors"), "cannot load weights from"),
        (without_a_weight, "do not fit its config: missing_keys .*mlp"),
        (with_a_stranger, "do not fit its config: unexpected_keys .*stranger"),
        (with_half_a_file, "cannot load weights from"),
        (of_another_width, "do not fit its config: mismatched_keys .*mlp"),
        (
            with_template(
                "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}<|im_end|>{% endfor %}"
            ),
            "chat template .* writes 0 image placeholders .* for 1 images",
        ),
    ],
)
def test_what_is_wrong_with_a_directory_is_said(
    damage: Callable[[Path], None], words: str, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    damage(folder)
    with pytest.raises(BackboneError, match=f"(?s){words}") as refused:
        Backbone(folder)
    assert str(folder) in str(refused.value)
