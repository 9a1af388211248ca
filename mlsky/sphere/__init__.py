"""The sphere: pixelisations, Gaussian fields, charts and lensing."""
