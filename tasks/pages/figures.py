"""Pictures for the tracking store: every function draws one and returns its path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from model.dynamics.smoothing import smoothed


def save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    return path


def histogram(counts: Mapping[str, Sequence[int]], xlabel: str, title: str, path: Path) -> Path:
    """Step histograms on logarithmic axes.

    counts: by name, how many values are 0, 1, 2 to 3, 4 to 7, …: entry k counts those from 2^(k-1) to 2^k - 1.
    xlabel: what is counted, with its unit.
    title: above the figure.
    path: where the picture is written.
    """
    figure = Figure(figsize=(8, 4.2))
    axes = figure.subplots()
    longest = max((int(np.max(np.nonzero(np.array(c))[0])) for c in counts.values() if any(c)), default=1)
    edges = [0.5, *(2.0**k for k in range(longest + 1))]
    for name, numbers in sorted(counts.items()):
        if any(numbers):
            padded = [*numbers, *[0] * (longest + 1)][: longest + 1]
            axes.stairs(padded, edges, linewidth=1.5, label=f"{name} ({sum(numbers):,})")
    axes.set(xscale="log", yscale="log", xlabel=xlabel, ylabel="count", title=title)
    if any(any(numbers) for numbers in counts.values()):
        axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return save(figure, path)


def log2_counts(values: np.ndarray) -> tuple[int, ...]:
    """How many values are 0, 1, 2 to 3, 4 to 7, …"""
    return tuple(np.bincount(np.frexp(values)[1], minlength=1).tolist()) if len(values) else ()


def row_length_histogram(counts: Mapping[str, Sequence[int]], path: Path) -> Path:
    return histogram(counts, "bytes of a row", "Row lengths by source, valid rows", path)


def token_histogram(counts: Mapping[str, Sequence[int]], path: Path) -> Path:
    return histogram(counts, "tokens of a segment", "Segment lengths after cutting to the row length", path)


def training_curves(curve: Sequence[Mapping[str, float]], title: str, path: Path) -> Path:
    """Training loss raw and smoothed with validation loss, and the learning rate below."""
    figure = Figure(figsize=(8, 6))
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    trained = [point for point in curve if "train/loss" in point]
    validated = [point for point in curve if "val/loss" in point]
    steps = [point["step"] for point in trained]
    losses = [point["train/loss"] for point in trained]
    top.plot(steps, losses, color="0.75", linewidth=0.8, label="train, raw")
    top.plot(steps, smoothed(losses), color="C0", label="train, smoothed")
    top.plot(
        [p["step"] for p in validated], [p["val/loss"] for p in validated], "o-", color="C3", ms=4, label="validation"
    )
    top.set(ylabel="nats per supervised token", title=title)
    top.legend()
    bottom.plot(steps, [point["train/lr"] for point in trained], color="C2")
    bottom.set(ylabel="learning rate", xlabel="optimizer step")
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    return save(figure, path)


def expert_load(counts_LE: np.ndarray, title: str, path: Path) -> Path:
    """Heat map of each expert's share of its layer's tokens, relative to an equal share; counts (layers, experts)."""
    ratio_LE = counts_LE / np.maximum(counts_LE.mean(axis=1, keepdims=True), 1e-9)
    layers, experts = ratio_LE.shape
    figure = Figure(figsize=(max(4, 0.9 * experts + 2), max(2.6, 0.6 * layers + 1.4)))
    axes = figure.subplots()
    image = axes.imshow(ratio_LE, cmap="RdBu_r", vmin=0, vmax=2, aspect="auto")
    for layer in range(layers):
        for expert in range(experts):
            axes.text(expert, layer, f"{ratio_LE[layer, expert]:.2f}", ha="center", va="center", fontsize=8)
    axes.set(xlabel="expert", ylabel="layer", title=title, xticks=range(experts), yticks=range(layers))
    figure.colorbar(image, ax=axes, label="load over equal share")
    return save(figure, path)


def lr_range(curve: Mapping[str, Sequence[float]], marks: Mapping[str, float], path: Path) -> Path:
    """Loss in nats per token over the learning rate of a range test.

    curve: `lr`, `loss` and `smoothed` loss of each step.
    marks: learning rates to mark, by name.
    path: where the picture is written.
    """
    figure = Figure(figsize=(8, 4.2))
    axes = figure.subplots()
    axes.plot(curve["lr"], curve["loss"], color="0.75", linewidth=0.8, label="raw")
    axes.plot(curve["lr"], curve["smoothed"], color="C0", label="smoothed")
    for number, (name, rate) in enumerate(marks.items(), start=1):
        axes.axvline(rate, color=f"C{number}", linestyle="--", linewidth=1, label=f"{name} {rate:.2g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="nats per supervised token", title="Learning-rate range test")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return save(figure, path)
