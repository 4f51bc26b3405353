"""Medians, ratios and tables of steps that were taken in turns."""

from __future__ import annotations

import statistics
from typing import Any


def summary(rows: list[dict[str, float]], examples: int) -> dict[str, float]:
    """Medians and quartiles of one side's steps."""
    low, middle, high = quartiles([row["seconds"] for row in rows])
    return {
        "seconds": middle,
        "seconds_q1": low,
        "seconds_q3": high,
        "cpu_seconds": statistics.median(row["cpu_seconds"] for row in rows),
        "examples_per_s": examples / middle,
        "peak_gib": rows[-1]["peak_gib"],
        "added_gib": rows[-1]["added_gib"],
    }


def ratio(steps: dict[str, list[dict[str, float]]], side: str, base: str) -> dict[str, Any]:
    """How many times as fast one side's steps are as the step of the other in the same round."""
    own, other = steps[side], steps[base]
    low, middle, high = quartiles([b["seconds"] / a["seconds"] for a, b in zip(own, other, strict=True)])
    by_cpu = statistics.median(b["cpu_seconds"] / a["cpu_seconds"] for a, b in zip(own, other, strict=True))
    return {
        "side": side,
        "over": base,
        "faster": middle,
        "faster_q1": low,
        "faster_q3": high,
        "faster_by_cpu_time": by_cpu,
        "peak": own[-1]["peak_gib"] / other[-1]["peak_gib"],
        "added": own[-1]["added_gib"] / other[-1]["added_gib"],
    }


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """First quartile, median and third quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def table(name: str, result: dict[str, Any]) -> str:
    """One work's figures as Markdown."""
    unit = result["unit"]
    lines = [
        f"\n{name}: {result['examples']} {unit} a step, {result['tokens_a_sequence']:.0f} tokens a sequence, "
        f"{result['trained_tokens']} trained tokens; loss "
        + ", ".join(f"{loss:.6f} ({side})" for side, loss in result["loss"].items()),
        "",
        f"| side | s a step (quartiles) | CPU s | {unit}/s | added GiB | peak GiB |",
        "|---|---|---|---|---|---|",
    ]
    for side, row in result["sides"].items():
        lines.append(
            f"| {side} | {row['seconds']:.3f} ({row['seconds_q1']:.3f} to {row['seconds_q3']:.3f}) "
            f"| {row['cpu_seconds']:.3f} | {row['examples_per_s']:.2f} | {row['added_gib']:.2f} | {row['peak_gib']:.2f} |"
        )
    lines += [
        "",
        "| ratio | times as fast (quartiles) | by CPU time | added memory | peak memory | target |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["ratios"]:
        lines.append(
            f"| {row['side']} over {row['over']} | {row['faster']:.2f} ({row['faster_q1']:.2f} to {row['faster_q3']:.2f}) "
            f"| {row['faster_by_cpu_time']:.2f} | {row['added']:.2f} | {row['peak']:.2f} | {result['target']} |"
        )
    if any(side.startswith("trl") for side in result["sides"]):
        lines += ["", f"TRL takes {result['trl_micro']} {unit} a forward."]
    if name == "dpo_cached":
        lines[-1] += (
            " It refuses precompute_ref_log_probs for images, so its live reference stands in for a cached one."
        )
    return "\n".join(lines)
