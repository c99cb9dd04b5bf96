"""Pictures of a report as inline SVG text: the same input gives the same bytes."""

from rediffuse.evaluation.figures.accuracy import Dot, accuracy, parts
from rediffuse.evaluation.figures.canvas import MISSING, NARROW, ROLES, SERIES, WIDE, require_plotting
from rediffuse.evaluation.figures.cost import Spot, cost
from rediffuse.evaluation.figures.steps import Column, Line, ranks, steps
from rediffuse.evaluation.figures.sweeps import Swept, Trace, sweeps
from rediffuse.evaluation.figures.training import Curve, Tried, curves, tried

__all__ = [
    "MISSING",
    "NARROW",
    "ROLES",
    "SERIES",
    "WIDE",
    "Column",
    "Curve",
    "Dot",
    "Line",
    "Spot",
    "Swept",
    "Trace",
    "Tried",
    "accuracy",
    "cost",
    "curves",
    "parts",
    "ranks",
    "require_plotting",
    "steps",
    "sweeps",
    "tried",
]
