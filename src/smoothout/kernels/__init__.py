"""Compiled kernels that return the same bits as the reference in plain torch (:mod:`smoothout.scaling`), sooner."""
