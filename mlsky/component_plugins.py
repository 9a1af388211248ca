"""Components of other packages, which they register as entry points of the group below.

An entry point ``dust = "mlsky_galaxy:Dust"`` of the group "mlsky.components" makes "dust" a name in
``components=``. What it refers to is called without arguments and gives an object like `Plugin`.
Nothing is imported before a component is asked for.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlsky.components import COMPONENTS
from mlsky.errors import MlskyError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlsky.sphere.geometry import Geometry

__all__ = ["GROUP", "Loaded", "Plugin", "load", "names", "split"]

#: The group of entry points.
GROUP = "mlsky.components"


class Plugin(Protocol):
    """What the object behind an entry point has.

    Attributes
    ----------
    stokes
        "T" or "TQU": Stokes parameters of the templates, COSMO convention.
    """

    stokes: str

    def templates(self, geometry: Geometry, seed: int) -> NDArray[np.float32]:
        """(n, len(stokes), *geometry.shape) maps in uK_CMB, each at a frequency of its own.

        Samples at the pixel centres, which `geometry.angles` gives as colatitude and longitude
        (rad), equatorial. Random numbers must depend on `seed` and on places alone. The geometry of
        part of the sky has a margin for the pixel window.
        """

    def weights(self, nu_ghz: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n_nu, n): the map at a frequency (GHz) is the sum of weights times templates, uK_CMB."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A component of another package.

    Attributes
    ----------
    package
        Name and version of the package, for the provenance.
    """

    name: str
    package: str
    plugin: Any

    @property
    def stokes(self) -> str:
        return self.plugin.stokes

    def templates(self, geometry: Geometry, seed: int) -> NDArray[np.float32]:
        """As `Plugin.templates`, checked.

        Raises
        ------
        MlskyError
            If the plugin raises anything, or its maps are not of the right shape or not finite.
        """
        maps = np.asarray(self._call("templates", geometry, seed))
        wanted = (len(self.stokes), *geometry.shape)
        if maps.dtype.kind != "f" or maps.ndim < 2 or maps.shape[1:] != wanted or not len(maps):
            raise MlskyError(
                f"{self._told()}: its templates have shape {maps.shape} and type {maps.dtype}; "
                f"must be (n, {', '.join(map(str, wanted))}) of floats"
            )
        if not np.isfinite(maps).all():
            raise MlskyError(f"{self._told()}: its templates are not finite")
        return np.array(maps, np.float32)

    def weights(self, nu_ghz: NDArray[np.float64]) -> NDArray[np.float64]:
        """As `Plugin.weights`, checked; errors as for `templates`."""
        found = np.asarray(self._call("weights", np.array(nu_ghz)), np.float64)
        if found.ndim != 2 or len(found) != len(nu_ghz) or not np.isfinite(found).all():
            raise MlskyError(
                f"{self._told()}: its weights have shape {found.shape}; must be finite, one row "
                f"for each of {len(nu_ghz)} frequencies and one column for each template"
            )
        return found

    def _call(self, what: str, *given):
        try:
            return getattr(self.plugin, what)(*given)
        except Exception as error:  # whatever another package raises
            raise MlskyError(f"{self._told()}: {what} raised {_line(error)}") from error

    def _told(self) -> str:
        return f"component {self.name!r} of {self.package}"


def names() -> tuple[str, ...]:
    """Names that other packages register; none is imported."""
    found = (point.name for point in importlib.metadata.entry_points(group=GROUP))
    return tuple(sorted({name for name in found if name not in COMPONENTS}))


def split(asked: object) -> tuple[Any, tuple[Loaded, ...]]:
    """The argument `components`: what is left of it for `mlsky.components.parse`, and plugins.

    Raises
    ------
    ValueError
        If a plugin that is asked for cannot be loaded.
    """
    if asked is None or not isinstance(asked, (str, list, tuple, set, frozenset)):
        return asked, ()
    listed = [asked] if isinstance(asked, str) else list(asked)
    if all(isinstance(name, str) and name in COMPONENTS for name in listed):
        return asked, ()
    known = names()
    others = [name for name in dict.fromkeys(listed) if isinstance(name, str) and name in known]
    return [name for name in listed if name not in others], load(others)


def load(wanted: Iterable[str]) -> tuple[Loaded, ...]:
    """Components by name.

    Raises
    ------
    ValueError
        If one cannot be imported or is no `Plugin`; a warning says the same, with its cause.
    """
    points = {point.name: point for point in importlib.metadata.entry_points(group=GROUP)}
    found = []
    for name in wanted:
        point = points[name]
        package = "an unknown package"
        if point.dist is not None:
            package = f"{point.dist.name} {point.dist.version}"
        try:
            plugin = point.load()()
            missing = [n for n in ("stokes", "templates", "weights") if not hasattr(plugin, n)]
            if missing:
                raise TypeError(f"it has no {missing[0]}")
            if plugin.stokes not in ("T", "TQU"):
                raise ValueError(f"its stokes are {plugin.stokes!r}, must be 'T' or 'TQU'")
        except Exception as error:  # whatever another package raises
            text = f"component {name!r} of {package} ({point.value}) is broken: {_line(error)}"
            warnings.warn(text, RuntimeWarning, stacklevel=2)
            raise ValueError(f"{text}; mend or remove the package, or leave it out") from error
        found.append(Loaded(name, package, plugin))
    return tuple(found)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
