"""A set of regions whose spectra, counts and moments are known."""

from __future__ import annotations

import json

import h5py
import numpy as np
from halo_cases import shipped

from mlsky import seeds
from mlsky.frequency import bands, tsz
from mlsky.haloes.galaxies import SOURCE_COLUMNS
from mlsky.sources import counts

#: Regions of 4.3 degrees of 2' pixels in the set.
REGIONS, PIXEL_ARCMIN, N = 24, 2.0, 128

#: Flux cut of the painted maps.
CUT_MJY = 7.0

#: Amplitude of the CIB at 220 over 148 GHz in the set: that of the model to a few per cent.
CIB_220 = 2.95

#: Share of every field that the set's objects have, where they are apart.
OBJECTS = 0.25


def _filters(ell: np.ndarray) -> np.ndarray:
    """(modes, 4, 4) roots of the analytic covariance of kappa, kSZ, tSZ, CIB."""
    t = shipped()
    uk = float(tsz.uk_per_y(148.0))

    def at(name):
        return np.interp(np.log(np.maximum(ell, 1)), np.log(t["ell"]), t[f"analytic_{name}"])

    kk, yy, cc, ky, kc, yc = (at(n) for n in ("kk", "yy", "cc", "ky", "kc", "yc"))
    zero = np.zeros_like(kk)
    rows = [
        [kk, zero, ky * uk, kc],
        [zero, at("ksz"), zero, zero],
        [ky * uk, zero, yy * uk**2, yc * uk],
        [kc, zero, yc * uk, cc],
    ]
    return np.linalg.cholesky(np.array(rows).transpose(2, 3, 0, 1))


def write(path, regions=REGIONS, source=None, leave_out=(), apart=False):
    """A set of Gaussian fields with the analytic spectra, and radio sources of the counts.

    With `apart` a share of each field is called its objects.
    """
    rng = seeds.generator(5, "truth")
    pixel = np.radians(PIXEL_ARCMIN / 60)
    ell = np.hypot(
        2 * np.pi * np.fft.fftfreq(N, pixel)[:, None], 2 * np.pi * np.fft.rfftfreq(N, pixel)[None]
    )
    white = rng.standard_normal((regions, 4, N, N))
    modes = np.einsum("yxab,rbyx->rayx", _filters(ell), np.fft.rfft2(white))
    maps = np.fft.irfft2(modes, s=(N, N)) / pixel
    number = rng.poisson(counts.radio_density() * pixel**2, (regions, N, N))
    flux = counts.draw_radio_flux(rng.random(number.sum()))
    bright = flux.copy()
    flux[flux > CUT_MJY] = 0
    where = np.repeat(np.arange(number.size), number.ravel())
    mjy = np.bincount(where, flux, number.size).reshape(number.shape)
    fields = dict(zip(("kappa", "ksz", "tsz", "cib"), maps.transpose(1, 0, 2, 3), strict=True))
    fields["radio"] = mjy * 1e-3 / float(bands.jy_per_sr_per_uk(148.0)) / pixel**2
    fields |= {"cib_220": CIB_220 * fields["cib"], "radio_220": 0.6 * fields["radio"]}
    listed = bright[bright > 1]
    rows = np.zeros((len(listed), len(SOURCE_COLUMNS)), np.float32)
    rows[:, SOURCE_COLUMNS.index("flux_mjy")] = listed  # all of them radio
    with h5py.File(path, "w") as file:
        file.attrs["pixel_arcmin"] = PIXEL_ARCMIN
        file.attrs["freqs"] = [220.0]
        file["sources"] = rows
        file["sources_end"] = np.linspace(0, len(rows), regions + 1).astype(int)[1:]
        file.attrs["source"] = json.dumps(shipped()["header"]) if source is None else source
        share = OBJECTS if apart else 0.0
        for name in set(fields) - set(leave_out):
            file[name] = ((1 - share) * fields[name]).astype(np.float32)
            if apart:
                file[f"objects_{name}"] = (share * fields[name]).astype(np.float32)
        if apart:
            file.attrs["mass_cut"] = 1e14
            file["objects"] = np.zeros((20 * regions, 5), np.float32)
            file["objects_end"] = 20 * np.arange(1, regions + 1)
    return path
