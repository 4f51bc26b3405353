from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from spatial_lightning.runs.build import build
from spatial_lightning.runs.config import CONF, PROJECT, ConfigError, check_command_line, compose_run
from spatial_lightning.runs.corpora import Corpus
from spatial_lightning.runs.directory import config_hash
from spatial_lightning.runs.mixed import corpora_of
from spatial_lightning.runs.training import check

GIVEN = {
    "sft_spare": ["data.reader.path=rows.jsonl"],
    "mixture_5pct_spatial": ["data.corpora.general.reader.path=rows.jsonl"],
}
"""What experiments on corpora of the user's own have to be told."""
EXPERIMENTS = sorted(path.stem for path in (PROJECT / "experiments").glob("*.yaml"))


def test_there_are_experiments() -> None:
    assert {"sft_spatialvlm", "fdpo_vit_unfrozen", "pretrain_tiny"} <= set(EXPERIMENTS)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_is_consistent_and_bears_its_file_name(name: str) -> None:
    config = compose_run([f"+experiment={name}", *GIVEN.get(name, [])])
    check(config)
    assert config.name == name
    OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    for node in corpora_of(config).values():
        build(node.corpus)
    build(config.towers)
    build(config.optimization)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_in_the_readme(name: str) -> None:
    assert f"`{name}`" in (PROJECT / "experiments" / "README.md").read_text()


@pytest.mark.parametrize(
    "group", sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")
)
def test_every_yaml_of_every_group_composes(group: str) -> None:
    files = sorted((CONF / group).glob("*.yaml"))
    assert files
    for path in files:
        if group not in ("experiment", "sweep"):
            # Readers of corpora are chosen beside the data that they are for.
            command = "evaluate" if group in ("benchmark", "judge") else "train"
            compose_run([f"{'+' * (group == 'corpus')}{group}={path.stem}"], command)


@pytest.mark.parametrize(
    ("overrides", "hint"),
    [
        (["+experiment=fdpo_vit_unfrozn"], "did you mean fdpo_vit_unfrozen"),
        (["trainer.max_step=3"], "did you mean trainer.max_steps"),
        (["objective=fdpo", "objective.alphaa=0.1"], "did you mean objective.alpha"),
        (["backbone=tny"], "did you mean tiny"),
        (["backbone=null"], "there is no backbone 'null'"),
        (["sweep=vit_freeze"], r"\+sweep=\.\.\., with a plus"),
        (["experiment=fdpo_vit_unfrozen"], r"\+experiment=\.\.\., with a plus"),
        (["+objective=dpo"], r"objective=\.\.\., without the plus"),
        (["sed=1"], "did you mean seed"),
        (["+sed=1"], "did you mean seed"),
        (["seed=x"], "seed"),
    ],
)
def test_mistyped_names_fail_with_the_closest(overrides: list[str], hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        compose_run(overrides)


def test_a_mistyped_option_in_a_list_fails_before_any_job_runs() -> None:
    with pytest.raises(ConfigError, match="did you mean dpo_vit_frozen"):
        check_command_line(["-m", "+experiment=dpo_vit_frozn,dpo_vit_unfrozen"])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["objective=fdpo"], "data=preferences"),
        (["trainer.precision=16-true"], "choose 16-mixed"),
        (
            ["towers=lora", "towers.language.dropout=0.1", "objective=dpo", "data=preferences", "reference=cached"],
            "Set dropout to 0",
        ),
        (
            ["objective=dpo", "data=preferences", "reference=adapter_off"],
            "towers.vision, towers.projector, towers.language would move",
        ),
        (
            ["towers=lora_vit_full", "objective=dpo", "data=preferences", "reference=adapter_off"],
            "towers.vision, towers.projector would move",
        ),
        (
            ["towers=lora", "towers.language.mode=frozen", "towers.language.rank=16"],
            "alpha have no effect in mode frozen",
        ),
        (["data=preferences"], "would imitate rejected responses: set data.module.chosen_only=true"),
        (["+experiment=dpo_vit_frozen", "data.module.chosen_only=true"], "chosen_only=false"),
        (["towers.language.mode=half"], "allowed: full, frozen, lora"),
        (["trainer.max_steps=abc"], "trainer.max_steps is 'abc'; it takes a number"),
        (["backbone.quantization=nf4"], "towers=qlora"),
        (["optimization.optimizer=muon", "trainer.strategy=fsdp"], "muon needs whole matrices"),
        (
            [
                "objective=fdpo",
                "data=preferences",
                "objective.shuffle_segments=true",
                "objective.segment_context=independent",
            ],
            "single_pass",
        ),
    ],
)
def test_combinations_that_cannot_work_are_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check(compose_run(overrides))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "question"}, "data.kind"),
        ({"kind": "questions", "scenes": "clevr"}, "needs data.root"),
        ({"kind": "questions", "root": "x"}, "data.scenes=clevr"),
        ({"kind": "questions", "difficulty": "insane"}, "allowed: easy"),
        ({"kind": "questions", "val_share": 1.0}, "between 0 and 1"),
        ({"kind": "questions", "train_images": None}, "at least 1"),
        ({"kind": "traces", "val_kinds": ["count"]}, "val_kinds is for questions and preferences"),
    ],
)
def test_impossible_corpora_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Corpus(**settings)  # type: ignore[arg-type]


def test_build_names_the_closest_setting() -> None:
    with pytest.raises(ConfigError, match="did you mean difficulty"):
        build({"_target_": "spatial_lightning.runs.corpora.Corpus", "kind": "questions", "dificulty": "easy"})


def test_the_hash_follows_what_is_learned_and_nothing_else(tmp_path: Path) -> None:
    base = config_hash(compose_run(["+experiment=fdpo_vit_unfrozen"]))
    same = config_hash(compose_run(["+experiment=fdpo_vit_unfrozen", f"outputs={tmp_path}", "logger.wandb=off"]))
    other = config_hash(compose_run(["+experiment=fdpo_vit_unfrozen", "objective.alpha=0.2"]))
    assert base == same != other
