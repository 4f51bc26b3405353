"""Our training step against TRL's: the same random weights, the same samples, step by step in turns.

python benchmarks/against_trl.py --images FOLDER --processor FOLDER [--model smolvlm_small] [--works sft_8 dpo_cached]
python benchmarks/against_trl.py --images FOLDER --processor FOLDER --device cuda --model qwen2_5_vl_3b --config config.json

--processor is a model directory's tokenizer, chat template and image processor; --config, where it is not among them, the
architecture. Both sides run in a process of their own, with the same number of threads, and take steps in turns (A B A B);
a step is forward, backward, clipping and AdamW, data prepared beforehand. They must see the same tokens and agree on the loss.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from figures import ratio, summary, table
from material import SHAPES, pictures, write_model
from worker import Task, Worker


@dataclass(frozen=True, slots=True)
class Work:
    """One comparison: sides that take the same step in turns, the first being what the others are held against.

    Attributes:
        sides: on a GPU two, so that their weights and optimizers fit on it together.
        questions: about each image; 0 for one preference pair about each.
        target: how many times as fast the last side should be, on a GPU and, where another figure holds there, on a CPU.
    """

    sides: tuple[str, ...]
    questions: int
    target: str


WORKS = {
    "sft_8": Work(("trl", "trl_trained_positions", "ours"), 8, "9 (CPU: 4)"),
    "sft_32": Work(("trl", "trl_trained_positions", "ours"), 32, "16"),
    "dpo_live": Work(("trl", "trl_trained_positions", "ours_live"), 0, "3"),
    "dpo_cached": Work(("trl", "trl_trained_positions", "ours_cached"), 0, "4 (CPU: 2)"),
    "fdpo": Work(("ours_cached", "ours_fdpo_cached"), 0, "0.98 or more"),
}
_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
_PAIR_TOLERANCE = 5e-4
"""Of float32 losses of pairs: differences of sums of thousands of nats. Summed in float32 token by token they are off by some
5e-3 nats for 500 tokens, where the log-probabilities of the tokens agree to 2e-6."""


class Disagreement(RuntimeError):
    """The sides do not train on the same thing, so their times cannot be compared."""


def main() -> None:
    """Build the model, run the works, print ratios and write them."""
    arguments = _arguments()
    if find_spec("trl") is None:
        sys.exit("TRL is not installed; it comes with the dev extra: pip install -e '.[dev]'")
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        folder = Path(scratch)
        write_model(
            folder,
            config=arguments.config or arguments.processor,
            processor=arguments.processor,
            shape=SHAPES[arguments.model],
            device=arguments.device,
        )
        print(", ".join(f"{name} {value}" for name, value in machine(arguments).items()), flush=True)
        results: dict[str, Any] = {}
        micros: dict[bool, int] = {}
        for name in arguments.works:
            task = _task(name, arguments, folder)
            pairwise = task.questions == 0
            try:
                pictures(arguments.images, task.images)
                if "trl" in WORKS[name].sides and pairwise not in micros:
                    micros[pairwise] = arguments.trl_micro or fastest_micro(task)
                task = dataclasses.replace(task, micro=micros.get(pairwise, 1))
                results[name] = compare(WORKS[name], task, arguments.rounds)
            except (RuntimeError, FileNotFoundError) as error:
                sys.exit(f"{name}: {error}")
            print(table(name, results[name]), flush=True)
            if arguments.json:
                facts = {"machine": machine(arguments), "settings": vars(arguments), "works": results}
                arguments.json.write_text(json.dumps(facts, indent=1, default=str) + "\n")


def _task(name: str, arguments: argparse.Namespace, folder: Path) -> Task:
    questions = WORKS[name].questions
    return Task(
        side="trl",
        work=name,
        folder=str(folder),
        pictures=str(arguments.images),
        images=arguments.images_per_step or (8 if arguments.device != "cpu" else 1 if questions else 2),
        questions=questions,
        micro=1,
        shape=arguments.model,
        device=arguments.device,
        threads=arguments.threads,
    )


def compare(work: Work, task: Task, rounds: int) -> dict[str, Any]:
    """Let the sides of one work take steps in turns and bring their figures together.

    Raises:
        Disagreement: other tokens, other trained weights or another loss.
        RuntimeError: a side failed.
    """
    # On a GPU the head of TRL runs at trained positions by itself.
    sides = [side for side in work.sides if task.device == "cpu" or side != "trl_trained_positions"]
    workers = {side: Worker(dataclasses.replace(task, side=side)) for side in sides}
    try:
        facts = {side: worker.answer() for side, worker in workers.items()}
        require_same_work(facts)
        first = {side: worker.step() for side, worker in workers.items()}
        tolerance = _TOLERANCE[SHAPES[task.shape].dtype]
        if not task.questions:
            tolerance = max(tolerance, _PAIR_TOLERANCE)
        require_same_loss({side: step["loss"] for side, step in first.items()}, tolerance)
        steps: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        for _ in range(rounds):
            for side, worker in workers.items():
                steps[side].append(worker.step())
    finally:
        for worker in workers.values():
            worker.close()
    rows = facts[sides[0]]["rows"]
    examples = task.images * (task.questions or 1)
    return {
        "examples": examples,
        "unit": "answers" if task.questions else "pairs",
        "target": work.target,
        "trl_micro": task.micro,
        "tokens_a_sequence": statistics.mean(len(ids) for ids, _ in rows),
        "trained_tokens": sum(sum(trained) for _, trained in rows),
        "loss": {side: step["loss"] for side, step in first.items()},
        "steps": steps,
        "sides": {side: summary(taken, examples) for side, taken in steps.items()},
        "ratios": [ratio(steps, sides[-1], side) for side in sides[:-1]],
    }


def require_same_work(facts: dict[str, dict[str, Any]]) -> None:
    """Refuse to compare sides that see other tokens, train other tokens or train other weights.

    Raises:
        Disagreement: what differs first.
    """
    (first, expected), *others = facts.items()
    for side, own in others:
        if own["parameters"] != expected["parameters"]:
            odd = sorted(set(own["parameters"]) ^ set(expected["parameters"]))
            raise Disagreement(f"{side} and {first} train other weights: {odd[:5]}")
        if len(own["rows"]) != len(expected["rows"]):
            raise Disagreement(f"{side} has {len(own['rows'])} sequences, {first} {len(expected['rows'])}")
        for index, (row, other) in enumerate(zip(own["rows"], expected["rows"], strict=True)):
            if row != other:
                ours, theirs = (list(zip(*sequence, strict=True)) for sequence in (row, other))
                same = [a == b for a, b in zip(ours, theirs, strict=False)]
                differs = same.index(False) if False in same else len(same)
                raise Disagreement(
                    f"sequence {index} of {side} ({len(row[0])} tokens, {sum(row[1])} trained) differs from {first}'s "
                    f"({len(other[0])}, {sum(other[1])}) at token {differs}"
                )


def require_same_loss(losses: dict[str, float], tolerance: float = 1e-4) -> None:
    """Refuse to compare sides that start from another loss; fDPO's is its own and left out.

    Raises:
        Disagreement: the losses.
    """
    same = {side: loss for side, loss in losses.items() if "fdpo" not in side}
    if max(same.values()) - min(same.values()) > tolerance * abs(max(same.values())):
        raise Disagreement(f"the sides disagree on the loss before the first update: {losses}")


def fastest_micro(task: Task) -> int:
    """The micro-batch with which TRL's second step is fastest."""
    times: dict[int, float] = {}
    for micro in (1, 2, 4, 8) if task.device == "cpu" else (2, 4, 8, 16, 32):
        if micro > task.images * (task.questions or 1):
            break
        worker = Worker(dataclasses.replace(task, micro=micro))
        try:
            worker.answer()
            worker.step()
            times[micro] = worker.step()["seconds"]
        except RuntimeError as error:  # out of memory at large micro-batches
            print(f"TRL with {micro} a forward: {str(error).splitlines()[-1]}", file=sys.stderr)
            break
        finally:
            worker.close()
    if not times:
        raise RuntimeError("TRL runs with no micro-batch: take fewer images a step")
    return min(times, key=times.__getitem__)


def machine(arguments: argparse.Namespace) -> dict[str, str]:
    """What the figures depend on."""
    import torch

    names = ("torch", "transformers", "trl", "flash-attn", "liger-kernel")
    found = {name: version(name) for name in names if find_spec(name.replace("-", "_")) is not None}
    cpu = Path("/proc/cpuinfo")
    models = [line.partition(":")[2].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")]
    device = torch.cuda.get_device_name() if arguments.device != "cpu" else (models or [platform.processor()])[0]
    return {"device": device, "threads": str(arguments.threads), **found}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder with pictures, searched to any depth")
    parser.add_argument(
        "--processor", type=Path, required=True, help="folder with tokenizer, chat template and image processor"
    )
    parser.add_argument("--config", type=Path, help="config.json of the model, where --processor has another")
    parser.add_argument("--model", choices=sorted(SHAPES), default="smolvlm_small")
    parser.add_argument("--works", nargs="+", choices=sorted(WORKS), default=list(WORKS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--images-per-step", type=int, help="default: 1 for questions on a CPU, 2 for pairs; 8 on a GPU"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--trl-micro", type=int, help="questions or pairs that TRL takes in one forward; default: tries"
    )
    parser.add_argument("--scratch", type=Path, help="where the weights are written while it runs (twice the model)")
    parser.add_argument("--json", type=Path, help="write every figure there")
    arguments = parser.parse_args()
    for folder in (arguments.images, arguments.processor):
        if not folder.is_dir():
            parser.error(f"{folder} is not a folder")
    return arguments


if __name__ == "__main__":
    main()
