"""Sharpness and landscapes of checkpoints: in worker processes, and going on where they were interrupted."""
