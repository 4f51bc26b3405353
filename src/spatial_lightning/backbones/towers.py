"""Which parts of a backbone learn, and how fast: one plan for the vision, projector and language tower."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from spatial_lightning.backbones.backbone import TOWERS, Backbone
from spatial_lightning.backbones.processor import BackboneError

MODES = ("full", "frozen")


@dataclass(frozen=True, slots=True)
class Tower:
    """How one tower is trained.

    Attributes:
        mode: ``full`` trains every parameter, ``frozen`` none.
        lr: learning rate of the tower; None takes the optimizer's.

    Raises:
        BackboneError: unknown mode, or a learning rate for a frozen tower.
    """

    mode: Literal["full", "frozen"] = "full"
    lr: float | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise BackboneError(f"tower mode is {self.mode!r}; allowed: {', '.join(MODES)}")
        if self.mode == "frozen" and self.lr is not None:
            raise BackboneError("a frozen tower has no learning rate: set its lr to null or its mode to full")
        if self.lr is not None and self.lr <= 0:
            raise BackboneError(f"tower learning rate is {self.lr}; it must be above 0")


@dataclass(frozen=True, slots=True)
class TowerReport:
    """What a plan did to one tower: modules matched, parameters in all and trained, learning rate."""

    tower: str
    modules: tuple[str, ...]
    mode: str
    parameters: int
    trained: int
    lr: float | None


@dataclass(frozen=True)
class TowerPlan:
    """Freezing and learning rates of the three towers, applied to a backbone in one place.

    Attributes:
        modules: extra rules by module path (e.g. ``model.visual.blocks.0: frozen``), each ``full`` or ``frozen``; they
            override the tower's mode and must match something.
    """

    vision: Tower = field(default_factory=Tower)
    projector: Tower = field(default_factory=Tower)
    language: Tower = field(default_factory=Tower)
    modules: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, mode in self.modules.items():
            if mode not in MODES:
                raise BackboneError(f"towers.modules.{name} is {mode!r}; allowed: {', '.join(MODES)}")

    def apply(self, backbone: Backbone) -> list[TowerReport]:
        """Set which parameters take a gradient and report it.

        Raises:
            BackboneError: a rule matches no parameter, or nothing at all is left to train.
        """
        matched = {name: 0 for name in self.modules}
        totals = {tower: [0, 0] for tower in TOWERS}
        for name, parameter in backbone.model.named_parameters():
            tower = backbone.tower_of(name)
            mode = getattr(self, tower).mode
            rules = [rule for rule in self.modules if name == rule or name.startswith(rule + ".")]
            for rule in rules:
                matched[rule] += 1
            if rules:
                mode = self.modules[max(rules, key=len)]
            parameter.requires_grad_(mode == "full")
            totals[tower][0] += parameter.numel()
            totals[tower][1] += parameter.numel() * (mode == "full")
        for rule, count in matched.items():
            if not count:
                raise BackboneError(
                    f"tower rule {rule!r} matches no parameter of {backbone.path}; its modules are called like "
                    f"{', '.join(name for name, _ in list(backbone.model.named_parameters())[:3])}"
                )
        if not any(trained for _, trained in totals.values()):
            raise BackboneError("every tower is frozen: there is nothing to train")
        return [
            TowerReport(
                tower,
                backbone.tower_modules[tower],
                getattr(self, tower).mode,
                parameters=totals[tower][0],
                trained=totals[tower][1],
                lr=getattr(self, tower).lr,
            )
            for tower in TOWERS
        ]

    def parameter_groups(self, backbone: Backbone, *, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Optimizer groups, one per tower and decay; norms, biases and embeddings do not decay."""
        embeddings = {
            id(parameter)
            for m in backbone.model.modules()
            if isinstance(m, nn.Embedding)
            for parameter in m.parameters()
        }
        groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
        for name, parameter in backbone.model.named_parameters():
            if parameter.requires_grad:
                decays = parameter.ndim > 1 and id(parameter) not in embeddings
                groups.setdefault((backbone.tower_of(name), decays), []).append(parameter)
        return [
            {
                "params": parameters,
                "lr": getattr(self, tower).lr or lr,
                "weight_decay": weight_decay if decays else 0.0,
                "decays": decays,
                "name": f"{tower}{'' if decays else '_no_decay'}",
            }
            for (tower, decays), parameters in groups.items()
        ]


def format_report(report: list[TowerReport]) -> str:
    """The tower report as a table for the screen."""
    lines = [f"{'tower':<10} {'mode':<7} {'parameters':>14} {'trained':>14} {'lr':>9}  modules"]
    for row in report:
        rate = "default" if row.lr is None else f"{row.lr:g}"
        lines.append(
            f"{row.tower:<10} {row.mode:<7} {row.parameters:>14,} {row.trained:>14,} "
            f"{rate if row.trained else '-':>9}  {', '.join(row.modules)}"
        )
    return "\n".join(lines)
