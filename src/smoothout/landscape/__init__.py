"""The loss along lines and over planes in weight space."""
