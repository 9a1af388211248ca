"""The foregrounds of a whole sky: networks on charts, large scales, haloes."""
