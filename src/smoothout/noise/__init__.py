"""Counter-based noise: a pure function of (seed, step, stream, draw, tensor, element)."""
