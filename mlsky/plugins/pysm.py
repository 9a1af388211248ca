"""PySM 3: an mlsky sky as components of ``pysm3.Sky`` (extra ``mlsky[pysm]``).

>>> import pysm3, pysm3.units as u  # doctest: +SKIP
>>> from mlsky.plugins.pysm import CIB, TSZ, Extragalactic  # doctest: +SKIP
>>> sky = pysm3.Sky(nside=1024, preset_strings=["d10", "s5"],
...                 component_objects=[Extragalactic(1024, seed=1)])  # doctest: +SKIP
>>> sky.get_emission(145 * u.GHz)  # doctest: +SKIP

`CMB`, `TSZ`, `KSZ`, `CIB` and `Radio` are one field each. Objects of the same seed and arguments
share one sky, which is made when the first of them is asked for emission: make all of them before.

Frames: PySM's own components are Galactic, a sky of `mlsky.simulate` is Equatorial. Pixels are
passed on as they are, so inside ``pysm3.Sky`` the same realisation stands in Galactic
coordinates: for its statistics it makes no difference, but `Extragalactic.catalog` and
`Extragalactic.kappa` are then to be read as Galactic too. ``coord`` turns it as it turns any
component of PySM: ``coord=("C", "G")`` takes the Equatorial sky to where it is in Galactic
coordinates. A rotation goes through spherical harmonics and rings around bright sources.
"""

from __future__ import annotations

import dataclasses
import json
import weakref
from collections.abc import Iterable

import numpy as np

from mlsky import seeds
from mlsky.components import COMPONENTS, REFERENCE_GHZ
from mlsky.errors import MissingDependencyError
from mlsky.frequency.passbands import Band
from mlsky.request import Request, check
from mlsky.signature import DEFAULTS, Arguments
from mlsky.simulation import Realisation, ingredients, list_sources, observe, realise
from mlsky.sources import catalogue
from mlsky.sphere.threads import lock

try:
    import pysm3
    from pysm3 import units as u
    from pysm3.utils import check_freq_input
except ImportError as error:
    raise MissingDependencyError(
        f"pysm3 is needed for mlsky.plugins.pysm ({error}): pip install 'mlsky[pysm]'"
    ) from error

__all__ = ["CIB", "CMB", "KSZ", "TSZ", "Extragalactic", "Radio"]

#: Arguments of `mlsky.simulate` that the component does not set itself.
OPTIONS = tuple(
    name
    for name in DEFAULTS
    if name
    not in (
        *("freqs", "nside", "seed", "geometry", "stokes", "unit", "progress", "out", "overwrite"),
        *("beam", "pixel_window"),
    )
)

#: Highest nside of mlsky.sphere.geometry.
MAX_NSIDE = 8192

#: Skies by what they are made of, as long as a component holds them.
_SKIES: weakref.WeakValueDictionary[str, _SharedSky] = weakref.WeakValueDictionary()


class _SharedSky:
    """One sky at 148 GHz behind several components: the fields that they want, made at once."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._wanted: set[str] = set()
        self._made: Realisation | None = None
        self._lock = lock()

    @classmethod
    def of(cls, request: Request) -> _SharedSky:
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

    def realisation(self, names: Iterable[str]) -> Realisation:
        """The sky with some of its components alone."""
        with self._lock:
            if self._made is None or not self._wanted <= set(self._made.components):
                wanted = tuple(name for name in COMPONENTS if name in self._wanted)
                self._made = None  # its maps make room for the next
                self._made = realise(dataclasses.replace(self._request, components=wanted))
            made = self._made
        kinds = [kind for name, kind in catalogue.COMPONENTS.items() if name in names]
        table = made.catalog
        if table is not None:
            chosen = np.isin(np.asarray(table["kind"]), kinds)
            table = (table if chosen.all() else table[chosen]) if kinds else None
        maps = {name: values for name, values in made.maps.items() if name in names}
        return dataclasses.replace(made, components=tuple(names), maps=maps, catalog=table)


class Extragalactic(pysm3.Model):
    """Lensed CMB, kSZ, tSZ, CIB and radio sources of one mlsky realisation.

    The sky is simulated once, when emission is first asked for; every further band reuses it, and
    so do other components of the same seed and arguments.
    The CMB is among the components by default: leave it out, or leave out PySM's ``c1``-``c4``.

    Parameters
    ----------
    nside
        HEALPix resolution, a power of two, that of the ``pysm3.Sky``.
    seed
        Seed of the first realisation.
    num
        Number of the realisation, which mapsims passes: 0 is the sky of ``mlsky.simulate`` with
        `seed`, any other one that of ``mlsky.seeds.realisation(seed, num)``. Every pair of seed and
        number is another sky.
    **options
        Any of `OPTIONS`, as in `mlsky.simulate`. Beside PySM's dust d9, d10 or d11, which have the
        mean of the CIB in them, give ``monopole=False``: otherwise it is in the sum twice.
    max_nside
        As in ``pysm3.Model``; 8192 by default.
    map_dist
        Must be None: a sky is not distributed over MPI processes.

    Raises
    ------
    ValueError, RegistryError
        As `mlsky.simulate`, when the component is made, not at the first emission.
    """

    #: ``fwhm`` is applied by `get_emission` itself; mapsims asks for this.
    includes_smoothing = True

    #: The fields of a class of one field; the others take them as an option.
    field: str | None = None

    # nside and num are spelt out, and this is undecorated: mapsims looks for their names.
    def __init__(
        self,
        nside: int,
        seed: int = 0,
        num: int = 0,
        max_nside: int | None = None,
        map_dist=None,
        **options,
    ) -> None:
        if map_dist is not None:
            raise ValueError(
                f"map_dist={map_dist!r}: must be None, mlsky skies are not distributed; "
                "give each process a realisation of its own (num=)"
            )
        name, allowed = type(self).__name__, OPTIONS
        if self.field is not None:
            allowed = tuple(option for option in OPTIONS if option != "components")
        unknown = sorted(set(options) - set(allowed))
        if unknown:
            raise TypeError(
                f"{name}(): unexpected argument {unknown[0]!r}; may be {', '.join(allowed)}"
            )
        if self.field is not None:
            options["components"] = [self.field]
        # bands come with get_emission, these are not used
        given = {"freqs": REFERENCE_GHZ, "nside": nside, "unit": "uK_RJ"}
        self._request = check(Arguments(seed=seeds.realisation(seed, num), **given, **options))
        self._sky = _SharedSky.of(self._request)
        super().__init__(nside=nside, max_nside=max_nside or MAX_NSIDE, map_dist=None)

    @property
    def realisation(self) -> Realisation:
        """The sky at 148 GHz; made at the first use."""
        return self._sky.realisation(self._request.components)

    @property
    def kappa(self) -> np.ndarray:
        """(npix,) float32 convergence, in the frame and order of the maps."""
        return self.realisation.kappa

    @property
    def catalog(self):
        """Sources as `mlsky.Sky.catalog` lists them; positions in the frame of the maps.

        Those that the flux cut removed from the maps have `in_map` False.
        """
        return list_sources(self.realisation)

    def get_emission(
        self,
        freqs: u.Quantity,
        weights=None,
        fwhm: u.Quantity | None = None,
        output_nside: int | None = None,
        output_car_resol: u.Quantity | None = None,
        coord: tuple[str, str] | None = None,
        lmax: int | None = None,
        return_healpix: bool = True,
        return_car: bool = False,
    ) -> u.Quantity:
        """Emission at a frequency or over a passband.

        Parameters
        ----------
        freqs
            One frequency, or the (n,) points of a passband.
        weights
            (n,) response in power (Jy/sr), as everywhere in PySM; a top hat by default.
        fwhm
            Gaussian beam; pixels are left alone without one.
        output_nside, lmax
            Of the transform that smoothing, rotation and CAR need, as in
            ``pysm3.apply_smoothing_and_coord_transform``.
        output_car_resol, return_healpix, return_car
            Return a full-sky Fejer-1 CAR map beside, or in place of, the HEALPix map.
        coord
            Rotation in healpy's letters, for example ("C", "G").

        Returns
        -------
        Quantity
            (3, npix) float32 uK_RJ, RING, a new array at each call; a (3, ny, nx) ndmap of
            uK_RJ numbers for CAR, a tuple of the two if both are asked for, as in PySM.

        Raises
        ------
        TypeError
            If `freqs` has no unit.
        ValueError
            If a frequency is outside the range of the laws, or no map is asked for.
        """
        if not isinstance(freqs, u.Quantity):
            raise TypeError(f"freqs={freqs!r}: must have a unit, for example 145 * u.GHz")
        if return_car and output_car_resol is None:
            raise ValueError("return_car=True: give output_car_resol, for example 2 * u.arcmin")
        if not (return_healpix or return_car):
            raise ValueError("return_healpix=False: must be True unless return_car=True")
        out = self._integrate(freqs.to(u.GHz, equivalencies=u.spectral()), weights) << u.uK_RJ
        degraded = output_nside is not None and output_nside != self.nside
        if fwhm is None and coord is None and not degraded and not return_car:
            return out
        import healpy

        return pysm3.apply_smoothing_and_coord_transform(
            out,
            fwhm=fwhm,
            rot=None if coord is None else healpy.Rotator(coord=coord),
            lmax=lmax,
            output_nside=output_nside,
            output_car_resol=output_car_resol,
            return_healpix=return_healpix,
            return_car=return_car,
        )

    def _integrate(self, freqs: u.Quantity, weights) -> np.ndarray:
        """(3, npix) float32 in uK_RJ, integrated over the passband by PySM's own convention."""
        band = Band(check_freq_input(freqs), weights)
        sky = observe(self.realisation, (band,), stokes="TQU", unit="uK_RJ")
        return sky.total[0]


class CMB(Extragalactic):
    """The lensed CMB of an mlsky realisation; arguments as for `Extragalactic`."""

    field = "cmb"


class TSZ(Extragalactic):
    """The thermal SZ effect of an mlsky realisation; arguments as for `Extragalactic`."""

    field = "tsz"


class KSZ(Extragalactic):
    """The kinetic SZ effect of an mlsky realisation; arguments as for `Extragalactic`."""

    field = "ksz"


class CIB(Extragalactic):
    """The CIB of an mlsky realisation, with the sources of its catalogue; as `Extragalactic`.

    Beside PySM's dust d9, d10 or d11, which have the mean of the CIB in them, give
    ``monopole=False``.
    """

    field = "cib"


class Radio(Extragalactic):
    """The radio sources of an mlsky realisation; arguments as for `Extragalactic`."""

    field = "radio"
