"""The convergence given by a user: checks, filling of holes, and completion at high multipoles."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlsky.arguments import boolean, choice, unmask
from mlsky.sphere.geometry import Car, Healpix
from mlsky.sphere.multipoles import of_order, truncate

__all__ = ["KINDS", "InputKappa", "check_options", "complete", "parse"]

#: Kinds of convergence: Gaussian, the input of the networks, or nonlinear already, for example from
#: an N-body simulation.
KINDS = ("gaussian", "nonlinear")

#: Larger values are masks, such as healpy.UNSEEN = -1.6e30.
LARGEST = 1e20

#: Largest imaginary part of m = 0, as a fraction of the rms of an alm. A real field has none but
#: for rounding in single precision.
IMAGINARY = 1e-5

#: Largest rms allowed. The rms of the CMB lensing convergence is below 0.2 on any pixels.
RMS_MAX = 1.0


@dataclass(frozen=True, eq=False)
class InputKappa:
    """A checked kappa: a healpy-ordered alm up to `lmax`, or a map on `geometry`.

    Parameters
    ----------
    values
        Flat array, complex128 or float64; 0 in the holes.
    lmax
        Up to which it is used.
    kind
        One of `KINDS`.
    holes
        (n,) bool of the pixels to be filled, or None if there are none.
    """

    values: NDArray
    lmax: int
    geometry: Healpix | Car | None = None
    kind: str = "gaussian"
    holes: NDArray[np.bool_] | None = None

    @property
    def nside(self) -> int | None:
        """Of a HEALPix map."""
        return getattr(self.geometry, "nside", None)

    def describe(self) -> str:
        """A description for the provenance of a sky."""
        filled = "" if self.holes is None else f", {int(self.holes.sum())} pixels filled"
        return f"given, {self.kind}, up to l = {self.lmax}{filled}"


def parse(kappa, kind: str = "gaussian", fill: bool = False) -> InputKappa:
    """Check a kappa: a map of the full sky or a healpy-ordered alm, finite, dimensionless.

    Parameters
    ----------
    kappa
        (12 nside^2,) real, a HEALPix RING map, used up to l = 2 nside, where its quadrature is
        still good; ``(map, wcs)`` or a pixell ``enmap`` (ny, nx), full-sky CAR, used up to one
        less than Nyquist; or ((lmax+1)(lmax+2)/2,) complex alm. A Quantity must be
        dimensionless. No pixel window is corrected.
    kind
        "gaussian" or "nonlinear".
    fill
        Whether a map may have holes: NaN, or masked as with ``healpy.UNSEEN``.

    Raises
    ------
    ValueError
        If the shape, a value, the unit or an option is not allowed.
    """
    kind, fill = check_options(kind, fill)
    kappa = unmask(kappa)
    wcs = getattr(kappa, "wcs", None)
    if isinstance(kappa, tuple) and len(kappa) == 2:
        kappa, wcs = unmask(kappa[0]), kappa[1]
    unit = getattr(kappa, "unit", None)
    if unit is not None:
        if not unit.is_equivalent(""):
            raise ValueError(
                f"kappa in {unit}: must be the dimensionless convergence, L(L+1)/2 times the "
                "lensing potential; divide by its unit"
            )
        kappa = kappa.to_value("")
    try:
        values = np.asarray(kappa)
    except (TypeError, ValueError):  # quantities or rows that do not fit each other
        values = np.asarray(None)
    if wcs is not None and values.ndim > 2 and values.shape[:-2] == (1,) * (values.ndim - 2):
        values = values.reshape(values.shape[-2:])
    kinds = "iuf" if wcs is not None else "iufc"
    if (
        values.ndim != (1 if wcs is None else 2)
        or values.dtype.kind not in kinds
        or not values.size
    ):
        raise ValueError(
            f"kappa of shape {values.shape} and type {values.dtype}: must be one HEALPix RING map "
            "(12 nside^2 real numbers), one CAR map as (map, wcs) or enmap, or one "
            "healpy-ordered alm ((lmax+1)(lmax+2)/2 complex numbers)"
        )
    if wcs is not None:
        kappa = _parse_car(values, wcs)
    else:
        kappa = _parse_alm(values) if values.dtype.kind == "c" else _parse_map(values)
    kappa = dataclasses.replace(_without_holes(kappa, fill), kind=kind)
    rms = _rms(kappa)
    if rms > RMS_MAX:
        raise ValueError(
            f"kappa has rms {rms:.3g}: must be the dimensionless convergence (that of the CMB has "
            f"less than 0.2, {RMS_MAX:g} is allowed); check its unit"
        )
    return kappa


def check_options(kind: object, fill: object) -> tuple[str, bool]:
    """`kind` and `fill` of `parse`, which are checked whether or not there is a kappa."""
    return choice("kappa_kind", kind, KINDS), boolean("fill_kappa", fill)


def complete(
    kappa: InputKappa, lmax: int, drawn: NDArray[np.complex128] | None = None
) -> NDArray[np.complex128]:
    """The alm of `kappa` up to `lmax`, with those of `drawn` at higher multipoles.

    Pixels in holes get the values of `drawn` there. It has the power of its surroundings, but other
    phases.

    Parameters
    ----------
    drawn
        Alm up to `lmax`; not needed if ``kappa.lmax >= lmax`` and there are no holes.
    """
    alm, top = kappa.values, kappa.lmax
    if kappa.geometry is not None:
        from mlsky.sphere import gaussian

        values = kappa.values.reshape(kappa.geometry.shape)
        if kappa.holes is not None:
            low = truncate(drawn, top)
            drawn_map = gaussian.alm_to_map(low, kappa.geometry)
            values = np.where(kappa.holes.reshape(values.shape), drawn_map, values)
        top = min(top, lmax)
        alm = gaussian.map_to_alm(values, kappa.geometry, top)
    if top == lmax:
        return alm
    out = np.zeros((lmax + 1) * (lmax + 2) // 2, np.complex128) if drawn is None else drawn.copy()
    kept = min(lmax, top)
    for m in range(kept + 1):
        out[of_order(m, kept, lmax)] = alm[of_order(m, kept, top)]
    return out


def _without_holes(kappa: InputKappa, fill: bool) -> InputKappa:
    """Finite values everywhere and a mask of the holes; holes are refused without `fill`."""
    holes = ~(np.abs(kappa.values) < LARGEST)
    bad = int(np.count_nonzero(holes))
    if not bad:
        return kappa
    if kappa.geometry is None:
        raise ValueError(
            f"kappa has {bad} NaN, infinite or masked values of {kappa.values.size}: an alm "
            "must be finite everywhere, multipoles cannot be filled"
        )
    if not fill:
        raise ValueError(
            f"kappa has {bad} NaN, infinite or masked values of {kappa.values.size}: must be "
            "finite everywhere; fill them first, or fill them with a Gaussian field by "
            "fill_kappa=True (--fill-kappa)"
        )
    if bad == kappa.values.size:
        raise ValueError(
            f"kappa has {bad} NaN, infinite or masked values of {bad}: nothing is left"
        )
    return dataclasses.replace(kappa, values=np.where(holes, 0.0, kappa.values), holes=holes)


def _rms(kappa: InputKappa) -> float:
    """Rms of the map without its mean, or of an alm from l = 1."""
    if kappa.geometry is not None:
        kept = kappa.values if kappa.holes is None else kappa.values[~kappa.holes]
        return float(kept.std())
    power = np.abs(kappa.values) ** 2
    zonal = power[: kappa.lmax + 1]
    return float(np.sqrt((2 * power.sum() - zonal.sum() - zonal[0]) / (4 * np.pi)))


def _parse_alm(values: NDArray) -> InputKappa:
    lmax = round((np.sqrt(8.0 * values.size + 1) - 3) / 2)
    size = (lmax + 1) * (lmax + 2) // 2
    if size != values.size:
        raise ValueError(
            f"kappa alm of length {values.size}: must be (lmax+1)(lmax+2)/2 with mmax = lmax, "
            f"for example {size} for lmax={lmax}"
        )
    zonal = np.abs(values[: lmax + 1].imag).max()
    if zonal > IMAGINARY * np.sqrt(np.mean(np.abs(values) ** 2)):
        raise ValueError(
            f"kappa alm with imaginary parts up to {zonal:.3g} at m = 0: must have none, as a real "
            "field has; the order is healpy's, all l of m = 0 first"
        )
    return InputKappa(values.astype(np.complex128), lmax)


def _parse_map(values: NDArray) -> InputKappa:
    side = np.sqrt(values.size / 12)
    nside = 1 << max(0, round(np.log2(side)))
    if 12 * nside**2 != values.size:
        raise ValueError(
            f"kappa map of length {values.size}: must be 12 nside^2 with nside a power of two, "
            f"for example {12 * nside**2} for nside={nside}"
        )
    return InputKappa(values.astype(np.float64), 2 * nside, Healpix(nside))


def _parse_car(values: NDArray, wcs) -> InputKappa:
    geometry = Car(values.shape, wcs)
    ny, nx = values.shape
    width, height = (abs(np.degrees(step)) for step in geometry.steps)
    whole = abs(nx * width - 360) < width / 2 and abs(ny * height - 180) < 1.5 * height
    if not (geometry.cylindrical and whole):
        raise ValueError(
            f"kappa map of {ny} x {nx} pixels of {height * 60:g}' x {width * 60:g}': must be a "
            "full-sky CAR map, as on pixell.enmap.fullsky_geometry; where there are no data put "
            "NaN and give fill_kappa=True"
        )
    return InputKappa(values.astype(np.float64).ravel(), geometry.lmax - 1, geometry)
