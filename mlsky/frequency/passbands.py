"""Bands: the response of an experiment to frequency, and averages over it.

A band is a table of frequencies and of the response to intensity (power, Jy/sr), integrated by the
trapezoidal rule as PySM does; a single frequency is the band of one point. A field whose spectrum
is I(nu) gives the thermodynamic temperature

    T = int g(nu) I(nu) dnu / int g(nu) (dB_nu/dT)(T_CMB) dnu,

so the CMB has the same temperature in every band (Planck 2013 results IX, arXiv:1303.5070, section
3.2 on conversions of units; PySM 3, `pysm3.bandpass_unit_conversion`).
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlsky import arguments
from mlsky.frequency import bands as single
from mlsky.frequency import passband_tables, tsz
from mlsky.frequency.passband_tables import CONVENTIONS
from mlsky.sphere import beams

__all__ = [
    "CONVENTIONS",
    "UNITS",
    "Band",
    "average",
    "centres",
    "convert",
    "named",
    "names",
    "parse",
    "parse_unit",
    "source",
]

#: Units a map may be asked for in: those of one frequency, and the Compton parameter y, that of gas
#: without relativistic corrections which gives the same temperature.
UNITS = (*single.UNITS, "y")

#: Points of a top hat, our choice: integrals over a band 30 % wide are then good to 3e-5.
TOP_HAT_POINTS = 65

#: Smallest |f| of tSZ, dT = y T_CMB f, at which a map may be asked for in y. Our choice: within
#: 0.03 GHz of the null of a single frequency.
Y_LEAST = 1e-3

#: Departure of an integral from one that is rounding.
NORMALISED = 1e-14

FILE = "passbands.json"

_EXAMPLE = passband_tables.EXAMPLE


class Band:
    """A passband.

    Parameters
    ----------
    nu_ghz
        (n,) frequencies, growing: numbers in GHz or an astropy Quantity; or one frequency.
    weights
        (n,) response, of any normalisation; by default that of a top hat.
    convention
        What the weights are a response to, one of `CONVENTIONS`: "power", "rj" or "photon".
    name
        How the band is called in files and plots.
    cut
        Responses to intensity below this fraction of the largest, such as the noise of a
        measurement outside the band, count as zero.
    beam
        Beam that `mlsky.simulate` gives the maps of this band: FWHM in arcmin or a Quantity, or its
        transform b_l from l = 0 as an array. None for none.

    Attributes
    ----------
    nu_ghz : (n,)
        Frequencies (GHz).
    weights : (n,)
        Response to intensity, normalised to an integral of one over GHz; [1.] for one frequency.
    name : str or None
    beam : mlsky.sphere.beams.Beam or None

    Raises
    ------
    ValueError
        If a frequency is outside the range of the spectra, 20 to 900 GHz and for bands
        `mlsky.frequency.bands.BAND_MAX_GHZ`, they do not grow, weights are negative, not
        finite, all zero or of another length, or the beam is not one.

    Examples
    --------
    >>> import mlsky
    >>> mlsky.Band.top_hat(130, 165, name="f150")
    <Band f150: 65 points from 130 to 165 GHz, centre 147.5>
    """

    def __init__(
        self,
        nu_ghz: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        convention: str = "power",
        name: str | None = None,
        cut: float = 0.0,
        beam: ArrayLike | None = None,
    ) -> None:
        convention = arguments.choice("convention", convention, tuple(CONVENTIONS))
        cut = arguments.number("cut", cut, "a fraction from 0 to 0.5, for example 1e-3", 0, 0.5)
        if name is not None and not (isinstance(name, str) and 0 < len(name) <= 60):
            raise ValueError(f"name={arguments.short(name)}: must be text of 1 to 60 characters")
        nu = single.frequencies(nu_ghz, "nu_ghz", single.ALLOWED_IN_BAND)
        if not (np.diff(nu) > 0).all():
            raise ValueError(f"nu_ghz={arguments.short(nu_ghz)}: must grow, {_EXAMPLE}")
        response = passband_tables.response(weights, nu, convention)
        response = np.where(response < cut * response.max(), 0.0, response)
        # zeros within and next to a band are part of its shape, others are not
        first, last = np.flatnonzero(response)[[0, -1]]
        near = slice(max(0, first - 1), last + 2)
        nu, response = nu[near], response[near]
        # the band of one frequency keeps to the range of frequencies
        high = single.BAND_MAX_GHZ if len(nu) > 1 else single.FREQ_RANGE_GHZ[1]
        single.check_range(nu[response > 0], "a band", high, single.ALLOWED_IN_BAND)
        inside = (nu >= single.FREQ_RANGE_GHZ[0]) & (nu <= high)
        inside |= response > 0  # rounding at the edge of the range
        self.nu_ghz, response = nu[inside], response[inside]
        step = passband_tables.trapezoid(self.nu_ghz)
        total = (response * step).sum()
        # weights normalised before, as in a file, are kept to the bit
        self.weights = response if abs(total - 1) < NORMALISED else response / total
        self.name = None if name is None else str(name)
        self.beam = None if beam is None else beams.parse(beam, 1)[0]
        for array in (self.nu_ghz, self.weights):
            array.flags.writeable = False

    @classmethod
    def top_hat(
        cls,
        low_ghz: float,
        high_ghz: float,
        *,
        convention: str = "power",
        name: str | None = None,
        points: int = TOP_HAT_POINTS,
        beam: ArrayLike | None = None,
    ) -> Band:
        """A band of constant response between two frequencies.

        Raises
        ------
        ValueError
            If the edges are outside the range of the spectra or not growing, or there are fewer
            than two points.
        """
        points = arguments.integer("points", points, "an integer from 2 to 10000", 2, 10_000)
        edges = single.frequencies(
            [low_ghz, high_ghz], "[low_ghz, high_ghz]", single.ALLOWED_IN_BAND
        )
        if not edges[0] < edges[1]:
            raise ValueError(
                f"low_ghz={edges[0]:g}, high_ghz={edges[1]:g}: the first must be the lower one, "
                "for example mlsky.Band.top_hat(130, 165)"
            )
        return cls(np.linspace(*edges, points), convention=convention, name=name, beam=beam)

    @classmethod
    def read(
        cls,
        path: str | os.PathLike,
        *,
        convention: str = "power",
        name: str | None = None,
        cut: float = 0.0,
        beam: ArrayLike | None = None,
    ) -> Band:
        """A band from a file.

        Parameters
        ----------
        path
            Text of two columns or more, of which the first is taken for the frequency in GHz and
            the second for the weight, ``#`` before comments; or an IPAC table (``.tbl``) with
            columns "bandpass_frequency" and "bandpass_weight", as those of mapsims.
        convention, cut, beam
            As for `Band`: files seldom say which convention they have. Those of ACT DR6 on LAMBDA
            are "rj", those of SPT-3G and of Planck HFI "power".
        name
            By default the name of the file without its suffix.

        Raises
        ------
        ValueError
            If there is no such file, it cannot be read, or it holds no band.
        """
        path = arguments.path("path", path)
        if not path.is_file():
            raise ValueError(f"{path}: no such file")
        nu, weights = passband_tables.read(path)
        name = name or path.stem[:60]
        try:
            return cls(nu, weights, convention=convention, name=name, cut=cut, beam=beam)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def from_dict(cls, values: dict) -> Band:
        """Inverse of `to_dict`."""
        return cls(values["nu_ghz"], values["weights"], name=values["name"])

    def to_dict(self) -> dict:
        """Plain numbers, for files, without the beam: the maps in a file have it already."""
        return {
            "nu_ghz": self.nu_ghz.tolist(),
            "weights": self.weights.tolist(),
            "name": self.name,
        }

    def shifted(self, ghz: float) -> Band:
        """This band moved by a number of GHz (or a Quantity): its response stays as it is.

        For tests of what an error of a passband does. Name and beam are kept.

        Raises
        ------
        ValueError
            If it then reaches beyond the range of the spectra.
        """
        shift = arguments.number(
            "ghz", ghz, "a shift in GHz, for example 1.5 or -1.5", -np.inf, np.inf, unit="GHz"
        )
        return self._with(self.nu_ghz + shift, self.weights, self.beam)

    def with_beam(self, beam: ArrayLike | None) -> Band:
        """This band with another beam, as for `Band`; None takes it off."""
        parsed = None if beam is None else beams.parse(beam, 1)[0]
        return self._with(self.nu_ghz, self.weights, parsed)

    def _with(self, nu: NDArray, weights: NDArray, beam: beams.Beam | None) -> Band:
        band = Band(nu, weights, name=self.name)
        band.beam = beam
        return band

    @property
    def is_single(self) -> bool:
        """Whether the band is one frequency."""
        return len(self.nu_ghz) == 1

    @functools.cached_property
    def power(self) -> NDArray[np.float64]:
        """(n,) weights of a mean of intensities at `nu_ghz`; their sum is one."""
        power = self.weights * passband_tables.trapezoid(self.nu_ghz)
        return power / power.sum()

    @functools.cached_property
    def thermodynamic(self) -> NDArray[np.float64]:
        """(n,) weights of a mean of thermodynamic temperatures at `nu_ghz`; their sum is one."""
        weights = self.power * single.jy_per_sr_per_uk(self.nu_ghz)
        return weights / weights.sum()

    @functools.cached_property
    def centre_ghz(self) -> float:
        """Mean frequency, weighted by the response to intensity."""
        return float((self.power * self.nu_ghz).sum())

    @property
    def label(self) -> str:
        """The name, or the centre in GHz."""
        return self.name or f"{self.centre_ghz:g}"

    def convert(self, from_unit: str = "uK_CMB", to_unit: str = "uK_CMB") -> float:
        """Factor that takes a map of this band from one of `UNITS` to another.

        Intensities are means over the band, without the colour correction to a reference spectrum
        that Planck's and IRAS' maps in MJy/sr have.

        Raises
        ------
        ValueError
            If a unit is unknown, or y is asked for where tSZ is null.
        """
        return self._jy_per_sr(parse_unit(from_unit)) / self._jy_per_sr(parse_unit(to_unit))

    def _jy_per_sr(self, unit: str) -> float:
        if unit != "y":
            return float((self.power * single.convert(self.nu_ghz, unit, "Jy/sr")).sum())
        uk = float((self.thermodynamic * tsz.uk_per_y(self.nu_ghz)).sum())
        if abs(uk) < Y_LEAST * 1e6 * single.T_CMB_K:
            raise ValueError(
                f"unit='y' in the band {self.label}: there tSZ is null; choose another unit or band"
            )
        return uk * self._jy_per_sr("uK_CMB")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Band):
            return False
        return self.to_dict() == other.to_dict() and _shape(self.beam) == _shape(other.beam)

    def __hash__(self) -> int:
        return hash((self.name, self.nu_ghz.tobytes(), self.weights.tobytes()))

    def __repr__(self) -> str:
        if self.is_single:
            name = "" if self.name is None else f" {self.name}:"
            return f"<Band{name} {self.centre_ghz:g} GHz>"
        return (
            f"<Band {self.label}: {len(self.nu_ghz)} points from {self.nu_ghz[0]:g} to "
            f"{self.nu_ghz[-1]:g} GHz, centre {self.centre_ghz:.4g}>"
        )


def _shape(beam: beams.Beam | None) -> tuple | None:
    """What makes two beams the same."""
    if beam is None:
        return None
    return beam.fwhm_arcmin, None if beam.b_ell is None else beam.b_ell.tobytes()


def parse(freqs) -> tuple[Band, ...]:
    """The argument `freqs` of `mlsky.simulate` as bands.

    Parameters
    ----------
    freqs
        One or several of: numbers in GHz, Quantities (see `mlsky.frequency.bands.parse_freqs`),
        `Band` objects, names of `named`.

    Raises
    ------
    ValueError
        If there is none, a name is unknown, or a frequency is not allowed.
    """
    if isinstance(freqs, (Band, str)):
        freqs = [freqs]
    if not (isinstance(freqs, (list, tuple)) and any(isinstance(f, (Band, str)) for f in freqs)):
        return tuple(Band(nu) for nu in single.parse_freqs(freqs))
    found = []
    for part in freqs:
        if isinstance(part, Band):
            found.append(part)
        elif isinstance(part, str):
            found.append(named(part))
        else:
            found.extend(Band(nu) for nu in single.parse_freqs(part))
    return tuple(found)


def parse_unit(unit) -> str:
    """The name in `UNITS` of a unit given as text or as an astropy unit.

    Raises
    ------
    ValueError
        If the unit is not one of them.
    """
    return single.parse_unit(unit, UNITS)


def named(name: str) -> Band:
    """A band of an experiment by its name, such as "so_lat/f150".

    Where the measured passband is public it is that, resampled (`source` says which); otherwise a
    top hat of the published edges.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    table = _table()
    if not isinstance(name, str) or name not in table:
        raise ValueError(
            f"band {arguments.short(name)}: no band has that name; freqs may hold GHz, an "
            f"mlsky.Band, or one of {', '.join(table)}"
        )
    entry = table[name]
    if "edges_ghz" in entry:
        return Band.top_hat(*entry["edges_ghz"], name=name)
    return Band(entry["nu_ghz"], entry["weights"], convention=entry["convention"], name=name)


def names() -> tuple[str, ...]:
    """Names that `named` knows."""
    return tuple(_table())


def source(name: str) -> str:
    """Source of the numbers of a named band."""
    named(name)
    return _table()[name]["source"]


def centres(bands: Iterable[Band]) -> NDArray[np.float64]:
    """Centres (GHz) of bands, (nfreq,)."""
    return np.array([band.centre_ghz for band in bands])


def convert(bands: Iterable[Band], from_unit: str, to_unit: str) -> NDArray[np.float64]:
    """`Band.convert` of each band, (nfreq,)."""
    return np.array([band.convert(from_unit, to_unit) for band in bands])


def average(bands: Sequence[Band], law: Callable[[NDArray], NDArray]) -> NDArray[np.float64]:
    """Means of a spectrum over bands.

    Parameters
    ----------
    law
        Called once, with the frequencies (GHz) of all bands, (n,); gives thermodynamic temperatures
        (n, ...).

    Returns
    -------
    means
        (nfreq, ...).
    """
    values = law(np.concatenate([band.nu_ghz for band in bands]))
    ends = np.cumsum([len(band.nu_ghz) for band in bands])
    parts = np.split(values, ends[:-1])
    return np.stack(
        [np.tensordot(band.thermodynamic, part, 1) for band, part in zip(bands, parts, strict=True)]
    )


@functools.cache
def _table() -> dict:
    from importlib.resources import files

    return json.loads((files("mlsky.data") / "tables" / FILE).read_text(encoding="utf-8"))
