"""Lensing of the CMB by a kappa field.

The unlensed fields are evaluated at the deflected positions (`mlsky.sphere.field`), and the
polarisation is rotated by parallel transport. Positions and angles are computed by ducc0, as in
lenspyx (Reinecke, Belkner & Carron 2023, doi:10.1051/0004-6361/202346717). lenspyx itself builds
its grid again for each piece of a map, and its bits depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlsky.sphere import coverage, gaussian
from mlsky.sphere.field import Field
from mlsky.sphere.geometry import Geometry
from mlsky.sphere.threads import threads

__all__ = ["deflection_alm", "lens", "pieces"]

#: Pixels lensed at once: 0.5 GiB beside the grids.
_CHUNK = 2**22

#: Largest rms deflection allowed (rad); the real one is 2.5', 7e-4.
MAX_DEFLECTION = 0.01

#: Largest deflection, in units of its rms, of a map of part of the sky: our choice. Of a Gaussian
#: field one pixel in 10^43 is deflected as far.
FARTHEST = 10.0


def deflection_alm(kappa_alm: np.ndarray) -> np.ndarray:
    """Gradient alm of the deflection, sqrt(l(l+1)) phi_lm with phi_lm = 2 kappa_lm/(l(l+1)).

    The sign: the lensed CMB at n is the unlensed one at n + grad phi, and kappa is positive for an
    overdensity. The monopole, which deflects nothing, and the dipole, which moves the whole sky,
    are left out.
    """
    lmax = gaussian.alm_lmax(kappa_alm)
    ell = np.arange(lmax + 1.0)
    factor = np.zeros(lmax + 1)
    factor[2:] = 2 / np.sqrt(ell[2:] * (ell[2:] + 1))
    return gaussian.scale_alm(np.array(kappa_alm, dtype=np.complex128), factor)


def lens(cmb_alm: np.ndarray, kappa_alm: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Lensed T, or T, Q and U, at the pixel centres.

    Parameters
    ----------
    cmb_alm
        Unlensed T, E, B, *(3, nalm)*, or T alone, *(1, nalm)*, uK. For correct lensed power up to
        an l, they need several hundred multipoles more.
    kappa_alm
        Convergence, *(nalm',)*, dimensionless; its band limit may differ.
    geometry
        Pixels of the maps.

    Returns
    -------
    ndarray
        *(3, geometry.shape)* or *(1, geometry.shape)* float32, uK, HEALPix's polarisation
        convention; 0 in pixels off the sphere.

    Raises
    ------
    ValueError
        If a shape does not fit, a value is not finite, or kappa deflects by more than
        any sky does (a wrong unit).

    Notes
    -----
    The error is that of `mlsky.sphere.field.Field`: 1e-5 of the rms of the field, far below
    the lensed power up to l = 10000.
    """
    out = np.zeros((len(cmb_alm), geometry.npix), dtype=np.float32)
    for pixels, values in pieces(cmb_alm, kappa_alm, geometry):
        out[:, pixels] = values
    return out.reshape(len(cmb_alm), *geometry.shape)


def pieces(
    cmb_alm: np.ndarray, kappa_alm: np.ndarray, geometry: Geometry
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """As `lens`, piece by piece, for maps larger than memory.

    Yields
    ------
    pixels, values
        Flat numbers of pixels, *(n,)* int64, and their T or T, Q and U, *(1 or 3, n)* float32.
        Every pixel on the sphere is returned once.
    """
    if np.ndim(cmb_alm) != 2 or len(cmb_alm) not in (1, 3):
        raise ValueError(
            f"cmb_alm of shape {np.shape(cmb_alm)}: must be (3, nalm), T, E and B, or (1, nalm)"
        )
    if np.ndim(kappa_alm) != 1:
        raise ValueError(f"kappa_alm of shape {np.shape(kappa_alm)}: must be (nalm,)")
    gaussian.alm_lmax(cmb_alm)
    for name, alm in (("cmb_alm", cmb_alm), ("kappa_alm", kappa_alm)):
        if not np.isfinite(alm).all():
            raise ValueError(f"{name} has values that are not finite: it must have none")
    dlm = deflection_alm(kappa_alm)
    return _pieces(cmb_alm, dlm, geometry, FARTHEST * _checked_rms(dlm))


def _pieces(
    cmb_alm: np.ndarray, dlm: np.ndarray, geometry: Geometry, farthest: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    reach = coverage.colatitudes_of_map(geometry, farthest)
    fields = [Field(cmb_alm[0], colatitude=reach)]
    if len(cmb_alm) == 3:
        # E alone takes a faster transform.
        eb_alm = cmb_alm[1:] if cmb_alm[2].any() else cmb_alm[1:2]
        fields.append(Field(eb_alm, spin=2, colatitude=reach))
    layout = gaussian.rings(geometry)
    whole = layout is not None and layout.full
    for pixels, ring, d1 in _rings(layout, dlm) if whole else _points(geometry, dlm):
        yield pixels, _remap(fields, ring, d1)


def _checked_rms(dlm: np.ndarray) -> float:
    """Rms (rad) of a deflection field, refused if it is larger than `MAX_DEFLECTION`."""
    lmax = gaussian.alm_lmax(dlm)
    power = np.abs(dlm) ** 2
    rms = float(np.sqrt((2 * power.sum() - power[: lmax + 1].sum()) / (4 * np.pi)))
    if rms > MAX_DEFLECTION:
        raise ValueError(
            f"kappa_alm deflects by {np.degrees(rms) * 60:.3g} arcmin rms: must be below "
            f"{np.degrees(MAX_DEFLECTION) * 60:.0f} (a sky has 2.5); kappa is dimensionless"
        )
    return rms


def _rings(
    layout: gaussian.Rings, dlm: np.ndarray
) -> Iterator[tuple[np.ndarray, dict, np.ndarray]]:
    """Pixels on whole rings: map index, the rings they lie on, deflection (2, n)."""
    import ducc0

    lmax = gaussian.alm_lmax(dlm)
    for number in layout.pieces(_CHUNK):
        nphi = layout.nphi[number]
        offset = np.concatenate([[0], np.cumsum(nphi)])
        # ducc0 wants azimuths below 2 pi, so a ring begins with its point next to 0;
        # the first point of the map's row is then the one numbered `shift`.
        step = 2 * np.pi / nphi
        shift = np.floor(layout.phi0[number] / step).astype(np.int64)
        ring = {
            "theta": layout.theta[number],
            "phi0": layout.phi0[number] - shift * step,
            "nphi": nphi.astype(np.uint64),
            "ringstart": offset[:-1].astype(np.uint64),
        }
        d1 = ducc0.sht.synthesis(
            alm=dlm[None], spin=1, lmax=lmax, mode="GRAD_ONLY", nthreads=threads(), **ring
        )
        point = np.arange(offset[-1]) - np.repeat(offset[:-1] + shift, nphi)
        row = np.repeat(layout.start[number], nphi)
        yield row + layout.stride * (point % np.repeat(nphi, nphi)), ring, d1


def _points(geometry: Geometry, dlm: np.ndarray) -> Iterator[tuple[np.ndarray, dict, np.ndarray]]:
    """Pixels of part of the sky or of any projection, as rings of one point each; as `_rings`."""
    deflection = Field(dlm[None], spin=1, colatitude=coverage.colatitudes_of_map(geometry, 0.0))
    for part in gaussian.chunks(np.ones(geometry.npix, dtype=np.int64), _CHUNK):
        theta, phi = geometry.angles(part)
        on_sky = np.isfinite(theta) & np.isfinite(phi)
        theta, phi = np.clip(theta[on_sky], 0, np.pi), phi[on_sky]
        yield part[on_sky], _rings_of_one(theta, phi), deflection(theta, phi).astype(np.float64)


def _rings_of_one(theta: np.ndarray, phi: np.ndarray) -> dict:
    """Points as ducc0 takes them, each a ring of its own."""
    return {
        "theta": theta,
        "phi0": phi,
        "nphi": np.ones(len(theta), dtype=np.uint64),
        "ringstart": np.arange(len(theta), dtype=np.uint64),
    }


def _remap(fields: list[Field], ring: dict, d1: np.ndarray) -> np.ndarray:
    """T, or T, Q and U, of the unlensed CMB at the deflected positions, *(1 or 3, n)*."""
    import ducc0

    polarised = len(fields) == 2
    where = ducc0.misc.get_deflected_angles(
        deflect=np.ascontiguousarray(d1.T), calc_rotation=polarised, nthreads=threads(), **ring
    )
    theta, phi = where[:, 0], where[:, 1]
    out = np.empty((3 if polarised else 1, len(where)), dtype=np.float32)
    out[0] = fields[0](theta, phi)
    if polarised:
        q, u = fields[1](theta, phi)
        qu = np.empty(len(where), dtype=np.complex128)
        qu.real, qu.imag = q, u
        angle = np.ascontiguousarray(where[:, 2])
        ducc0.misc.lensing_rotate(qu, angle, 2, threads())
        out[1], out[2] = qu.real, qu.imag
    return out
