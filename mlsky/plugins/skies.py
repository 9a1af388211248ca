"""The skies behind components of PySM and mapsims: simulated when asked for, or read."""

from __future__ import annotations

import dataclasses
import json
import os
import weakref
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlsky import arguments
from mlsky.components import COMPONENTS, parse
from mlsky.frequency import passbands
from mlsky.frequency.passbands import Band
from mlsky.io.layers import TOTAL
from mlsky.request import Request
from mlsky.simulation import Realisation, ingredients, list_sources, observe, realise
from mlsky.sky import Sky
from mlsky.sources import catalogue
from mlsky.sphere.threads import lock

__all__ = ["SimulatedSky", "StoredSky", "numbered"]

#: Skies by what they are made of, as long as a component holds them.
_SKIES: weakref.WeakValueDictionary[str, SimulatedSky] = weakref.WeakValueDictionary()

#: Two frequencies, or two responses as fractions of the largest, that are the same.
SAME = 1e-6


class SimulatedSky:
    """One sky at 148 GHz behind several components: the fields that they want, made at once.

    Components of other packages are in all that it emits: objects that share it have the same.
    """

    def __init__(self, request: Request) -> None:
        # what is asked of this sky gets its beams afterwards
        self._request = dataclasses.replace(request, beams=None)
        self._wanted: set[str] = set()
        self._made: Realisation | None = None
        self._some: dict[tuple[str, ...], Realisation] = {}
        self._lock = lock()

    @classmethod
    def of(cls, request: Request) -> SimulatedSky:
        """The sky of these arguments, for the components of the request and others."""
        found = ingredients(request)
        del found["components"]
        more = [request.flux_cuts_told, request.tsz_temperature_kev, request.device]
        key = json.dumps([found, more], sort_keys=True)
        sky = _SKIES.get(key)
        if sky is None:
            sky = _SKIES[key] = cls(request)
        sky._wanted |= set(request.components)
        return sky

    def emission(self, band: Band, names: Sequence[str]) -> NDArray[np.float32]:
        """(3, npix) uK_RJ of some components in a band, a new array."""
        return self.observed([band], names, "uK_RJ").total[0]

    def observed(self, bands: Sequence[Band], names: Sequence[str], unit: str) -> Sky:
        """Some components at several bands, T, Q and U."""
        unit = passbands.parse_unit(unit)
        return observe(self._realisation(names), bands, stokes="TQU", unit=unit)

    @property
    def monopole_off(self) -> tuple[str, ...]:
        """Names of the maps without their mean."""
        return tuple(self._request.monopole_off)

    @property
    def kappa(self) -> NDArray[np.float32]:
        """(npix,) convergence."""
        return np.asarray(self._realisation(()).kappa)

    def catalog(self, names: Sequence[str]):
        """Sources of some components, as `mlsky.Sky.catalog` lists them."""
        return list_sources(self._realisation(names))

    def _realisation(self, names: Sequence[str]) -> Realisation:
        """The sky with some of its components alone."""
        names = tuple(names)
        with self._lock:
            if self._made is None or not self._wanted <= set(self._made.components):
                wanted = tuple(name for name in COMPONENTS if name in self._wanted)
                self._made, self._some = None, {}  # their maps make room for the next
                self._made = realise(dataclasses.replace(self._request, components=wanted))
            if names not in self._some:
                self._some[names] = _of_some(self._made, names)
            return self._some[names]


def _of_some(made: Realisation, names: tuple[str, ...]) -> Realisation:
    """A realisation with some of its components alone; it shares what is found for bands."""
    kinds = [kind for name, kind in catalogue.COMPONENTS.items() if name in names]
    table = made.catalog
    if table is not None:
        chosen = np.isin(np.asarray(table["kind"]), kinds)
        table = (table if chosen.all() else table[chosen]) if kinds else None
    maps = {name: values for name, values in made.maps.items() if name in names}
    return dataclasses.replace(made, components=names, maps=maps, catalog=table)


class StoredSky:
    """A sky in a file of `mlsky.simulate`, at the bands that it holds.

    Parameters
    ----------
    path
        HEALPix sky.

    Raises
    ------
    ValueError
        If the file cannot be read, or its sky is on rectangular pixels.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self._path = arguments.path("file", path)
        self._sky = Sky.read(self._path, lazy=True)
        if self._sky.geometry.kind != "healpix":
            raise ValueError(
                f"{self._path}: holds a sky on rectangular pixels; PySM takes HEALPix maps: "
                "simulate with nside="
            )

    @property
    def nside(self) -> int:
        return self._sky.geometry.nside

    def names(self, wanted: object) -> tuple[str, ...]:
        """The components that are wanted, of those that are there; all of them by default.

        Parameters
        ----------
        wanted
            One name or several, those of other packages too; None for all.

        Raises
        ------
        ValueError
            If one is not there, or none is given.
        """
        held = self._sky.keys()
        if wanted is None:
            return held or (TOTAL,)
        if not held:
            raise ValueError(
                f"component {arguments.short(wanted)}: {self._path} holds the total alone, as FITS "
                "files do; leave components out"
            )
        found = parse(wanted, [name for name in held if name not in COMPONENTS])
        for name in found:
            if name not in held:
                raise ValueError(f"component {name!r}: {self._path} holds {', '.join(held)}")
        return found

    def emission(self, band: Band, names: Sequence[str]) -> NDArray[np.float32]:
        """As `SimulatedSky.emission`.

        Raises
        ------
        ValueError
            If the band is not among those of the file, nor all of its frequencies.
        """
        sky = self._sky
        share = self._share(band)
        out = np.zeros((3, *sky.geometry.shape), np.float32)
        rows = ["TQU".index(s) for s in sky.stokes]
        for name in names:
            out[rows] += sky.integrate(share, None if name == TOTAL else name)
        return out

    @property
    def monopole_off(self) -> tuple[str, ...]:
        """As `SimulatedSky.monopole_off`."""
        return tuple(self._sky.meta.get("monopole_off", ()))

    @property
    def kappa(self) -> NDArray[np.float32] | None:
        """(npix,) convergence; None if the file holds none."""
        return self._sky.kappa

    def catalog(self, names: Sequence[str]):
        """As `SimulatedSky.catalog`; the whole list for a file that holds the total alone."""
        table = self._sky.catalog
        if table is None or TOTAL in names:
            return table
        kinds = [kind for name, kind in catalogue.COMPONENTS.items() if name in names]
        return table[np.isin(np.asarray(table["kind"]), kinds)] if kinds else None

    def _share(self, band: Band) -> NDArray[np.float64]:
        """Weights of the bands of the file in one band, from its unit to uK_RJ."""
        held = self._sky.bands
        for number, other in enumerate(held):
            if _same(band, other):
                share = np.zeros(len(held))
                share[number] = other.convert(self._sky.unit, "uK_RJ")
                return share
        # otherwise a quadrature over its single frequencies
        single = {other.nu_ghz[0]: i for i, other in enumerate(held) if len(other.nu_ghz) == 1}
        points = np.array(list(single))
        to_cmb = passbands.convert(held, self._sky.unit, "uK_CMB")

        def law(nu_ghz: NDArray) -> NDArray:
            chosen = np.zeros((len(nu_ghz), len(held)))
            for row, nu in zip(chosen, nu_ghz, strict=True):
                near = np.flatnonzero(np.abs(points - nu) <= SAME * nu)
                if not near.size:
                    raise ValueError(
                        f"{nu:g} GHz: {self._path} holds {', '.join(b.label for b in held)} alone; "
                        "simulate it with this band among its freqs, or make the sky from its seed"
                    )
                number = single[points[near[0]]]
                row[number] = to_cmb[number]
            return chosen

        return passbands.average([band], law)[0] * band.convert("uK_CMB", "uK_RJ")


def numbered(file: str | os.PathLike, num: int) -> str:
    """The file of a realisation: braces in the name stand for its number."""
    name = str(arguments.path("file", file))
    try:
        return name.format(num=num)
    except (KeyError, IndexError, ValueError):
        raise ValueError(
            f"file={arguments.short(name)}: braces may hold num alone, for example "
            "'skies/sky_{num:05d}.h5'"
        ) from None


def _same(one: Band, other: Band) -> bool:
    """Whether two passbands are the same up to rounding."""
    if len(one.nu_ghz) != len(other.nu_ghz):
        return False
    if not np.allclose(one.nu_ghz, other.nu_ghz, rtol=SAME, atol=0):
        return False
    return np.allclose(one.weights, other.weights, rtol=0, atol=SAME * other.weights.max())
