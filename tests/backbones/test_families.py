"""Every supported family: both engines say the same, and the separate one is transformers' own loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from families import FAMILIES
from PIL import Image
from samples import asked, gradient_error, pair, relative, single_tokens, trace, weighted_gradient

from spatial_lightning.backbones import Backbone, attention
from spatial_lightning.backbones.head import read_out
from spatial_lightning.backbones.inputs import image_inputs
from spatial_lightning.backbones.processor import BackboneError
from spatial_lightning.backbones.towers import TowerPlan
from spatial_lightning.data import Encoder
from spatial_lightning.runs.engines import engine_error, ensure_engines_agree
from spatial_lightning.tree import TreeBatch, pack

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def images(shared_data: Path) -> list[Path]:
    return sorted((shared_data / "clevr" / "images" / "train").glob("*.png"))[:3]


@pytest.fixture(scope="module", params=FAMILIES)
def backbone(request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A shrunken random model whose matrices are large enough for attention to matter."""
    family = FAMILIES[request.param]
    folder = family.write(tmp_path_factory.mktemp("family") / request.param, shared_data)
    torch.manual_seed(0)
    backbone = Backbone(folder, weights="random", **family.arguments).train()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.mul_(6 if parameter.ndim > 1 else 1)
    return backbone


@pytest.fixture
def row(backbone: Backbone, images: list[Path]) -> TreeBatch:
    """Two images in a prefix, an image in a branch, branches of one token."""
    encoder = Encoder(backbone.processor)
    return pack(
        [
            encoder.questions(asked("two images", images[:2], 2)),
            replace(encoder.trace(trace("image in a branch", images[:1], images[1:3])), values={}),
            single_tokens(backbone, images[:1]),
        ]
    )


def test_shared_and_separate_agree(backbone: Backbone, row: TreeBatch) -> None:
    found = {}
    for engine in ("shared", "separate"):
        with backbone.running(engine):
            logps = backbone.logps(row)
            found[engine] = (logps.detach(), weighted_gradient(backbone, logps))
    (logps, gradient), (expected, expected_gradient) = found["shared"], found["separate"]
    assert relative(logps, expected) <= TOLERANCE
    assert gradient_error(gradient, expected_gradient) <= TOLERANCE
    unreached = {name for name, _ in backbone.named_parameters()} - set(gradient)
    assert unreached == {name for name, _ in backbone.named_parameters() if backbone.is_dead(name.split(".", 1)[1])}
    with backbone._stock_attention(), torch.no_grad():
        positions = row.positions.unsqueeze(1) if row.positions.shape[0] > 1 else row.positions
        leaking = backbone.model.model(
            input_ids=row.ids[None], position_ids=positions, use_cache=False, **image_inputs(row.images)
        ).last_hidden_state[0, row.predictors]
        head = backbone.model.get_output_embeddings()
        control = read_out(head, leaking, row.ids[row.targets], softcap=backbone.softcap).logps
    assert relative(control, expected) > 1e-2, "the comparison would not see branches that see one another"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside transformers
def test_separate_is_the_loss_of_transformers(backbone: Backbone, images: list[Path]) -> None:
    """Text, placeholders, per-token types and images come from the family's own processor, the loss from its own forward."""
    processor = backbone.processor
    sample = pair("a", images[:2])
    tree = Encoder(processor).pair(sample)
    batch = pack([tree])
    with backbone.running("separate"), torch.no_grad():
        ours = -backbone.logps(batch)[batch.branch == 0].mean()
        frame = processor.frame(2)
        if processor.tokenizer.chat_template:
            text = frame.prefix + sample.question.text + frame.question_end
        else:  # the processor adds start token and line break
            text = processor.placeholder * 2 + sample.question.text
        pictures = [Image.open(path).convert("RGB") for path in images[:2]]
        inputs = processor.composed(
            text=[text],
            images=pictures,
            images_kwargs=processor.image_settings,
            add_special_tokens=False,
            return_tensors="pt",
        )
        answer = tree.nodes[1].ids[None]
        assert torch.equal(inputs["input_ids"][0], tree.nodes[0].ids)
        after = 0 if processor.tokenizer.chat_template else 1
        inputs["labels"] = torch.cat([torch.full_like(inputs["input_ids"], -100), answer], dim=1)
        for name, value in (("attention_mask", 1), ("token_type_ids", after), ("mm_token_type_ids", 0)):
            if name in inputs:
                inputs[name] = torch.cat([inputs[name], torch.full_like(answer, value)], dim=1)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], answer], dim=1)
        for unused in {"num_patches", "num_crops"} & set(inputs):
            del inputs[unused]
        loss = backbone.model(**inputs).loss
    assert abs(float(ours - loss)) <= TOLERANCE * float(loss)


def test_pictures_fill_the_places_that_the_text_leaves_them(backbone: Backbone, images: list[Path]) -> None:
    for path in images[:2]:
        image = backbone.processor.image(path)
        ids, _ = backbone.processor.tokenize(f"a {backbone.processor.placeholder} b", [image])
        assert int((ids == backbone.processor.image_token_id).sum()) == image.tokens
        features = backbone.model.model.get_image_features(**image_inputs(image.tensors), return_dict=True)
        assert sum(part.flatten(0, -2).shape[0] for part in features.pooler_output) == image.tokens


def test_generation_does_not_depend_on_neighbours(backbone: Backbone, images: list[Path]) -> None:
    encoder = Encoder(backbone.processor)
    questions = asked("a", images[:2], 2).questions
    prompts = [encoder.prompt(images[:1], questions[0]), encoder.prompt(images[:2], questions[1])]
    together = backbone.generate(prompts, max_new_tokens=3)
    assert together == [backbone.generate([prompt], max_new_tokens=3)[0] for prompt in prompts]


def test_dead_modules_take_no_gradient_and_are_reported(backbone: Backbone) -> None:
    report = TowerPlan().apply(backbone)
    dead = [parameter for name, parameter in backbone.model.named_parameters() if backbone.is_dead(name)]
    assert not any(parameter.requires_grad for parameter in dead)
    assert sum(tower.dead for tower in report) == sum(parameter.numel() for parameter in dead)
    assert bool(dead) == bool(backbone.dead)
    backbone.requires_grad_(True)


def test_engines_are_compared_before_a_run(backbone: Backbone) -> None:
    assert engine_error(backbone) <= 1e-6
    ensure_engines_agree(backbone, pytest.fail)


@pytest.mark.parametrize("check", ["refuse", "fallback", "off"])
def test_engines_that_differ_stop_the_run_or_change_the_engine(
    policy: Backbone, monkeypatch: pytest.MonkeyPatch, check: str
) -> None:
    monkeypatch.setattr(attention, "within", lambda mask, *_: torch.ones_like(mask))
    policy.check = check  # type: ignore[assignment]
    said: list[str] = []
    if check == "refuse":
        with pytest.raises(BackboneError, match=r"differs from separate runs .* backbone\.engine=separate"):
            ensure_engines_agree(policy, said.append)
    else:
        ensure_engines_agree(policy, said.append)
    assert (policy.engine, len(said)) == (("separate", 1) if check == "fallback" else ("shared", 0))


def test_unknown_dead_modules_and_settings_are_refused(tiny_folder: Path) -> None:
    with pytest.raises(BackboneError, match=r"backbone\.dead names 'model.visual.block', and model.visual of"):
        Backbone(tiny_folder, weights="random", dead=["model.visual.block"])
    with pytest.raises(BackboneError, match=r"image_settings has no 'max_tiles'.*allowed: .*size"):
        Backbone(tiny_folder, weights="random", image_settings={"max_tiles": 4})
    with pytest.raises(BackboneError, match=r"backbone\.check is 'maybe'; allowed"):
        Backbone(tiny_folder, weights="random", check="maybe")  # type: ignore[arg-type]
