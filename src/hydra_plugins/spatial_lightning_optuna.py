"""The Optuna sweeper where Hydra looks for plugins; Hydra imports this whenever it starts, so nothing heavy is imported here."""

from __future__ import annotations

from typing import Any, final

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@final
class OptunaSweeper(Sweeper):
    """Hands jobs that Optuna draws to the launcher (:mod:`spatial_lightning.runs.optuna_search`).

    Args:
        settings: of ``conf/hydra/sweeper/optuna.yaml``.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before :meth:`sweep`."""
        self.folder, self.loader = str(config.hydra.sweep.dir), hydra_context.config_loader
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until there are enough."""
        from spatial_lightning.runs.optuna_search import search

        search(self.launcher, self.loader, self.folder, arguments, **self.settings)
