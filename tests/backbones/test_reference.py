"""The reference policy: a frozen copy and the cache on disk say the same, and the cache notices when it is wrong."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import pytest
import torch
from samples import asked, pair, relative

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.processor import BackboneError
from spatial_lightning.backbones.reference import CachedReference, FrozenCopy
from spatial_lightning.data import Encoder
from spatial_lightning.tree import TreeBatch, pack


@pytest.fixture(scope="module")
def batches(tiny: Backbone, pictures: tuple[Path, ...]) -> list[TreeBatch]:
    encoder = Encoder(tiny.processor)
    pairs = [encoder.pair(pair(str(i), pictures[i : i + 1], extra=" too" * i)) for i in range(3)]
    return [pack(pairs[:2], keys=True), pack(pairs[2:], keys=True)]


@pytest.fixture
def cache(tiny: Backbone, batches: list[TreeBatch], tmp_path: Path) -> CachedReference:
    reference = CachedReference(tiny, tmp_path)
    assert reference.fill(tiny, batches, "corpus") == 3
    return reference


def test_frozen_copy_and_cache_hold_the_policys_values(
    tiny: Backbone, batches: list[TreeBatch], cache: CachedReference, tmp_path: Path
) -> None:
    copy = FrozenCopy(tiny)
    for batch in batches:
        with torch.no_grad():
            expected = tiny.logps(batch)
        assert torch.equal(copy.logps(batch), expected)
        assert torch.equal(cache.logps(batch), expected)
        assert torch.equal(CachedReference(tiny, tmp_path).logps(batch), expected)


def test_cached_values_do_not_depend_on_the_row(
    tiny: Backbone, cache: CachedReference, pictures: tuple[Path, ...]
) -> None:
    encoder = Encoder(tiny.processor)
    other = pack([encoder.pair(pair(str(i), pictures[i : i + 1], extra=" too" * i)) for i in (2, 0)], keys=True)
    with torch.no_grad():
        assert relative(cache.logps(other), tiny.logps(other)) <= 1e-5


def test_rows_of_text_can_be_cached(tiny: Backbone, tmp_path: Path) -> None:
    batch = pack([Encoder(tiny.processor).questions(asked("text", (), 2))], keys=True)
    reference = CachedReference(tiny, tmp_path)
    assert reference.fill(tiny, [batch], "text") == 1
    with torch.no_grad():
        assert torch.equal(reference.logps(batch), tiny.logps(batch))


def test_nothing_is_computed_twice(
    tiny: Backbone, batches: list[TreeBatch], cache: CachedReference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backbone, "logps", lambda *_: pytest.fail("a forward pass"))
    again = CachedReference(tiny, tmp_path)
    assert again.is_complete("corpus")
    assert not again.is_complete("another corpus")
    assert again.fill(tiny, batches, "another corpus") == 0
    assert again.is_complete("another corpus")
    assert again.computed == 0


def test_other_weights_processor_or_architecture_use_another_file(
    tiny: Backbone, policy: Backbone, cache: CachedReference, tmp_path: Path, tiny_folder: Path
) -> None:
    assert CachedReference(policy, tmp_path).path == cache.path
    with torch.no_grad():
        next(policy.parameters()).view(-1)[0] += 1e-3
    other_pixels = Backbone(tiny_folder, weights="random", max_pixels=4096)
    other_rope = Backbone(
        tiny_folder,
        weights="random",
        overrides={
            "text_config.rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 4, 4]}
        },
    )
    for backbone in (other_pixels, other_rope):
        backbone.load_state_dict(tiny.state_dict())
    paths = {CachedReference(b, tmp_path).path for b in (tiny, policy, other_pixels, other_rope)}
    assert len(paths) == 4


def test_the_fingerprint_ignores_where_a_model_lies(tiny: Backbone, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path / "elsewhere")
    assert Backbone(tmp_path / "elsewhere").fingerprint() == tiny.fingerprint()
    assert Backbone(tmp_path / "elsewhere", engine="separate").fingerprint() == tiny.fingerprint()


@pytest.mark.parametrize(
    ("value", "message"),
    [(b"\0" * 4, "not in the reference cache"), (b"\0" * 5, "is damaged"), (None, "differs from the model")],
)
def test_a_wrong_cache_is_noticed(
    tiny: Backbone, batches: list[TreeBatch], cache: CachedReference, tmp_path: Path, value: bytes | None, message: str
) -> None:
    cache.check(tiny, batches[0])
    if value is None:
        value = (cache.logps(batches[0])[: batches[0].tree_targets[0]] * 1.1).numpy().tobytes()
    with sqlite3.connect(cache.path) as database:
        database.execute("UPDATE logps SET value = ? WHERE key = ?", (value, batches[0].tree_keys[0]))
    database.close()
    with pytest.raises(BackboneError, match=message):
        CachedReference(tiny, tmp_path).check(tiny, batches[0])


def test_a_file_that_is_no_cache_is_named(tiny: Backbone, cache: CachedReference, tmp_path: Path) -> None:
    cache.path.write_bytes(b"something else" * 100)
    with pytest.raises(BackboneError, match="cannot be used"):
        CachedReference(tiny, tmp_path)


def test_values_that_are_no_numbers_fail_the_check(policy: Backbone, batches: list[TreeBatch], tmp_path: Path) -> None:
    with torch.no_grad():
        policy.model.get_output_embeddings().weight.fill_(math.nan)
    reference = CachedReference(policy, tmp_path)
    reference.fill(policy, batches[:1], "corpus")
    with pytest.raises(BackboneError, match="differs from the model"):
        reference.check(policy, batches[0])


def test_unknown_examples_and_rows_without_hashes_are_refused(
    tiny: Backbone, cache: CachedReference, batches: list[TreeBatch], pictures: tuple[Path, ...]
) -> None:
    tree = Encoder(tiny.processor).pair(pair("stranger", pictures[:1], extra=" and round"))
    with pytest.raises(BackboneError, match="example stranger is not in the reference cache"):
        cache.logps(pack([tree], keys=True))
    with pytest.raises(BackboneError, match="content hashes"):
        cache.logps(pack([tree]))


def test_dropout_reaches_the_policy_and_not_the_reference(
    policy: Backbone, batches: list[TreeBatch], tmp_path: Path
) -> None:
    with torch.no_grad():
        expected = policy.eval().logps(batches[0])
    for layer in policy.decoder.layers:
        layer.self_attn.attention_dropout = 0.5
    policy.train()
    copy = FrozenCopy(policy)
    cached = CachedReference(policy, tmp_path)
    cached.fill(policy, batches, "corpus")
    assert policy.training
    with torch.no_grad():
        assert relative(policy.logps(batches[0]), expected) > 1e-3
    for reference in (copy, cached):
        assert relative(reference.logps(batches[0]), expected) <= 1e-5
    assert not copy.logps(batches[0]).requires_grad


def test_the_copy_stays_when_the_policy_moves(policy: Backbone, batches: list[TreeBatch]) -> None:
    reference = FrozenCopy(policy)
    before = reference.logps(batches[0])
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.01)
        assert relative(policy.logps(batches[0]), before) > 1e-4
    assert torch.equal(reference.logps(batches[0]), before)
    assert not any(p.requires_grad for p in reference.backbone.parameters())
