"""Steering: directions in the activations of any module, what pushing along them does, and what chance would do.

`capture` watches layers, `Direction` is a concept at a layer, `Direction.applied` steers, `steering_report` measures.
Everything works on any `nn.Module` and finds layers by their dotted names.
"""

__all__ = [
    "Direction",
    "Layout",
    "Moments",
    "Record",
    "SteeringReport",
    "animate",
    "capture",
    "draw_controls",
    "find_layers",
    "fingerprint",
    "steering_report",
]

from aion.steering.controls import draw_controls
from aion.steering.direction import Direction
from aion.steering.figures import animate
from aion.steering.layers import find_layers, fingerprint
from aion.steering.layout import Layout
from aion.steering.moments import Moments
from aion.steering.recording import Record, capture
from aion.steering.report import SteeringReport
from aion.steering.study import steering_report
