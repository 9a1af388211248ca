"""Adapters, one module per outside package; each is imported only where it is needed."""
