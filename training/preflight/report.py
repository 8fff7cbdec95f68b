"""Prints a preflight: one line a check, figures below, what to do about each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from training.preflight import gaudi
from training.preflight.checks import BLOCK, WARN, Finding
from training.preflight.cost import Cards


def to_json(findings: list[Finding], figures: Mapping[str, Any]) -> str:
    """Everything, for scripts."""
    rows = [
        {"check": f.check, "level": f.level, "summary": f.summary, "where": list(f.where), "advice": f.advice}
        for f in findings
    ]
    return json.dumps({"blocked": is_blocked(findings), "findings": rows, **figures}, indent=2)


def is_blocked(findings: list[Finding]) -> bool:
    """Whether a card would refuse the run or waste most of its time."""
    return any(finding.level == BLOCK for finding in findings)


def to_text(title: str, findings: list[Finding], figures: Mapping[str, Any], cards: Cards) -> str:
    """The report for a terminal."""
    lines = [title, ""]
    for finding in findings:
        lines.append(f"  {finding.level:5} {finding.check:10} {finding.summary}")
        lines += [f"{'':19}{name}" for name in finding.where]
        if finding.advice:
            lines.append(f"{'':17}→ {finding.advice}")
    lines += ["", *_memory(figures["memory"], cards), "", *_speed(figures, cards), ""]
    counts = [sum(f.level == level for f in findings) for level in (BLOCK, WARN)]
    verdict = "would not run well on Gaudi" if counts[0] else "nothing found that Gaudi refuses"
    lines.append(f"{verdict}: {counts[0]} blockers, {counts[1]} warnings")
    return "\n".join(lines)


def _memory(memory: Mapping[str, float], cards: Cards) -> list[str]:
    parts = ", ".join(f"{name} {_bytes(size)}" for name, size in memory.items() if name != "total")
    return [f"  memory of a card: {_bytes(memory['total'])} of {_bytes(cards.memory)} ({parts})"]


def _speed(figures: Mapping[str, Any], cards: Cards) -> list[str]:
    run, feed, model = figures["run"], figures["input"], figures["model"]
    lines = [
        f"  arithmetic: {model['forward_flop'] / 1e9:.1f} GFLOP an image forward, "
        f"{model['train_flop'] / 1e9:.1f} in training; {model['trainable_parameters'] / 1e6:.2f} M weights",
        f"  step: {1e3 * run['compute_seconds']:.1f} ms of arithmetic at {cards.utilization:.0%} of "
        f"{gaudi.PEAK_FLOPS / 1e12:.0f} TFLOP/s (tuned ResNet-50: {gaudi.PUBLISHED_UTILIZATION:.0%}); "
        f"moving every tensor unfused {1e3 * run['memory_bound_seconds']:.1f} ms",
    ]
    if cards.cards > 1:
        share = run["all_reduce_seconds"] / run["step_seconds"]
        lines.append(
            f"  all-reduce: {_bytes(run['all_reduce_bytes'])} a card and step, "
            f"{1e3 * run['all_reduce_seconds']:.2f} ms, {share:.1%} of the step if nothing overlaps"
        )
    lines += [
        f"  input: {cards.cards} cards take {run['images_per_second']:.0f} images/s; {_feed(feed, cards)}",
        f"  run: {figures['records']} images{' (assumed)' if feed['sample_data'] else ''}, "
        f"{run['epochs']:.1f} epochs, {run['steps']:.0f} steps, {_hours(run['hours'])}, "
        f"${run['dollars']:.2f} at ${cards.price:g} an hour on {cards.hosts} host(s); "
        "compiling and evaluation not counted",
    ]
    return lines


def _feed(feed: Mapping[str, Any], cards: Cards) -> str:
    if "images_per_second" not in feed:
        return "what a process here gives was not timed"
    samples = " (sample data made for this; yours may decode slower)" if feed["sample_data"] else ""
    return (
        f"one process here gives {feed['images_per_second']:.0f}/s at "
        f"{1e3 * feed['cpu_seconds_per_image']:.1f} ms of processor an image{samples}; "
        f"{feed['vcpus_needed']:.1f} vCPUs needed a host of {cards.vcpus}"
    )


def _hours(hours: float) -> str:
    return f"{60 * hours:.1f} minutes" if hours < 1 else f"{hours:.1f} hours"


def _bytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
