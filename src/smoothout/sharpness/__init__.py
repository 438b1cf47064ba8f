"""Sharpness of a minimum, one measure a file."""

from smoothout.sharpness.adaptive import adaptive
from smoothout.sharpness.ball import ball
from smoothout.sharpness.box import box
from smoothout.sharpness.hessian import hessian
from smoothout.sharpness.noise import noise
from smoothout.sharpness.spectrum import spectrum

__all__ = ["adaptive", "ball", "box", "hessian", "noise", "spectrum"]
