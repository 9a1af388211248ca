"""Names and colours of components in pictures, and what pictures are drawn with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlsky.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "OTHER", "TITLES", "UNIT_TEXT", "figure_class"]

TITLES = {
    "total": "everything",
    "cmb": "lensed CMB",
    "tsz": "thermal SZ",
    "ksz": "kinetic SZ",
    "cib": "CIB",
    "radio": "radio sources",
    "kappa": "convergence $\\kappa$",
}
#: Colour-blind safe (Okabe & Ito 2008), one per component.
COLOURS = {
    "total": "#000000",
    "cmb": "#7f7f7f",
    "tsz": "#0072b2",
    "ksz": "#009e73",
    "cib": "#d55e00",
    "radio": "#cc79a7",
}
#: Of components of other packages.
OTHER = "#56b4e9"
UNIT_TEXT = {
    "uK_CMB": r"$\mu$K$_{\rm CMB}$",
    "K_CMB": r"K$_{\rm CMB}$",
    "uK_RJ": r"$\mu$K$_{\rm RJ}$",
}


def figure_class() -> type[Figure]:
    """Matplotlib's class of figures, which needs no display; commands ask for it before they work.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError(
            "matplotlib is needed to draw: pip install 'mlsky[plot]'"
        ) from None
    return Figure
