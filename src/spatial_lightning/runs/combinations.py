"""Settings of towers, reference, quantisation and optimizer that do not go together, refused before anything is loaded."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from spatial_lightning.backbones.processor import BackboneError
from spatial_lightning.backbones.towers import TowerPlan
from spatial_lightning.runs.build import build
from spatial_lightning.runs.config import ConfigError
from spatial_lightning.runs.mixed import corpora_of

_NUMBERS = ("max_steps", "max_epochs", "val_check_interval", "log_every_n_steps")
_SHARDED = ("fsdp", "modelparallel", "deepspeed")


def require_fitting(config: DictConfig) -> None:
    """Refuse what cannot work together.

    Raises:
        ConfigError: what does not go together and what to change.
    """
    for name in _NUMBERS:
        value = config.trainer.get(name)
        if value is not None and not isinstance(value, int | float):
            raise ConfigError(f"trainer.{name} is {value!r}; it takes a number")
    _require_traces(config)
    _require_sides(config)
    try:
        plan: TowerPlan = build(config.towers)
        if config.reference.kind == "adapter_off":
            plan.require_adapters_only()
    except BackboneError as error:
        raise ConfigError(str(error)) from error
    noisy = [f"towers.{name}.dropout" for name, tower in plan.towers.items() if tower.dropout > 0]
    if noisy and config.reference.kind == "cached":
        raise ConfigError(
            f"{' and '.join(noisy)} above 0 with reference=cached: stored log-probabilities are without dropout, so the "
            "policy would differ from its own reference from the first step on. Set dropout to 0"
        )
    if config.backbone.get("quantization") is not None and plan.language.mode == "full":
        raise ConfigError(
            f"backbone.quantization={config.backbone.quantization} with towers.language.mode=full: quantised weights cannot "
            "be trained. Set the mode to lora (towers=qlora) or frozen, or the quantization to null"
        )
    strategy = _strategy(config.trainer.get("strategy"))
    if config.optimization.get("optimizer") == "muon" and any(name in strategy.lower() for name in _SHARDED):
        raise ConfigError(
            f"optimization.optimizer=muon needs whole matrices, and trainer.strategy={strategy} cuts them up: "
            "choose optimization.optimizer=adamw, or strategy ddp"
        )


def _require_traces(config: DictConfig) -> None:
    """Refuse traces that hold what an objective must not imitate, or lack what it learns from."""
    objective = str(config.objective.get("kind") or config.objective["_target_"].rsplit(".", 1)[-1])
    for name, node in corpora_of(config).items():
        if node.corpus.kind != "traces":
            continue
        place = f"data.corpora.{name}.module" if name else "data.module"
        rejected, answers_only = (node.module.get(key) for key in ("include_rejected", "answers_only"))
        if objective == "SFTModule" and rejected:
            raise ConfigError(
                "objective SFTModule would imitate attempts that the verifier turned down: set "
                f"{place}.include_rejected=false"
            )
        if objective == "step_dpo" and not rejected:
            raise ConfigError(
                f"objective.kind=step_dpo learns from rejected attempts: set {place}.include_rejected=true"
            )
        if answers_only and objective != "SFTModule":
            raise ConfigError(
                f"{place}.answers_only=true has no rated steps, which objective.kind={objective} needs: "
                "choose objective=sft"
            )


def _require_sides(config: DictConfig) -> None:
    """Refuse pairs that an objective would imitate both sides of, or that have one side where it needs two."""
    imitates = str(config.objective["_target_"]).endswith(".SFTModule")
    for name, node in corpora_of(config).items():
        if node.corpus.kind != "preferences" or bool(node.module.get("chosen_only")) == imitates:
            continue
        place = f"data.corpora.{name}.module" if name else "data.module"
        why = "would imitate rejected responses" if imitates else "compares both responses of a pair"
        raise ConfigError(
            f"objective {str(config.objective['_target_']).rsplit('.', 1)[-1]} {why}: set "
            f"{place}.chosen_only={str(imitates).lower()}"
        )


def _strategy(node: Any) -> str:
    """The name of a strategy given as a word or as a component."""
    return str(node.get("_target_", "")).rsplit(".", 1)[-1] if isinstance(node, DictConfig) else str(node)
