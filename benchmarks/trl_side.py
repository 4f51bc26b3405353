"""TRL's side of the comparison: its own trainers, collators, losses and training step, one row a question or response."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Image, List
from material import trains
from our_side import BETA
from transformers import AutoModelForImageTextToText, TrainerCallback
from turns import Row, Turns

from spatial_lightning.backbones.processor import Processor
from spatial_lightning.records import ImageQuestions, PreferencePair


class TrlSide:
    """Trains on one fixed batch of records with TRL's trainer for them, step after step.

    A step is one of the trainer's own loop: forward and backward of each micro-batch, clipping, update. The prompts are
    given as text, so that both sides see the conversation that the chat template writes.

    Args:
        folder: as ``write_model`` leaves it, with the directories ``policy`` and ``reference``.
        records: questions about images (SFT) or preference pairs (DPO with a live reference).
        micro: questions or pairs a forward; the step accumulates over all of them.
        trained_positions_only: let the head run at trained positions only. TRL does that where Triton kernels run; elsewhere
            its head runs at every position, and this switch shows how much of its time that is.
    """

    def __init__(
        self,
        folder: Path,
        records: Sequence[ImageQuestions] | Sequence[PreferencePair],
        *,
        micro: int,
        dtype: str = "float32",
        checkpointing: bool = False,
        device: str = "cpu",
        lr: float = 1e-5,
        trained_positions_only: bool = False,
    ) -> None:
        if trained_positions_only:
            import trl.trainer.utils

            trl.trainer.utils._use_triton = lambda device: True  # pyright: ignore[reportPrivateImportUsage]
        self.preference = isinstance(records[0], PreferencePair)
        rows = list(_pairs(folder, records) if self.preference else _questions(folder, records))
        dataset = Dataset.from_list(rows).cast_column("images", List(Image(mode="RGB")))
        options = _options(folder, device) | {
            "per_device_train_batch_size": micro,
            "gradient_checkpointing": checkpointing,
            "learning_rate": lr,
        }
        model = _model(folder / "policy", dtype, device)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(trains(name))
        # transformers' own class for the model, without torchvision, which AutoProcessor needs for some families.
        processor = Processor(folder / "policy").composed
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self.preference:
                from trl.trainer.dpo_config import DPOConfig
                from trl.trainer.dpo_trainer import DPOTrainer

                self.trainer: Any = DPOTrainer(
                    model,
                    ref_model=_model(folder / "reference", dtype, device),
                    args=DPOConfig(**options, beta=BETA),
                    train_dataset=dataset,
                    processing_class=processor,
                )
            else:
                from trl.trainer.sft_config import SFTConfig
                from trl.trainer.sft_trainer import SFTTrainer

                self.trainer = SFTTrainer(
                    model,
                    args=SFTConfig(**options, completion_only_loss=True),
                    train_dataset=dataset,
                    processing_class=processor,
                )
        chunks = [range(start, min(start + micro, len(rows))) for start in range(0, len(rows), micro)]
        self.batches = [self.trainer.data_collator([dataset[index] for index in chunk]) for chunk in chunks]
        self.trainer.args.gradient_accumulation_steps = len(self.batches)
        # Collated once: neither side's figures contain the preparation of data, which other processes do in training.
        self.trainer.get_train_dataloader = lambda: self.batches
        self.losses: list[torch.Tensor] = []
        self.trainer.training_step = self._recorded(self.trainer.training_step)

    def trained_parameters(self) -> list[str]:
        """Names of the weights that learn."""
        return sorted(name for name, p in self.trainer.model.named_parameters() if p.requires_grad)

    def rows(self) -> list[Row]:
        """Every sequence without its padding, pairs as chosen and rejected in turn."""
        rows = []
        for batch in self.batches:
            trained = batch["completion_mask"].bool() if self.preference else batch["labels"] != -100
            own = [
                (ids[mask].tolist(), targets[mask].tolist())
                for ids, mask, targets in zip(batch["input_ids"], batch["attention_mask"].bool(), trained, strict=True)
            ]
            half = len(own) // 2
            rows += (
                [row for pair in zip(own[:half], own[half:], strict=True) for row in pair] if self.preference else own
            )
        return rows

    def _recorded(self, training_step: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def step(*arguments: Any, **options: Any) -> torch.Tensor:
            self.losses.append(training_step(*arguments, **options))
            return self.losses[-1]

        return step

    def run(self, steps: int, turns: Turns) -> None:
        """Train for some steps in TRL's own loop."""
        self.trainer.args.max_steps = steps
        self.trainer.add_callback(_Turns(turns, self.losses))
        self.trainer.train()


class _Turns(TrainerCallback):
    """Waits for its turn before each step of a trainer and reports the loss behind it."""

    def __init__(self, turns: Turns, losses: list[torch.Tensor]) -> None:
        self.turns, self.losses = turns, losses

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.losses.clear()
        self.turns.begin()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.turns.end(float(sum(self.losses)))


def _questions(folder: Path, records: Sequence[Any]) -> Iterator[dict[str, Any]]:
    processor = Processor(folder / "policy")
    for record in records:
        frame = processor.frame(len(record.images))
        for question in record.questions:
            yield {
                "images": [str(path) for path in record.images],
                "prompt": frame.prefix + question.text + frame.question_end,
                "completion": frame.answer_start + question.answer + frame.answer_end,
            }


def _pairs(folder: Path, records: Sequence[Any]) -> Iterator[dict[str, Any]]:
    processor = Processor(folder / "policy")
    for record in records:
        frame = processor.frame(len(record.images))
        yield {
            "images": [str(path) for path in record.images],
            "prompt": frame.prefix + record.question.text + frame.question_end,
            "chosen": frame.answer_start + record.chosen.text + frame.answer_end,
            "rejected": frame.answer_start + record.rejected.text + frame.answer_end,
        }


def _options(folder: Path, device: str) -> dict[str, Any]:
    """Settings that both trainers share: the fastest kernels that are installed, and nothing beside the step."""
    on_gpu = device != "cpu"
    return {
        "output_dir": str(folder / "trl"),
        "max_length": None,
        "bf16": False,  # the weights have the type to compute in; this flag would add autocast
        "use_cpu": not on_gpu,
        "optim": "adamw_torch_fused" if on_gpu else "adamw_torch",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "lr_scheduler_type": "constant",
        "report_to": "none",
        "logging_strategy": "no",
        "save_strategy": "no",
        "remove_unused_columns": False,
        "disable_tqdm": True,
        "use_liger_kernel": on_gpu and importlib.util.find_spec("liger_kernel") is not None,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "dataloader_pin_memory": False,
    }


def _model(path: Path, dtype: str, device: str) -> Any:
    flash = device != "cpu" and importlib.util.find_spec("flash_attn") is not None
    model: Any = AutoModelForImageTextToText.from_pretrained(
        path,
        dtype=getattr(torch, dtype),
        attn_implementation="flash_attention_2" if flash else "sdpa",
    )
    return model.to(device)
