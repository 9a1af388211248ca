"""From a few template maps to any band: the CIB of many colours.

The laws that hold for one whole map or one source are in `mlsky.scaling`.
"""

from mlsky.frequency.cib_templates import CibTemplates

__all__ = ["CibTemplates"]
