"""The few exceptions of mlsky's own.

Policy: a wrong argument raises `ValueError` (or `TypeError`) with one line that
gives the value, what is allowed and how to mend it. The classes below are for
what is not an argument's fault.
"""

__all__ = ["MissingDependencyError", "MlskyError", "RegistryError"]


class MlskyError(Exception):
    """Base class: something went wrong that mlsky can explain in one line."""


class RegistryError(MlskyError):
    """A weight file or registry entry is missing, altered, truncated or foreign."""


class MissingDependencyError(MlskyError, ImportError):
    """An optional package is needed for what was asked; the message names the extra."""
