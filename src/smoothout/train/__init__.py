"""The workshop: settings, data, models, checkpoints and the training loop."""
