"""Sharing, padding, packing and checkpointing change neither log-probabilities nor gradients."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from samples import (
    asked,
    gradient_error,
    pair,
    paths,
    relative,
    single_tokens,
    stock_inputs,
    stock_logps,
    targets_of,
    trace,
    weighted_gradient,
)

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.head import read_out
from spatial_lightning.data import Encoder
from spatial_lightning.tree import TokenTree, pack

TOLERANCE = 1e-5
Make = Callable[[Backbone, Sequence[Path]], list[TokenTree]]


def _encoder(backbone: Backbone, context: str = "single_pass") -> Encoder:
    return Encoder(backbone.processor, segment_context=context)  # type: ignore[arg-type]


CASES: dict[str, Make] = {
    "one question": lambda b, p: [_encoder(b).questions(asked("a", p[:1], 1))],
    "eight questions": lambda b, p: [_encoder(b).questions(asked("a", p[:1], 8))],
    "pair": lambda b, p: [_encoder(b).pair(pair("a", p[:1]))],
    "independent segments": lambda b, p: [_encoder(b, "independent").pair(pair("a", p[:1]))],
    "trace": lambda b, p: [_encoder(b).trace(trace("a", p[:1], p[1:2]))],
    "two images": lambda b, p: [_encoder(b).questions(asked("a", p[:2], 3))],
    "text only": lambda b, p: [_encoder(b).questions(asked("a", (), 3))],
    "single tokens": lambda b, p: [single_tokens(b, p[:1])],
    "several trees": lambda b, p: [
        _encoder(b).questions(asked("a", p[:1], 4)),
        _encoder(b).questions(asked("b", (), 2)),
        dataclasses.replace(_encoder(b).trace(trace("c", p[1:2], p[2:])), values={}),
        _encoder(b).questions(asked("d", p[::-1], 1)),
    ],
    "several pairs": lambda b, p: [_encoder(b).pair(pair(str(i), p[i : i + 1], extra=" too" * i)) for i in range(3)],
}


@pytest.fixture(scope="module", params=CASES)
def trees(request: pytest.FixtureRequest, tiny: Backbone, pictures: tuple[Path, ...]) -> list[TokenTree]:
    return CASES[request.param](tiny, pictures)


def test_shared_separate_and_stock_agree(tiny: Backbone, separate: Backbone, trees: list[TokenTree]) -> None:
    batch = pack(trees)
    stock = stock_logps(separate, trees)
    expected = stock.detach(), weighted_gradient(separate, stock)
    for backbone in (tiny, separate):
        logps = backbone.logps(batch)
        assert relative(logps.detach(), expected[0]) <= TOLERANCE
        assert gradient_error(weighted_gradient(backbone, logps), expected[1]) <= TOLERANCE


@pytest.mark.parametrize("case", [name for name in CASES if name != "one question"])
def test_plain_causal_packing_is_far_off(
    tiny: Backbone, separate: Backbone, pictures: tuple[Path, ...], case: str
) -> None:
    """The control: were the packed row one sequence, the comparison above would see it."""
    batch = pack(CASES[case](tiny, pictures))
    with torch.no_grad():
        row = separate.model.model(
            input_ids=batch.ids.unsqueeze(0), position_ids=batch.positions.unsqueeze(1), use_cache=False, **batch.images
        ).last_hidden_state[0]
        head = separate.model.get_output_embeddings()
        leaking = read_out(head, row[batch.predictors], batch.ids[batch.targets]).logps
        assert relative(leaking, tiny.logps(batch)) > 1e-3


def test_positions_follow_the_models_own_rule(tiny: Backbone, trees: list[TokenTree]) -> None:
    for tree in trees:
        for path in paths(tree):
            inputs = stock_inputs(tiny, tree, path)
            rule = tiny.model.model.get_rope_index(
                inputs["input_ids"],
                mm_token_type_ids=inputs["mm_token_type_ids"],
                image_grid_thw=inputs.get("image_grid_thw"),
            )[0][:, 0]
            assert torch.equal(torch.cat([tree.nodes[node].positions for node in path], dim=1), rule)


def test_checkpointing_changes_nothing(policy: Backbone, trees: list[TokenTree]) -> None:
    batch = pack(trees)
    logps = policy.train().logps(batch)
    expected = weighted_gradient(policy, logps)
    calls = []
    policy.decoder.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    new_name = getattr(policy.model, "activation_checkpointing_enable", None)
    (new_name or policy.model.gradient_checkpointing_enable)({"use_reentrant": False})
    again = policy.logps(batch)
    assert torch.equal(again, logps)
    assert gradient_error(weighted_gradient(policy, again), expected) <= TOLERANCE
    assert len(calls) == 2, "the layer was not recomputed"


@pytest.fixture(scope="module")
def mixed(tiny: Backbone, pictures: tuple[Path, ...]) -> list[TokenTree]:
    return CASES["several trees"](tiny, pictures)


def test_order_and_neighbours_of_trees_change_nothing(tiny: Backbone, mixed: list[TokenTree]) -> None:
    with torch.no_grad():
        rows = [pack(mixed), pack(mixed[::-1]), pack(mixed[1:3])]
        together, reversed_, two = (targets_of(row, tiny.logps(row)) for row in rows)
        alone = {tree.id: tiny.logps(pack([tree])) for tree in mixed}
    for identity, expected in alone.items():
        assert relative(together[identity], expected) <= TOLERANCE
        assert relative(reversed_[identity], expected) <= TOLERANCE
    assert two.keys() == {"b", "c"}
    assert all(relative(value, alone[identity]) <= TOLERANCE for identity, value in two.items())


def test_split_rows_give_the_same_gradient(tiny: Backbone, mixed: list[TokenTree]) -> None:
    def gradient(rows: list[list[TokenTree]]) -> dict[str, torch.Tensor]:
        tiny.zero_grad()
        for row in rows:
            (-tiny.logps(pack(row))).sum().backward()
        found = {name: p.grad.clone() for name, p in tiny.named_parameters() if p.grad is not None}
        tiny.zero_grad()
        return found

    assert gradient_error(gradient([[tree] for tree in mixed]), gradient([mixed])) <= TOLERANCE


def test_siblings_do_not_see_each_other(tiny: Backbone, mixed: list[TokenTree]) -> None:
    tree = mixed[0]
    other = tree.nodes[2].ids.clone()
    other[0] += 1
    nodes = list(tree.nodes)
    nodes[2] = dataclasses.replace(nodes[2], ids=other)
    before, after = pack([tree]), pack([TokenTree(tree.id, tuple(nodes))])
    with torch.no_grad():
        moved = (tiny.logps(before) - tiny.logps(after)).abs()
    assert bool((moved[before.branch != 1] < 1e-4).all())
    assert bool((moved[before.branch == 1] > 1e-3).any())


def test_sliding_windows_follow_the_path(tiny_folder: Path, pictures: tuple[Path, ...]) -> None:
    overrides = {
        "text_config.use_sliding_window": True,
        "text_config.sliding_window": 9,
        "text_config.layer_types": ["sliding_attention", "full_attention"] * 2,
    }
    shared = Backbone(tiny_folder, weights="random", overrides=overrides)
    stock = Backbone(tiny_folder, weights="random", overrides=overrides, engine="separate")
    with torch.no_grad():
        for parameter in shared.parameters():
            parameter.mul_(3 if parameter.ndim > 1 else 1)
    stock.load_state_dict(shared.state_dict())
    full = Backbone(tiny_folder, weights="random")
    full.load_state_dict(shared.state_dict())
    trees = CASES["several trees"](shared, pictures)
    logps, expected = shared.logps(pack(trees)), stock_logps(stock, trees)
    assert relative(logps.detach(), expected.detach()) <= TOLERANCE
    assert gradient_error(weighted_gradient(shared, logps), weighted_gradient(stock, expected)) <= TOLERANCE
    with torch.no_grad():
        assert relative(full.logps(pack(trees)), expected) > 1e-3


def test_qwen2_5_vl_agrees_too(shared_data: Path) -> None:
    """The published tokenizer, template and processor with a shrunken model and real pictures."""
    overrides = {
        "text_config.hidden_size": 64,
        "text_config.num_hidden_layers": 2,
        "text_config.intermediate_size": 128,
        "text_config.num_attention_heads": 4,
        "text_config.num_key_value_heads": 2,
        "text_config.layer_types": ["full_attention"] * 2,
        "text_config.rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
        "vision_config.depth": 2,
        "vision_config.hidden_size": 32,
        "vision_config.num_heads": 2,
        "vision_config.intermediate_size": 64,
        "vision_config.out_hidden_size": 64,
        "vision_config.fullatt_block_indexes": [1],
    }
    path = shared_data / "tokenizers" / "qwen2_5_vl_7b"
    images = sorted((shared_data / "clevr" / "images" / "train").glob("*.png"))[:3]
    shared = Backbone(path, weights="random", overrides=overrides, max_pixels=112 * 112)
    with torch.no_grad():
        for parameter in shared.parameters():
            parameter.mul_(3 if parameter.ndim > 1 else 1)
    stock = copy.deepcopy(shared)
    stock.engine = "separate"
    stock.decoder.config._attn_implementation = "sdpa"
    trees = CASES["several trees"](shared, images)
    logps, expected = shared.logps(pack(trees)), stock_logps(stock, trees)
    assert relative(logps.detach(), expected.detach()) <= TOLERANCE
    assert gradient_error(weighted_gradient(shared, logps), weighted_gradient(stock, expected)) <= TOLERANCE
