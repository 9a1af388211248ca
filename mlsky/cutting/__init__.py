"""Patches cut out of anybody's full-sky maps, for training."""
