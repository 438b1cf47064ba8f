"""Sharpness of a minimum, one measure a file."""

from smoothout.sharpness.adaptive import adaptive
from smoothout.sharpness.ball import ball
from smoothout.sharpness.box import box
from smoothout.sharpness.noise import noise

__all__ = ["adaptive", "ball", "box", "noise"]
