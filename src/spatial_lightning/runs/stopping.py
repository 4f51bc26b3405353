"""Ending training when validation no longer improves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping
from omegaconf import DictConfig

from spatial_lightning.runs.config import ConfigError


@final
class StopEarly(EarlyStopping):
    """Lightning's early stopping, looked at after every validation, with a missing metric and the end said in words.

    Args:
        say: is told when training ends.
        monitor, mode, patience, min_delta: see :class:`spatial_lightning.runs.config.EarlyStopping`.
    """

    def __init__(self, say: Callable[[str], None], *, monitor: str, mode: str, patience: int, min_delta: float) -> None:
        super().__init__(monitor, min_delta, patience, mode=mode, check_on_train_epoch_end=False)
        self.say = say

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Look at the metric and stop where it has not improved.

        Raises:
            ConfigError: the metric is not logged.
        """
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if self.monitor not in trainer.callback_metrics:
            names = ", ".join(sorted(name for name in trainer.callback_metrics if name.startswith("val/")))
            raise ConfigError(
                f"early_stopping.monitor={self.monitor} is never logged; validation logs {names or 'nothing'}"
            )
        super().on_validation_end(trainer, pl_module)
        if trainer.should_stop:
            self.say(
                f"stopped at step {trainer.global_step}: {self.monitor} has not improved on {float(self.best_score):.4g} in "
                f"{self.wait_count} validations"
            )


def require_validation(config: DictConfig) -> None:
    """Refuse early stopping that could never stop a run.

    Raises:
        ConfigError: impossible settings, or no validation before the last step.
    """
    stopping = config.early_stopping
    if stopping.patience is None:
        return
    if stopping.mode not in ("min", "max"):
        raise ConfigError(f"early_stopping.mode is {stopping.mode!r}; allowed: min, max")
    if stopping.patience < 1 or stopping.min_delta < 0:
        raise ConfigError(
            f"early_stopping.patience={stopping.patience} and min_delta={stopping.min_delta}: patience must be at least 1, "
            "min_delta at least 0"
        )
    every, steps = config.trainer.get("val_check_interval"), config.trainer.get("max_steps", -1)
    if config.trainer.get("limit_val_batches") == 0 or (isinstance(every, int) and 0 < steps <= every):
        raise ConfigError(
            f"early_stopping needs validations before the last step: trainer.val_check_interval={every}, "
            f"trainer.max_steps={steps}, trainer.limit_val_batches={config.trainer.get('limit_val_batches')}"
        )
