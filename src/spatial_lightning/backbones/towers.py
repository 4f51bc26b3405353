"""Which parts of a backbone learn, and how fast: one plan for the vision, projector and language tower."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Literal

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from spatial_lightning.backbones.adapters import (
    ALL_LINEAR,
    find_targets,
    is_adapter,
    is_quantized,
    plain_modules,
    values,
)
from spatial_lightning.backbones.backbone import Backbone
from spatial_lightning.backbones.processor import BackboneError
from spatial_lightning.backbones.structure import TOWERS

MODES = ("full", "frozen", "lora")


@dataclass(frozen=True, slots=True)
class Tower:
    """How one tower is trained.

    Attributes:
        mode: ``full`` trains every parameter, ``frozen`` none, ``lora`` adapters inside the tower (arXiv:2106.09685).
        lr: learning rate of the tower; None takes the optimizer's.
        checkpointing: keep only the inputs of the tower's layers and compute the rest again in the backward pass.
        rank: of each adapter, at least 1.
        alpha: adapters are scaled by alpha / rank.
        dropout: share of an adapter's inputs left out in training, in [0, 1).
        targets: which linear modules get an adapter: ``all-linear``, all of the tower but the output head, or the ends of
            module paths (``q_proj``, ``attn.qkv``), which are looked for inside the tower only.
        rslora: scale by alpha over the root of the rank instead (arXiv:2312.03732).
        dora: learn each output's magnitude apart from its direction (arXiv:2402.09353).

    Raises:
        BackboneError: unknown mode, a value outside its range, or a setting without effect in this mode.
    """

    mode: Literal["full", "frozen", "lora"] = "full"
    lr: float | None = None
    checkpointing: bool = False
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: str | Iterable[str] = ALL_LINEAR
    rslora: bool = False
    dora: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise BackboneError(f"tower mode is {self.mode!r}; allowed: {', '.join(MODES)}")
        if self.mode == "frozen" and self.lr is not None:
            raise BackboneError("a frozen tower has no learning rate: set its lr to null or its mode to full")
        if self.lr is not None and self.lr <= 0:
            raise BackboneError(f"tower learning rate is {self.lr}; it must be above 0")
        if self.targets != ALL_LINEAR:
            given = (self.targets,) if isinstance(self.targets, str) else tuple(self.targets)
            if not given:
                raise BackboneError(f"tower targets are empty: name linear modules, or {ALL_LINEAR}")
            object.__setattr__(self, "targets", given)
        if self.mode != "lora":
            idle = [f.name for f in fields(self) if f.name in _LORA and getattr(self, f.name) != f.default]
            if idle:
                raise BackboneError(
                    f"tower settings {', '.join(idle)} have no effect in mode {self.mode}: set mode to lora"
                )
        if self.rank < 1 or self.alpha <= 0:
            raise BackboneError(f"tower rank is {self.rank} and alpha {self.alpha}; both must be above 0")
        if not 0 <= self.dropout < 1:
            raise BackboneError(f"tower dropout is {self.dropout}; it must be at least 0 and below 1")

    def adapter(self) -> dict[str, Any]:
        """The settings of the tower's adapter, as :func:`spatial_lightning.backbones.adapters.attach` takes them."""
        return {name: getattr(self, name) for name in _LORA if name != "targets"}


_LORA = ("rank", "alpha", "dropout", "targets", "rslora", "dora")


@dataclass(frozen=True, slots=True)
class TowerReport:
    """What a plan did to one tower.

    Attributes:
        modules: paths of the modules that make the tower.
        parameters: weights in all, adapters included.
        trained: weights that take a gradient.
        adapted: paths of the linear modules with an adapter.
        checkpointed: layers that are computed again in the backward pass.
        dead: weights that never get a gradient in this family, and take none.
    """

    tower: str
    modules: tuple[str, ...]
    mode: str
    parameters: int
    trained: int
    lr: float | None
    adapted: tuple[str, ...] = ()
    checkpointed: int = 0
    dead: int = 0


@dataclass(frozen=True)
class TowerPlan:
    """Freezing, adapters and learning rates of the three towers, applied to a backbone in one place.

    Attributes:
        modules: extra rules by module path (e.g. ``model.visual.blocks.0: frozen``), each ``full`` or ``frozen``; they
            override the tower's mode, must match something, and keep adapters out.
    """

    vision: Tower = field(default_factory=Tower)
    projector: Tower = field(default_factory=Tower)
    language: Tower = field(default_factory=Tower)
    modules: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, mode in self.modules.items():
            if mode not in ("full", "frozen"):
                raise BackboneError(f"towers.modules.{name} is {mode!r}; allowed: full, frozen")

    @property
    def towers(self) -> dict[str, Tower]:
        """The three towers by name."""
        return {tower: getattr(self, tower) for tower in TOWERS}

    def require_adapters_only(self) -> None:
        """Refuse plans that train anything beside adapters, whose start is lost once they have moved.

        Raises:
            BackboneError: what else is trained.
        """
        full = [f"towers.{name}" for name, tower in self.towers.items() if tower.mode == "full"]
        full += [f"towers.modules.{name}" for name, mode in self.modules.items() if mode == "full"]
        if full:
            raise BackboneError(
                f"reference=adapter_off takes the weights beneath the adapters, which {', '.join(full)} would move: set "
                "them to lora or frozen, or choose reference=cached or frozen_copy"
            )
        if all(tower.mode != "lora" for tower in self.towers.values()):
            raise BackboneError("reference=adapter_off needs a tower in mode lora (towers=lora): there are no adapters")

    def apply(self, backbone: Backbone) -> list[TowerReport]:
        """Put adapters in, set which parameters take a gradient and what is checkpointed, and report it.

        Raises:
            BackboneError: a rule or target matches nothing it may, or nothing at all is left to train.
        """
        lora = {name: tower.mode == "lora" for name, tower in self.towers.items()}
        targets = {name: tuple(self._targets(backbone, name)) if lora[name] else () for name in TOWERS}
        for name, modules in targets.items():
            backbone.adapt(name, modules, getattr(self, name).adapter())
        matched = dict.fromkeys(self.modules, 0)
        totals = {tower: [0, 0, 0] for tower in TOWERS}
        for name, parameter in backbone.model.named_parameters():
            tower, rule = backbone.tower_of(name), self._rule(name)
            for other in self.modules:
                matched[other] += _is_below(name, other)
            mode = self.modules[rule] if rule else getattr(self, tower).mode
            trained = (mode == "full" or (mode == "lora" and is_adapter(name))) and not backbone.is_dead(name)
            if trained and is_quantized(parameter):
                raise BackboneError(
                    f"{name} is quantised and cannot be trained: set towers.{tower}.mode to lora or frozen, "
                    "or backbone.quantization to null"
                )
            parameter.requires_grad_(trained)
            totals[tower][0] += values(parameter)
            totals[tower][1] += values(parameter) * trained
            totals[tower][2] += values(parameter) * backbone.is_dead(name)
        for rule, count in matched.items():
            if not count:
                raise BackboneError(
                    f"tower rule {rule!r} matches no parameter of {backbone.path}; its modules are called like "
                    f"{', '.join(name for name, _ in list(backbone.model.named_parameters())[:3])}"
                )
        if not any(trained for _, trained, _ in totals.values()):
            raise BackboneError("every tower is frozen: there is nothing to train")
        checkpointed = self._checkpoint(backbone)
        return [
            TowerReport(
                name,
                backbone.tower_modules[name],
                tower.mode,
                parameters=totals[name][0],
                trained=totals[name][1],
                lr=tower.lr,
                adapted=backbone.adapters[name][0] if name in backbone.adapters else (),
                checkpointed=checkpointed[name],
                dead=totals[name][2],
            )
            for name, tower in self.towers.items()
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

    def _rule(self, name: str) -> str | None:
        """The extra rule for a module or parameter; the longest decides."""
        return max((rule for rule in self.modules if _is_below(name, rule)), key=len, default=None)

    def _targets(self, backbone: Backbone, tower: str) -> list[str]:
        """Paths of the linear modules that a tower's adapters go to."""
        inside: dict[str, nn.Module] = {}
        elsewhere: dict[str, str] = {}
        for name, module in plain_modules(backbone.model):
            try:
                rule, owner = self._rule(name), backbone.tower_of(name)
            except BackboneError:
                continue  # holds several towers
            if backbone.is_dead(name):
                elsewhere[name] = "backbone.dead, which never learns"
            elif owner == tower and rule is None:
                inside[name] = module
            else:
                mode = self.modules[rule] if rule else getattr(self, owner).mode
                place = f"the {owner} tower" if owner != tower else f"towers.modules.{rule}"
                elsewhere[name] = f"{place}{', which is frozen' if mode == 'frozen' else ''}"
        try:
            return find_targets(getattr(self, tower).targets, inside, elsewhere, backbone.model)
        except BackboneError as error:
            raise BackboneError(f"towers.{tower}.targets of {backbone.path}: {error}") from None

    def _checkpoint(self, backbone: Backbone) -> Counter[str]:
        """Switch checkpointing of each tower's layers on or off, and count those that are on."""
        counts: Counter[str] = Counter()
        for name, module in backbone.model.named_modules():
            if isinstance(module, GradientCheckpointingLayer):
                owner = backbone.tower_of(name)
                module.gradient_checkpointing = getattr(self, owner).checkpointing
                # Reentrant checkpointing loses the gradient where the inputs take none, as behind frozen embeddings.
                recomputed: Any = partial(checkpoint, use_reentrant=False)
                module._gradient_checkpointing_func = recomputed
                counts[owner] += module.gradient_checkpointing
        for name, tower in self.towers.items():
            if tower.checkpointing and not counts[name]:
                raise BackboneError(
                    f"towers.{name}.checkpointing: no layer of the {name} tower of {backbone.path} supports it; "
                    "set it to false"
                )
        return counts


def format_report(report: list[TowerReport]) -> str:
    """The tower report as a table for the screen."""
    lines = [f"{'tower':<10} {'mode':<7} {'parameters':>14} {'trained':>14} {'lr':>9}  modules"]
    for row in report:
        rate = "default" if row.lr is None else f"{row.lr:g}"
        notes = [", ".join(row.modules)]
        if row.adapted:
            kinds = Counter(name.rsplit(".", 1)[-1] for name in row.adapted)
            notes += [f"LoRA in {', '.join(f'{count} {kind}' for kind, count in kinds.items())}"]
        if row.checkpointed:
            notes += [f"{row.checkpointed} layers checkpointed"]
        if row.dead:
            notes += [f"{row.dead:,} weights never get a gradient"]
        lines.append(
            f"{row.tower:<10} {row.mode:<7} {row.parameters:>14,} {row.trained:>14,} "
            f"{rate if row.trained else '-':>9}  {'; '.join(notes)}"
        )
    return "\n".join(lines)


def _is_below(name: str, rule: str) -> bool:
    return name == rule or name.startswith(rule + ".")
