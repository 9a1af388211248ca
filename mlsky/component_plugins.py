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

from mlsky.arguments import short, unmask
from mlsky.components import COMPONENTS
from mlsky.errors import MlskyError
from mlsky.frequency.passbands import average
from mlsky.sphere import pixel_window

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mlsky.frequency.passbands import Band
    from mlsky.signature import Progress
    from mlsky.sphere.geometry import Geometry

__all__ = ["GROUP", "Loaded", "Plugin", "Templates", "load", "names", "split", "templates"]

#: The group of entry points.
GROUP = "mlsky.components"

#: Characters of another package's error that are shown (our choice).
SHOWN = 160


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
        maps = self._array("templates", ("uK_CMB",), geometry, seed)
        wanted = (len(self.stokes), *geometry.shape)
        if maps.dtype.kind != "f" or maps.ndim < 2 or maps.shape[1:] != wanted or not len(maps):
            raise MlskyError(
                f"{self._told()}: its templates have shape {maps.shape} and type {maps.dtype}; "
                f"must be (n, {', '.join(map(str, wanted))}) of floats"
            )
        with np.errstate(over="ignore"):  # infinite then
            maps = np.array(maps, np.float32)
        if not np.isfinite(maps).all():
            raise MlskyError(f"{self._told()}: its templates are not finite everywhere in float32")
        return maps

    def weights(self, nu_ghz: NDArray[np.float64], count: int) -> NDArray[np.float64]:
        """As `Plugin.weights` for `count` templates, checked; errors as for `templates`."""
        found = self._array("weights", ("", "1"), np.array(nu_ghz))
        wanted = (len(nu_ghz), count)
        if found.dtype.kind not in "iuf" or found.shape != wanted or not np.isfinite(found).all():
            raise MlskyError(
                f"{self._told()}: its weights have shape {found.shape} and type {found.dtype}; "
                f"must be finite numbers {wanted}, one row for each frequency and one column for "
                "each template"
            )
        return found.astype(np.float64)

    def at_bands(self, bands: Sequence[Band], count: int) -> NDArray[np.float64]:
        """(nfreq, count) averages of `weights` over bands."""
        return average(bands, lambda nu_ghz: self.weights(nu_ghz, count))

    def _array(self, what: str, units: tuple[str, ...], *given) -> NDArray:
        """What the plugin gives, as an array; NaN where it is masked."""
        found = self._call(what, *given)
        unit = getattr(found, "unit", None)
        if unit is not None and str(unit) not in units:
            raise MlskyError(
                f"{self._told()}: its {what} have the unit {short(str(unit))}; must be plain "
                f"numbers{f' in {units[0]}' if units[0] else ''}"
            )
        try:
            return np.asarray(unmask(found))
        except (TypeError, ValueError):
            raise MlskyError(
                f"{self._told()}: its {what} are {short(found)}; must be one array"
            ) from None

    def _call(self, what: str, *given):
        try:
            return getattr(self.plugin, what)(*given)
        except Exception as error:  # whatever another package raises
            raise MlskyError(f"{self._told()}: {what} raised {_line(error)}") from error

    def _told(self) -> str:
        return f"component {self.name!r} of {self.package}"


#: Components of other packages by name, each with its templates, (n, nstokes, *shape).
Templates = dict[str, tuple[Loaded, NDArray[np.float32]]]


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


def templates(
    plugins: Iterable[Loaded], geometry: Geometry, seed: int, averaged: bool, progress: Progress
) -> Templates:
    """Templates of several components on the pixels of a map.

    Parameters
    ----------
    averaged
        Whether they are averages over the pixels; otherwise samples at their centres.

    Raises
    ------
    MlskyError
        As `Loaded.templates`.
    """
    found = {}
    wider, inside = pixel_window.padded(geometry) if averaged else (geometry, None)
    for plugin in plugins:
        progress(plugin.name, 0.0)
        maps = samples = plugin.templates(wider, seed)
        if averaged:
            if inside is not None:
                maps = np.empty((*samples.shape[:2], *geometry.shape), np.float32)
            for one, out in zip(samples, maps, strict=True):
                pixel_window.average(one, plugin.stokes, wider, inside, out, wider.lmax)
        found[plugin.name] = (plugin, maps)
    return found


def _line(error: Exception) -> str:
    text = short(" ".join(str(error).split()), SHOWN)[1:-1]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
