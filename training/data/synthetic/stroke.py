"""The unit of a plan: one aimed movement of the pen."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Stroke:
    """One aimed movement.

    Attributes:
      target: where it ends, (x, y).
      turn: angle in radians by which the direction turns from start to end; 0 is a straight line.
      pen_down: whether it leaves ink.
    """

    target: tuple[float, float]
    turn: float
    pen_down: bool = True
