"""Records that one part of the project hands to another; no torch here."""
