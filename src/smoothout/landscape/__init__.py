"""The loss along lines and over planes in weight space.

Axes come from :func:`direction` and :func:`span`, :func:`between`, :func:`through` or :func:`hessian_axes`;
:func:`line` and :func:`plane` measure along them.
"""

from smoothout.landscape.axes import Axes, BatchNormPolicy, Coordinates, Point
from smoothout.landscape.checkpoints import between, through
from smoothout.landscape.combinations import Combinations
from smoothout.landscape.directions import direction
from smoothout.landscape.displacements import Displacements, span
from smoothout.landscape.grid import alphas, evenly, sinusoidal
from smoothout.landscape.hessian import hessian_axes
from smoothout.landscape.line import LinePlan, line, plan_line
from smoothout.landscape.plan import Plan
from smoothout.landscape.plane import PlanePlan, plan_plane, plane
from smoothout.landscape.points import measure_points

__all__ = [
    "Axes",
    "BatchNormPolicy",
    "Combinations",
    "Coordinates",
    "Displacements",
    "LinePlan",
    "Plan",
    "PlanePlan",
    "Point",
    "alphas",
    "between",
    "direction",
    "evenly",
    "hessian_axes",
    "line",
    "measure_points",
    "plan_line",
    "plan_plane",
    "plane",
    "sinusoidal",
    "span",
    "through",
]
