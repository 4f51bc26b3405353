"""Processes of one run agree on its directory, and devices that cannot be used are refused in words."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from spatial_lightning.runs.config import CONF, ConfigError, compose_run, register
from spatial_lightning.runs.launch import ranks_of, require_devices, shared_directory
from spatial_lightning.runs.training import check

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
SLURM = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_ID": "12", "SLURM_STEP_ID": "0"}


def test_a_process_alone_and_those_that_lightning_starts_keep_their_directory() -> None:
    assert shared_directory(["seed=1"], {}) == []
    assert shared_directory(["hydra.run.dir=x"], {**SLURM, "SLURM_PROCID": "1", "LOCAL_RANK": "1"}) == []


def test_tasks_of_a_slurm_step_share_a_directory_and_the_first_writes_the_configuration() -> None:
    first, second = (shared_directory([], {**SLURM, "SLURM_PROCID": rank}) for rank in "01")
    assert first == ["hydra.run.dir=${outputs}/${name}/slurm-12-0", "hydra.sweep.dir=${outputs}/${name}/slurm-12-0"]
    assert second == [*first, "hydra.job.name=train_1", "hydra.output_subdir=null"]
    own = shared_directory(["hydra.run.dir=here"], {**SLURM, "SLURM_PROCID": "0"})
    assert own == first[1:]


@pytest.mark.slow
def test_processes_of_torchrun_share_a_directory() -> None:
    script = (
        "import sys; from spatial_lightning.runs.launch import *; sys.stdout.write(shared_directory([])[0] + '\\n')"
    )
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    done = subprocess.run(
        [sys.executable, *launcher, sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [line for line in done.stdout.splitlines() if line.startswith("hydra.run.dir=")]
    assert len(found) == 2
    assert len(set(found)) == 1


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["trainer=fsdp", "trainer.devices=1"], "choose trainer=default"),
        (["trainer=fsdp", "trainer.devices=2", "trainer.precision=16-mixed"], "choose bf16-mixed"),
        (["trainer=fsdp", "trainer.devices=2", "backbone.engine=separate"], "set it to shared"),
        (["trainer=fsdp", "trainer.devices=2", "optimization.optimizer=adamw_8bit"], "choose adamw"),
        (["trainer=fsdp", "trainer.devices=2", "optimization.optimizer=muon"], "optimizer=adamw, or strategy ddp"),
        (["trainer.devices=100000"], "set trainer.devices to"),
    ],
)
def test_devices_and_strategies_that_cannot_work_are_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check(compose_run(["trainer.accelerator=cpu", *overrides]))


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(ConfigError, match="no CUDA device"):
        check(compose_run(["trainer.accelerator=gpu"]))


def test_processes_that_the_trainer_does_not_expect_are_refused() -> None:
    """Each would train the whole run by itself and write over the others."""
    with pytest.raises(ConfigError, match=r"set trainer\.devices=2 trainer\.num_nodes=2"):
        require_devices(compose_run(["trainer.accelerator=cpu"]), TORCHRUN)
    fitting = compose_run(["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.num_nodes=2"])
    require_devices(fitting, TORCHRUN)
    assert ranks_of(fitting) == 4


def test_the_slurm_launcher_starts_a_task_for_each_device() -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra [cluster]")
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(
            "train",
            ["hydra/launcher=slurm", "trainer=fsdp", "trainer.devices=4", "trainer.num_nodes=2"],
            return_hydra_config=True,
        )
    launcher = config.hydra.launcher
    assert (launcher.nodes, launcher.tasks_per_node, launcher.gpus_per_node) == (2, 4, 4)
    assert launcher._target_.endswith("SlurmLauncher")
    assert OmegaConf.to_container(config.trainer.strategy) == {
        "_target_": "spatial_lightning.modules.sharding.FSDP2Strategy"
    }
