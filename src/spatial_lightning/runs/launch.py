"""The processes of one run: how many there should be, and the run directory that they all take."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from omegaconf import DictConfig
from torch.distributed.rendezvous import rendezvous

from spatial_lightning.runs.config import ConfigError

_FOLDERS = {"hydra.run.dir": "${outputs}/${name}/", "hydra.sweep.dir": "${outputs}/${name}/"}


def shared_directory(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> list[str]:
    """Hydra overrides that give every process which a launcher started the same run directory.

    Lightning's own processes and those of the submitit launcher have it from where they were started; under torchrun and
    srun each process composes its own configuration, time included.

    Args:
        arguments: the command line, whose own choice of a directory stands.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        stamp, rank = _agreed_time(environment), int(environment["RANK"])
    elif int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "LOCAL_RANK" not in environment:
        stamp, rank = (
            f"slurm-{environment['SLURM_JOB_ID']}-{environment['SLURM_STEP_ID']}",
            int(environment["SLURM_PROCID"]),
        )
    else:
        return []
    given = {argument.partition("=")[0].lstrip("+") for argument in arguments}
    overrides = [f"{key}={folder}{stamp}" for key, folder in _FOLDERS.items() if key not in given]
    # One process writes the composed configuration, each a log of its own.
    return overrides + ([f"hydra.job.name=train_{rank}", "hydra.output_subdir=null"] if rank else [])


def require_devices(config: DictConfig, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse devices that are not there or that a launcher has not started processes for, and FSDP where it cannot work.

    Raises:
        ConfigError: what was asked for, what there is, and what to change.
    """
    trainer = config.trainer
    devices, what = _devices(trainer)
    nodes, ranks = int(trainer.get("num_nodes", 1)), ranks_of(config)
    started = int(environment.get("WORLD_SIZE", 0)) if "TORCHELASTIC_RUN_ID" in environment else 0
    if started and started != ranks:
        local = int(environment["LOCAL_WORLD_SIZE"])
        raise ConfigError(
            f"torchrun started {started} processes, {local} on this machine; trainer.devices={trainer.devices} ({devices} "
            f"{what}) on trainer.num_nodes={nodes} are {ranks}: set trainer.devices={local} "
            f"trainer.num_nodes={max(1, started // local)}"
        )
    if not _is_fsdp(trainer):
        return
    if ranks < 2:
        raise ConfigError(
            f"trainer=fsdp cuts weights over devices, and trainer.devices={trainer.devices} is one: choose trainer=default"
        )
    if str(trainer.get("precision")).startswith("16"):
        raise ConfigError(
            f"trainer.precision={trainer.precision} scales the loss by what each rank sees of the gradient, and FSDP cuts "
            "gradients up: choose bf16-mixed, bf16-true or 32-true, or trainer=ddp"
        )
    if config.optimization.get("optimizer") == "adamw_8bit":
        raise ConfigError(
            "optimization.optimizer=adamw_8bit cannot read weights that FSDP cuts up: choose adamw, whose state FSDP cuts "
            "as well, or trainer=ddp"
        )
    if config.backbone.get("quantization") is not None:
        raise ConfigError(
            f"backbone.quantization={config.backbone.quantization} with trainer=fsdp: quantised weights cannot be cut up. "
            "Set it to null, or choose trainer=ddp"
        )
    if config.backbone.get("engine", "shared") != "shared":
        raise ConfigError(
            f"backbone.engine={config.backbone.engine} takes a pass for every few answers, which FSDP's ranks would have to "
            "take together: set it to shared, or choose trainer=ddp"
        )


def ranks_of(config: DictConfig) -> int:
    """Processes that share a training step.

    Raises:
        ConfigError: there are not as many devices.
    """
    return _devices(config.trainer)[0] * int(config.trainer.get("num_nodes", 1))


def _devices(trainer: Any) -> tuple[int, str]:
    """Devices asked for on this machine, and what they are.

    Raises:
        ConfigError: more than there are.
    """
    kind, asked = str(trainer.get("accelerator", "auto")), trainer.get("devices", "auto")
    there = torch.cuda.device_count()
    cuda = kind in ("gpu", "cuda") or (kind == "auto" and there > 0)
    if cuda and not there:
        raise ConfigError(f"trainer.accelerator={kind}, and this machine has no CUDA device: set it to auto or cpu")
    what, limit = ("CUDA devices", there) if cuda else ("CPU processes", os.cpu_count() or 1)
    if asked in ("auto", -1, "-1"):
        return (there if cuda else 1), what
    if isinstance(asked, int) or str(asked).isdigit():
        wanted = int(asked)
    else:
        wanted = len(asked) if not isinstance(asked, str) else len(asked.split(","))
    if wanted > limit:
        raise ConfigError(
            f"trainer.devices={asked}, and this machine has {limit} {what}: set trainer.devices to {limit} or fewer"
            + (", or trainer.num_nodes to the number of machines" if cuda else "")
        )
    return wanted, what


def _is_fsdp(trainer: Any) -> bool:
    strategy = trainer.get("strategy")
    return isinstance(strategy, DictConfig) and str(strategy.get("_target_", "")).endswith(".FSDP2Strategy")


def _agreed_time(environment: Mapping[str, str]) -> str:
    """The first process's time, which the others read from torchrun's store."""
    # Every restart is a run of its own.
    name = f"spatial_lightning/started/{environment.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    store, rank, _ = next(rendezvous("env://"))
    if rank == 0:
        store.set(name, time.strftime("%Y-%m-%d_%H-%M-%S"))
    return store.get(name).decode()
