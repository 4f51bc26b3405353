"""Pictures and text become model inputs, or are refused with a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spatial_lightning.backbones import Backbone, Processor
from spatial_lightning.backbones.processor import BackboneError, load_image
from spatial_lightning.backbones.tiny import _SPECIAL
from spatial_lightning.records import RecordError


@pytest.fixture(scope="module")
def processor(tiny: Backbone) -> Processor:
    return tiny.processor


def test_placeholders_are_the_features_the_vision_tower_makes(tiny: Backbone, pictures: tuple[Path, ...]) -> None:
    for path in pictures:
        image = tiny.processor.image(path)
        features = tiny.model.model.get_image_features(**image.tensors, return_dict=True).pooler_output
        assert torch.cat(tuple(features)).shape[0] == image.tokens
        ids, spans = tiny.processor.tokenize(f"a {tiny.processor.placeholder} b", [image])
        assert int((ids == tiny.processor.image_token_id).sum()) == image.tokens
        assert spans.shape == (ids.numel(), 2)


@pytest.mark.parametrize("mode", ["RGBA", "L", "LA", "P", "1"])
def test_every_mode_becomes_the_same_rgb(mode: str, tmp_path: Path, processor: Processor) -> None:
    stripes = np.zeros((32, 48, 3), dtype=np.uint8)
    stripes[::2] = 255
    path = tmp_path / "picture.png"
    Image.fromarray(stripes).convert(mode).save(path)
    assert np.array_equal(np.asarray(load_image(path)), stripes)
    assert processor.image(path).tensors["pixel_values"].isfinite().all()


def test_transparency_does_not_change_the_pixels(tmp_path: Path, processor: Processor) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "rgba.png")
    Image.fromarray(pixels[..., :3]).save(tmp_path / "rgb.png")
    assert processor.image(tmp_path / "rgba.png").key == processor.image(tmp_path / "rgb.png").key


def test_missing_and_broken_pictures_are_named(tmp_path: Path, pictures: tuple[Path, ...]) -> None:
    with pytest.raises(RecordError, match=r"absent\.png does not exist"):
        load_image(tmp_path / "absent.png")
    for name, content in [
        ("text.png", b"no picture"),
        ("cut.png", pictures[0].read_bytes()[:2000]),
        ("empty.png", b""),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RecordError, match=rf"{name} cannot be read"):
            load_image(tmp_path / name)
    with pytest.raises(RecordError, match="cannot be read"):
        load_image(tmp_path)


@pytest.mark.parametrize("token", _SPECIAL)
def test_control_tokens_in_text_are_refused(token: str, processor: Processor) -> None:
    with pytest.raises(RecordError, match="control token"):
        processor.check_text(f"a question {token} with more")
    processor.check_text(f"harmless {token[1:]} < | >")


def test_published_control_tokens_are_refused_too(shared_data: Path) -> None:
    published = Processor(shared_data / "tokenizers" / "qwen2_5_vl_7b")
    for token in ("<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|vision_start|>", "<|video_pad|>", "<|endoftext|>"):
        with pytest.raises(RecordError, match="control token"):
            published.check_text(token)


def test_frame_and_turn_are_the_templates_own_text(processor: Processor) -> None:
    def user(text: str) -> dict:
        return {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}

    def model(text: str) -> dict:
        return {"role": "assistant", "content": [{"type": "text", "text": text}]}

    frame = processor.frame(1)
    template = processor.tokenizer.apply_chat_template
    assert template([user("Q"), model("A")], tokenize=False).startswith(
        f"{frame.prefix}Q{frame.question_end}A{frame.answer_end}"
    )
    whole = template([user("Q"), model("A"), user("O"), model("B")], tokenize=False)
    turns = [frame.prefix, "Q", frame.question_end, "A", frame.answer_end, processor.next_turn(1), "O"]
    built = "".join([*turns, frame.question_end, "B", frame.answer_end])
    assert whole.startswith(built)
    assert "Be brief." in processor.frame(2, "Be brief.").prefix
    assert processor.frame(2).prefix.count(processor.image_token) == 2


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "does not keep the text"),
        (
            "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}",
            "writes 0 image placeholders",
        ),
    ],
)
def test_templates_without_a_place_for_text_or_pictures_are_refused(
    template: str, message: str, tiny_folder: Path
) -> None:
    processor = Processor(tiny_folder)
    processor.tokenizer.chat_template = template
    with pytest.raises(BackboneError, match=message):
        processor.frame(1)


def test_templates_that_drop_a_tools_picture_are_refused(tiny_folder: Path) -> None:
    processor = Processor(tiny_folder)
    processor.tokenizer.chat_template = (
        "{% for m in messages %}{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}"
        "{% elif loop.length == 3 %}<|image_pad|>{% endif %}{% endfor %}<|im_end|>{% endfor %}"
    )
    with pytest.raises(BackboneError, match="0 image placeholders .* before an observation"):
        processor.next_turn(1)


def test_pixel_limits_bound_the_tokens_and_the_fingerprint(tiny_folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (640, 480)).save(tmp_path / "large.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "small.png")
    free, small, large = (
        Processor(tiny_folder),
        Processor(tiny_folder, max_pixels=4096),
        Processor(tiny_folder, min_pixels=8192),
    )
    assert small.pixel_limits[1] == 4096
    assert small.image(tmp_path / "large.png").tokens <= 4096 // 256 < free.image(tmp_path / "large.png").tokens
    assert large.image(tmp_path / "small.png").tokens >= 8192 // 256 > free.image(tmp_path / "small.png").tokens
    assert len({free.fingerprint(), small.fingerprint(), large.fingerprint()}) == 3
    assert free.fingerprint() == Processor(tiny_folder).fingerprint()


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="cannot load"):
        Processor(tmp_path)
