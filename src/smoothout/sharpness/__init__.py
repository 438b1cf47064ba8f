"""Sharpness of a minimum, one measure a file."""
