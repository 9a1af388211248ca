"""PySM 3: an mlsky sky as components of ``pysm3.Sky`` (extra ``mlsky[pysm]``).

>>> import pysm3, pysm3.units as u  # doctest: +SKIP
>>> from mlsky.plugins.pysm import CIB, TSZ, Extragalactic  # doctest: +SKIP
>>> sky = pysm3.Sky(nside=1024, preset_strings=["d10", "s5"],
...                 component_objects=[Extragalactic(1024, seed=1)])  # doctest: +SKIP
>>> sky.get_emission(145 * u.GHz)  # doctest: +SKIP

`CMB`, `TSZ`, `KSZ`, `CIB` and `Radio` are one field each, and `Kappa` emits nothing and has the
convergence of the same sky. Objects of the same seed and arguments share one sky, which is made
when the first of them is asked for emission: make all of them before. `sky` makes a ``pysm3.Sky``
of PySM's presets and ours. ``from_file`` takes a sky on disk.

Frames: PySM's own components are Galactic, a sky of `mlsky.simulate` is Equatorial. Pixels are
passed on as they are, so inside ``pysm3.Sky`` the same realisation stands in Galactic
coordinates: for its statistics it makes no difference, but `Extragalactic.catalog` and
`Extragalactic.kappa` are then to be read as Galactic too. ``coord`` turns it as it turns any
component of PySM: ``coord=("C", "G")`` takes the Equatorial sky to where it is in Galactic
coordinates. A rotation goes through spherical harmonics and rings around bright sources.
"""

from __future__ import annotations

import dataclasses
import os
import re
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlsky import arguments, seeds
from mlsky.components import REFERENCE_GHZ
from mlsky.errors import MissingDependencyError
from mlsky.frequency.passbands import Band
from mlsky.io.layers import TOTAL
from mlsky.plugins import transforms
from mlsky.plugins.skies import SimulatedSky, StoredSky, numbered
from mlsky.request import check
from mlsky.signature import DEFAULTS, Arguments

try:
    import pysm3
    from pysm3 import units as u
    from pysm3.utils import check_freq_input
except ImportError as error:
    raise MissingDependencyError(
        f"pysm3 is needed for mlsky.plugins.pysm ({error}): pip install 'mlsky[pysm]'"
    ) from error

__all__ = ["CIB", "CMB", "KSZ", "TSZ", "Extragalactic", "Kappa", "Radio", "sky"]

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

#: PySM's presets that hold a component, by the beginning of their names: beside ours it is twice
#: in the sum. Those of dust hold the mean of the CIB (pysm3 3.4.6; regenerated with 0.125 MJy/sr at
#: 353 GHz left in).
PRESETS = {"c": "cmb", "cib": "cib", "tsz": "tsz", "ksz": "ksz", "rg": "radio"}
DUST_WITH_CIB = ("d9", "d10", "d11")


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
    file
        A HEALPix sky on disk instead, made with ``mlsky.simulate(..., out=file)``; "{num}" in its
        name, or "{num:05d}" as in a folder of `mlsky.ensemble`, stands for `num`. It gives the
        bands that it holds, single or passbands, and any passband whose points are among its
        frequencies.
    **options
        Any of `OPTIONS`, as in `mlsky.simulate`. Beside PySM's dust d9, d10 or d11, which have the
        mean of the CIB in them, give ``monopole=False``: otherwise it is in the sum twice. With
        `file` only "components".
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
        file: str | os.PathLike | None = None,
        **options,
    ) -> None:
        if map_dist is not None:
            raise ValueError(
                f"map_dist={arguments.short(map_dist)}: must be None, skies of mlsky are not "
                "distributed; give each process a realisation of its own (num=)"
            )
        if max_nside is not None:
            allowed = f"an integer from 1 to {MAX_NSIDE}, for example 1024"
            max_nside = arguments.integer("max_nside", max_nside, allowed, 1, MAX_NSIDE)
        allowed = OPTIONS if file is None else ("components",)
        if self.field is not None:
            allowed = tuple(option for option in allowed if option != "components")
        unknown = sorted(set(options) - set(allowed))
        if unknown:
            name, source = type(self).__name__, "" if file is None else " beside file="
            may = f"may be {', '.join(allowed)}" if allowed else "there may be none"
            raise TypeError(f"{name}(): unexpected argument {unknown[0]!r}{source}; {may}")
        number = seeds.realisation(seed, num)  # checks both
        if file is not None:
            self._sky, self._names = self._read(file, nside, num, options.get("components"))
        else:
            self._sky, self._names = self._simulated(nside, number, options)
        super().__init__(nside=nside, max_nside=max_nside or MAX_NSIDE, map_dist=None)

    @classmethod
    def from_file(cls, path: str | os.PathLike, num: int = 0, **options):
        """The component of a sky on disk, with its nside.

        Parameters
        ----------
        path, num
            As `file` and `num` of the class.

        Raises
        ------
        ValueError
            If the file cannot be read, its sky is on rectangular pixels, or it does not hold the
            component.
        """
        nside = StoredSky(numbered(path, num)).nside
        return cls(nside, num=num, file=path, **options)

    def _simulated(self, nside: int, seed: int, options: dict) -> tuple[SimulatedSky, tuple]:
        if self.field is not None:
            # kappa is made with any field
            options = {**options, "components": [self.field or "tsz"]}
        # bands come with get_emission, these are not used
        given = {"freqs": REFERENCE_GHZ, "nside": nside, "unit": "uK_RJ"}
        request = check(Arguments(seed=seed, **given, **options))
        if self.field == "":
            request = dataclasses.replace(request, components=())
        others = (plugin.name for plugin in request.plugins)
        return SimulatedSky.of(request), (*request.components, *others)

    def _read(self, file, nside: int, num: int, components) -> tuple[StoredSky, tuple]:
        found = StoredSky(numbered(file, num))
        if found.nside != nside:
            raise ValueError(
                f"nside={arguments.short(nside)}: must be that of {file}, {found.nside}; PySM's "
                "output_nside= changes it afterwards"
            )
        if self.field == "":
            return found, ()
        return found, found.names(components if self.field is None else self.field)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the fields, and of components of other packages."""
        return self._names

    @property
    def has_cib_mean(self) -> bool:
        """Whether the CIB is among the fields, with its mean over the sky."""
        return bool({"cib", TOTAL} & set(self._names)) and "cib" not in self._sky.monopole_off

    @property
    def kappa(self) -> NDArray[np.float32] | None:
        """(npix,) convergence, in the frame and order of the maps; None if a file has none."""
        return self._sky.kappa

    @property
    def catalog(self):
        """Sources as `mlsky.Sky.catalog` lists them; positions in the frame of the maps.

        Those that the flux cut removed from the maps have `in_map` False.
        """
        return self._sky.catalog(self._names)

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
        beam_window: NDArray | None = None,
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
        beam_window
            Another round beam instead, b_l from l = 0, (n,) or (3, n) for T, E and B; it must reach
            `lmax`, by default 2.5 nside.
        output_nside, lmax
            Of the transform that smoothing, rotation and CAR need, as in
            ``pysm3.apply_smoothing_and_coord_transform``; `lmax` is 2 at least and 4 nside at most.
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
            If a frequency is outside the range of the laws, no map is asked for, a keyword of the
            transform has a value that is not allowed, or a beam is too short or given twice.
        """
        if not isinstance(freqs, u.Quantity):
            shown = arguments.short(freqs)
            raise TypeError(f"freqs={shown}: must have a unit, for example 145 * u.GHz")
        keywords = {
            "fwhm": fwhm,
            "beam_window": beam_window,
            "rot": coord,
            "lmax": lmax,
            "output_nside": output_nside,
            "output_car_resol": output_car_resol,
            "return_healpix": return_healpix,
            "return_car": return_car,
        }
        keywords = transforms.check(self.nside, keywords)
        return transforms.apply(self._integrate(freqs, weights) << u.uK_RJ, keywords)

    def _integrate(self, freqs: u.Quantity, weights) -> NDArray[np.float32]:
        """(3, npix) float32 in uK_RJ, integrated over the passband by PySM's own convention."""
        return self._sky.emission(_band(freqs, weights), self._names)


class CMB(Extragalactic):
    """The lensed CMB of an mlsky realisation; arguments as for `Extragalactic`."""

    field = "cmb"


class Kappa(Extragalactic):
    """The convergence of an mlsky realisation; arguments as for `Extragalactic`.

    It emits nothing: in a ``pysm3.Sky`` it adds zero, so that it may stand among the others.
    """

    field = ""

    def get_map(
        self,
        fwhm: u.Quantity | None = None,
        output_nside: int | None = None,
        output_car_resol: u.Quantity | None = None,
        coord: tuple[str, str] | None = None,
        lmax: int | None = None,
        return_healpix: bool = True,
        return_car: bool = False,
        beam_window: NDArray | None = None,
    ):
        """The convergence, smoothed, turned and resampled as `get_emission` does with emission.

        Returns
        -------
        Quantity
            (npix,) dimensionless, RING; a (ny, nx) ndmap for CAR, a tuple of the two if both are
            asked for.
        """
        given = {"fwhm": fwhm, "beam_window": beam_window, "rot": coord, "lmax": lmax}
        given |= {"output_nside": output_nside, "output_car_resol": output_car_resol}
        given |= {"return_healpix": return_healpix, "return_car": return_car}
        keywords = transforms.check(self.nside, given)
        maps = np.zeros((3, 12 * self.nside**2), np.float32)
        maps[0] = self.kappa
        made = transforms.apply(maps << u.dimensionless_unscaled, keywords)
        return tuple(one[0] for one in made) if isinstance(made, tuple) else made[0]

    def _integrate(self, freqs: u.Quantity, weights) -> NDArray[np.float32]:
        _band(freqs, weights)  # checks them
        return np.zeros((3, 12 * self.nside**2), np.float32)


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


def sky(
    nside: int,
    preset_strings: Sequence[str] = (),
    output_unit: str = "uK_RJ",
    **options,
) -> pysm3.Sky:
    """A ``pysm3.Sky`` of PySM's presets and an `Extragalactic` component.

    Parameters
    ----------
    nside, **options
        As for `Extragalactic`.
    preset_strings, output_unit
        As for ``pysm3.Sky``.

    Warns
    -----
    UserWarning
        If a preset holds a component that is among ours, or is dust that holds the mean of the CIB
        and ours keeps its mean: it would be in the sum twice.

    Examples
    --------
    >>> from mlsky.plugins import pysm  # doctest: +SKIP
    >>> pysm.sky(1024, ["d10", "s5"], seed=1, monopole=False)  # doctest: +SKIP
    """
    presets = _parse_presets(preset_strings)
    output_unit = _parse_unit(output_unit)
    ours = Extragalactic(nside, **options)
    for preset in presets:
        field = PRESETS.get(re.sub(r"\d+$", "", preset))
        if field in ours.names:
            warnings.warn(
                f"preset {preset!r} holds {field}, which is in the sum twice: leave the preset "
                "out, or name the components of mlsky without it (components=)",
                stacklevel=2,
            )
        if preset in DUST_WITH_CIB and ours.has_cib_mean:
            warnings.warn(
                f"preset {preset!r} holds the mean of the CIB, which is in the sum twice: give "
                "monopole=False, or another dust",
                stacklevel=2,
            )
    return pysm3.Sky(
        nside=nside,
        preset_strings=presets,
        component_objects=[ours],
        output_unit=output_unit,
    )


def _band(freqs: u.Quantity, weights) -> Band:
    """The passband of PySM's arguments; ValueError in one line."""
    try:
        nu = freqs.to(u.GHz, equivalencies=u.spectral())
    except u.UnitConversionError:
        raise ValueError(
            f"freqs in {freqs.unit}: must be convertible to GHz, for example 145 * u.GHz"
        ) from None
    return Band(check_freq_input(nu), weights)


def _parse_presets(given) -> list[str]:
    """Names of PySM's presets."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        shown = arguments.short(given)
        raise ValueError(f'preset_strings={shown}: must be a list of names, as ["d10", "s5"]')
    for name in given:
        if not isinstance(name, str) or name not in pysm3.sky.PRESET_MODELS:
            raise ValueError(
                f"preset_strings holds {arguments.short(name)}: must be one of "
                f"{', '.join(pysm3.sky.PRESET_MODELS)}"
            )
    return list(given)


def _parse_unit(given) -> u.Unit:
    """The unit of a ``pysm3.Sky``."""
    try:
        if isinstance(given, (str, u.UnitBase)):
            unit = u.Unit(given)
            (1 * u.uK_RJ).to(unit, equivalencies=u.cmb_equivalencies(REFERENCE_GHZ * u.GHz))
            return unit
    except ValueError:  # no unit, or another kind of unit
        pass
    raise ValueError(
        f"output_unit={arguments.short(given)}: must be a unit of brightness, as uK_RJ, uK_CMB or "
        "MJy/sr"
    )
