"""Lensing of the CMB by a kappa field, through lenspyx.

lenspyx (Reinecke, Belkner & Carron 2023, doi:10.1051/0004-6361/202346717) evaluates the
unlensed fields at the deflected positions and parallel-transports the polarisation.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator

import numpy as np

from mlsky.sphere import gaussian
from mlsky.sphere.geometry import Geometry
from mlsky.sphere.threads import threads

__all__ = ["deflection_alm", "lens"]

#: Accuracy of the remapping, relative to the rms of the field.
EPSILON = 1e-7

#: Pixels lensed at once (2**25 need about 2 GiB), or twice lmax^2 if that is more: each
#: piece transforms the CMB anew, and its grid of that size fills the memory anyway.
_CHUNK = 2**25

#: A deflection (rad) that no kappa of a CMB sky has; the real rms is 2.5', 7e-4.
MAX_DEFLECTION = 0.01


def deflection_alm(kappa_alm: np.ndarray) -> np.ndarray:
    """Gradient alm of the deflection, sqrt(l(l+1)) phi_lm with phi_lm = 2 kappa_lm/(l(l+1)).

    The sign is lenspyx's: the lensed CMB at n is the unlensed one at n + grad phi, and
    kappa is positive for an overdensity. The monopole and the dipole are left out: the
    one deflects nothing, the other moves the whole sky.
    """
    lmax = gaussian.alm_lmax(kappa_alm)
    ell = np.arange(lmax + 1.0)
    factor = np.zeros(lmax + 1)
    factor[2:] = 2 / np.sqrt(ell[2:] * (ell[2:] + 1))
    return gaussian.scale_alm(np.array(kappa_alm, dtype=np.complex128), factor)


def lens(cmb_alm: np.ndarray, kappa_alm: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Lensed T, Q and U at the pixel centres.

    Parameters
    ----------
    cmb_alm
        Unlensed T, E, B, *(3, nalm)*, uK. For lensed power right up to lmax it should
        reach several hundred multipoles beyond.
    kappa_alm
        Convergence, *(nalm',)*, dimensionless; its band limit may differ.
    geometry
        Pixels of the maps.

    Returns
    -------
    ndarray
        *(3, geometry.shape)* float32, uK, HEALPix's polarisation convention; 0 in pixels
        off the sphere.

    Raises
    ------
    ValueError
        If a shape does not fit, a value is not finite, or kappa deflects by more than
        any sky does (a wrong unit).
    """
    if np.ndim(cmb_alm) != 2 or len(cmb_alm) != 3:
        raise ValueError(f"cmb_alm of shape {np.shape(cmb_alm)}: must be (3, nalm), T, E and B")
    if np.ndim(kappa_alm) != 1:
        raise ValueError(f"kappa_alm of shape {np.shape(kappa_alm)}: must be (nalm,)")
    gaussian.alm_lmax(cmb_alm)
    for name, alm in (("cmb_alm", cmb_alm), ("kappa_alm", kappa_alm)):
        if not np.isfinite(alm).all():
            raise ValueError(f"{name} has values that are not finite: it must have none")
    cmb = np.ascontiguousarray(cmb_alm, dtype=np.complex128)
    dlm = deflection_alm(kappa_alm)
    _check_deflection(dlm)
    out = np.zeros((3, geometry.npix), dtype=np.float32)
    layout = gaussian.rings(geometry)
    whole = layout is not None and layout.full
    limit = max(_CHUNK, 2 * gaussian.alm_lmax(cmb) ** 2)
    for geom, pixels in _pieces(layout, limit) if whole else _points(geometry, dlm, limit):
        out[:, pixels] = _lens_piece(geom, cmb, dlm)
    return out.reshape(3, *geometry.shape)


def _check_deflection(dlm: np.ndarray) -> None:
    """Refuse a deflection field whose rms is larger than `MAX_DEFLECTION`."""
    lmax = gaussian.alm_lmax(dlm)
    power = np.abs(dlm) ** 2
    rms = np.sqrt((2 * power.sum() - power[: lmax + 1].sum()) / (4 * np.pi))
    if rms > MAX_DEFLECTION:
        raise ValueError(
            f"kappa_alm deflects by {np.degrees(rms) * 60:.3g} arcmin rms: must be below "
            f"{np.degrees(MAX_DEFLECTION) * 60:.0f} (a sky has 2.5); kappa is dimensionless"
        )


def _pieces(layout: gaussian.Rings, limit: int) -> Iterator[tuple[object, np.ndarray]]:
    """lenspyx geometries that cover whole rings, each with the map index of its pixels."""
    from lenspyx.remapping.utils_geom import Geom

    for ring in layout.pieces(limit):
        nphi = layout.nphi[ring]
        offset = np.concatenate([[0], np.cumsum(nphi)])
        # ducc0 wants azimuths below 2 pi, so a ring is taken from its point next to 0;
        # the first point of the map's row is then the one numbered `shift`.
        step = 2 * np.pi / nphi
        shift = np.floor(layout.phi0[ring] / step).astype(np.int64)
        geom = Geom(
            layout.theta[ring],
            layout.phi0[ring] - shift * step,
            nphi.astype(np.uint64),
            offset[:-1].astype(np.uint64),
            # Weights only serve lenspyx's warning of a large deflection, which divides by
            # the area; as if this were the full sky it says nothing.
            np.full(len(ring), 4 * np.pi / offset[-1]),
        )
        point = np.arange(offset[-1]) - np.repeat(offset[:-1] + shift, nphi)
        row = np.repeat(layout.start[ring], nphi)
        yield geom, row + layout.stride * (point % np.repeat(nphi, nphi))


def _points(geometry: Geometry, dlm: np.ndarray, limit: int) -> Iterator[tuple[object, np.ndarray]]:
    """The pixels of a cut-out, or of any projection, as `_Points` with their map index."""
    d1 = gaussian.pixel_values(dlm[None], geometry, 1, mode="GRAD_ONLY")
    for part in gaussian.chunks(np.ones(geometry.npix, dtype=np.int64), limit):
        theta, phi = geometry.angles(part)
        on_sky = np.isfinite(theta) & np.isfinite(phi)
        part = part[on_sky]
        yield _Points(np.clip(theta[on_sky], 0, np.pi), phi[on_sky], d1[:, part]), part


def _lens_piece(geom: object, cmb: np.ndarray, dlm: np.ndarray) -> np.ndarray:
    """T, Q, U of the unlensed CMB at the deflected positions of `geom`, *(3, npix)*.

    The bits of ducc0's non-uniform transform depend on its number of threads (how lines
    are shared out decides which go through its vector FFT), unlike those of all else here.
    So each field is remapped by one thread, and the fields beside each other.
    """
    from lenspyx import cachers
    from lenspyx.remapping.deflection_029 import deflection

    cacher = cachers.cacher_mem(safe=False)
    common = {"cacher": cacher, "epsilon": EPSILON, "single_prec": False}
    # Fills the cacher with the deflected positions and the rotations there.
    deflection(geom, dlm, None, numthreads=threads(), **common)._build_angles()

    def remap(alm: np.ndarray, spin: int) -> np.ndarray:
        field = deflection(geom, dlm, None, numthreads=1, **common)
        return field.gclm2lenmap(alm, None, spin, False)

    # E alone takes a faster transform. Polarisation goes first, being the longer one.
    polarised = cmb[1:] if cmb[2].any() else cmb[1:2]
    with concurrent.futures.ThreadPoolExecutor(min(2, threads())) as pool:
        maps = list(pool.map(remap, [polarised, cmb[:1]], [2, 0]))
    return np.concatenate(maps[::-1])


class _Points:
    """Stand-in for lenspyx's Geom: every pixel a ring of its own, deflections given."""

    def __init__(self, theta: np.ndarray, phi: np.ndarray, d1: np.ndarray) -> None:
        self.theta, self.phi0, self.d1 = theta, phi, d1
        self.nph = np.ones(len(theta), dtype=np.uint64)
        self.ofs = np.arange(len(theta), dtype=np.uint64)

    def npix(self) -> int:
        return len(self.theta)

    def fsky(self) -> float:
        # lenspyx divides the rms deflection by it, only to warn.
        return 1.0

    def synthesis(self, *args, **kwargs) -> np.ndarray:
        """What lenspyx asks for is the deflection at the pixels."""
        return self.d1
