"""Frequencies: bands and their units, and how each field changes from band to band."""
