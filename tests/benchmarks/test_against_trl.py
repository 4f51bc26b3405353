"""Our step and TRL's train on the same tokens and start from the same loss; refusals where they would not."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="trl is not installed; it comes with the dev extra")

# TRL and what it imports announce deprecations of their own.
pytestmark = pytest.mark.filterwarnings("ignore")

_SMALL = {
    "vision_config.image_size": 64,
    "vision_config.hidden_size": 32,
    "vision_config.intermediate_size": 64,
    "vision_config.num_attention_heads": 2,
    "vision_config.num_hidden_layers": 1,
    "text_config.hidden_size": 32,
    "text_config.intermediate_size": 64,
    "text_config.head_dim": 16,
    "text_config.num_attention_heads": 2,
    "text_config.num_key_value_heads": 1,
    "text_config.num_hidden_layers": 2,
}


@pytest.fixture(scope="session", autouse=True)
def _scripts(project_root: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(project_root / "benchmarks")
        yield


@pytest.fixture(scope="session")
def folder(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A very small SmolVLM with its real tokenizer, whose pictures are tiles of 64 pixels and one token each."""
    from material import Shape, write_model

    source = shared_data / "tokenizers" / "smolvlm_256m_instruct"
    if not source.is_dir():
        pytest.skip(f"no tokenizer at {source}")
    folder = tmp_path_factory.mktemp("against_trl")
    processor = folder / "processor"
    shutil.copytree(source, processor, copy_function=shutil.copyfile)
    _change(processor / "preprocessor_config.json", max_image_size={"longest_edge": 64}, size={"longest_edge": 128})
    _change(processor / "processor_config.json", image_seq_len=1)
    write_model(folder, config=source, processor=processor, shape=Shape(_SMALL))
    return folder


@pytest.fixture(scope="session")
def clevr(shared_data: Path) -> Sequence[Path]:
    """Two original pictures."""
    from material import pictures

    images = shared_data / "clevr" / "images"
    if not images.is_dir():
        pytest.skip(f"no pictures at {images}")
    return pictures(images, 2)


def test_questions_of_both_sides_are_the_same_tokens_and_the_same_loss(folder: Path, clevr: Sequence[Path]) -> None:
    from against_trl import require_same_loss, require_same_work
    from material import questions
    from our_side import OurSide
    from trl_side import TrlSide

    records = questions(clevr, 3)
    sides = {"trl": TrlSide(folder, records, micro=4), "ours": OurSide(folder, records, objective="sft")}
    require_same_work(_facts(sides))
    losses = {name: _losses(side) for name, side in sides.items()}
    require_same_loss({name: values[0] for name, values in losses.items()})
    assert losses["ours"][1] < losses["ours"][0]
    assert losses["ours"] == pytest.approx(losses["trl"], rel=1e-4)


@pytest.mark.slow
def test_pairs_of_both_sides_are_the_same_tokens_and_the_same_loss(folder: Path, clevr: Sequence[Path]) -> None:
    from against_trl import require_same_loss, require_same_work
    from material import pairs
    from our_side import OurSide
    from trl_side import TrlSide

    records = pairs(clevr, sentences=(2, 5))
    sides = {
        "trl": TrlSide(folder, records, micro=1),
        "ours_live": OurSide(folder, records, objective="dpo", reference="live"),
        "ours_cached": OurSide(folder, records, objective="dpo", reference="cached"),
        "ours_fdpo_cached": OurSide(folder, records, objective="fdpo", reference="cached"),
    }
    require_same_work(_facts(sides))
    losses = {name: _losses(side) for name, side in sides.items()}
    require_same_loss({name: values[0] for name, values in losses.items()})
    # A loss that log-probabilities do not move (ln 2, where policy and reference are one) would compare nothing.
    assert abs(losses["trl"][0] - 0.6931) > 1e-2
    for name in ("ours_live", "ours_cached"):
        assert losses[name] == pytest.approx(losses["trl"], rel=1e-4)
    assert losses["ours_fdpo_cached"][0] != pytest.approx(losses["trl"][0], rel=1e-4)


def test_head_at_trained_positions_leaves_trls_loss(folder: Path, clevr: Sequence[Path]) -> None:
    import trl.trainer.utils
    from material import questions
    from trl_side import TrlSide

    records = questions(clevr[:1], 2)
    everywhere = _losses(TrlSide(folder, records, micro=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trl.trainer.utils, "_use_triton", trl.trainer.utils._use_triton)  # put back afterwards
        only = _losses(TrlSide(folder, records, micro=2, trained_positions_only=True))
    assert only == pytest.approx(everywhere, rel=1e-5)


def test_other_tokens_weights_or_losses_are_refused(folder: Path, clevr: Sequence[Path]) -> None:
    from against_trl import Disagreement, require_same_loss, require_same_work
    from material import questions
    from our_side import OurSide

    side = OurSide(folder, questions(clevr[:1], 2), objective="sft")
    facts = _facts({"trl": side, "ours": side})
    ids, trained = facts["ours"]["rows"][1]
    require_same_work(facts)
    changed = [facts["ours"]["rows"][0], ([*ids[:-1], ids[-1] + 1], trained)]
    with pytest.raises(Disagreement, match=f"sequence 1 of ours .* at token {len(ids) - 1}"):
        require_same_work({**facts, "ours": {**facts["ours"], "rows": changed}})
    with pytest.raises(Disagreement, match="train other weights"):
        require_same_work({**facts, "ours": {**facts["ours"], "parameters": side.trained_parameters()[1:]}})
    with pytest.raises(Disagreement, match="disagree on the loss"):
        require_same_loss({"trl": 1.0, "ours": 1.001})


def test_trl_still_refuses_to_cache_references_of_images() -> None:
    """The table says so; should it come, the comparison has to use it."""
    import inspect

    from trl.trainer.dpo_trainer import DPOTrainer

    assert "`precompute_ref_log_probs=True` is not supported for vision datasets" in inspect.getsource(DPOTrainer)


def _facts(sides: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: {"rows": side.rows(), "parameters": side.trained_parameters()} for name, side in sides.items()}


def _losses(side: Any) -> list[float]:
    from turns import Recorded

    recorded = Recorded()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        side.run(2, recorded)
    return recorded.losses


def _change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
