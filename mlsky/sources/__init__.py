"""Point sources: the catalogue of them and their painting onto maps."""
