"""Line charts as inline SVG: no file beside the page, and colours that follow its light or dark style."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH, _HEIGHT = 520, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 14, 40


@dataclasses.dataclass(frozen=True)
class Series:
    """One line: `points` are (x, y) in data units, sorted by x; `marks` draws a dot at each."""

    name: str
    points: Sequence[tuple[float, float]]
    marks: bool = False


def line_chart(title: str, series: Sequence[Series], x_label: str, *, from_zero: bool = True) -> str:
    """An SVG figure with axes, grid, legend and one line a series.

    Args:
      title: what the y axis shows, with its unit.
      series: at most five are told apart by colour; empty ones are left out.
      x_label: what the x axis shows.
      from_zero: whether the y axis starts at 0.

    Returns:
      An HTML `<figure>`; a sentence in place of the chart where no series has a point.
    """
    caption = f"<figcaption>{html.escape(title)}</figcaption>"
    drawn = [one for one in series if one.points]
    if not drawn:
        return f"<figure>{caption}<p class='note'>Nothing recorded.</p></figure>"
    xs = [x for one in drawn for x, _ in one.points]
    ys = [y for one in drawn for _, y in one.points]
    x_low = min(0.0, *xs)
    x_ticks = ticks(x_low, max(xs))
    y_ticks = ticks(min(0.0, *ys) if from_zero else min(ys), max(ys))
    scale = _Scale(x_low, max(max(xs), x_low + 1e-9), y_ticks[0], y_ticks[-1])
    parts = [_grid(scale, [tick for tick in x_ticks if x_low <= tick <= max(xs)], y_ticks)]
    parts += [_line(scale, one, number) for number, one in enumerate(drawn)]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f"<text x='{middle:.0f}' y='{_HEIGHT - 6}' class='mid'>{html.escape(x_label)}</text>")
    legend = "".join(
        f"<span class='key k{number}'>{html.escape(one.name)}</span>" for number, one in enumerate(drawn)
    )
    return (
        f"<figure>{caption}<svg class='chart' viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img' "
        f"aria-label='{html.escape(title, quote=True)}'>{''.join(parts)}</svg>"
        f"<div class='legend'>{legend}</div></figure>"
    )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) that enclose [low, high]."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def points(lines: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """A figure over the steps of the lines of `metrics.jsonl` that have it."""
    return [(line["step"], line[key]) for line in lines if line.get(key) is not None]


def smooth(points: Sequence[tuple[float, float]], window: int) -> list[tuple[float, float]]:
    """The mean of each point and up to `window - 1` before it, at the same x."""
    smoothed = []
    for number, (x, _) in enumerate(points):
        recent = [y for _, y in points[max(0, number - window + 1) : number + 1]]
        smoothed.append((x, sum(recent) / len(recent)))
    return smoothed


@dataclasses.dataclass(frozen=True)
class _Scale:
    """From data units to the SVG's own."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _grid(scale: _Scale, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> str:
    parts = []
    for tick in y_ticks:
        y = scale.y(tick)
        parts.append(f"<line class='grid' x1='{_LEFT}' x2='{_WIDTH - _RIGHT}' y1='{y:.1f}' y2='{y:.1f}'/>")
        parts.append(f"<text x='{_LEFT - 8}' y='{y + 4:.1f}' class='end'>{_number(tick)}</text>")
    bottom = _HEIGHT - _BOTTOM
    for tick in x_ticks:
        x = scale.x(tick)
        parts.append(f"<line class='grid' x1='{x:.1f}' x2='{x:.1f}' y1='{bottom}' y2='{bottom + 4}'/>")
        parts.append(f"<text x='{x:.1f}' y='{bottom + 17}' class='mid'>{_number(tick)}</text>")
    return "".join(parts)


def _line(scale: _Scale, series: Series, number: int) -> str:
    places = [(scale.x(x), scale.y(y)) for x, y in series.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    marked = series.marks or len(places) == 1
    dots = "".join(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3'/>" for x, y in places) if marked else ""
    return f"<g class='k{number}'><polyline points='{path}'/>{dots}</g>"


def _number(value: float) -> str:
    if value and (abs(value) < 1e-3 or abs(value) >= 1e5):
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.4g}"
