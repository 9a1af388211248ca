"""Bright sources found in noisy maps and subtracted with the errors of their fluxes.

A matched filter in white noise measures the flux of a source with the error

    sigma = n / sqrt(int B^2 dOmega),    int B^2 dOmega = sum_l (2 l + 1) / (4 pi) b_l^2,

of the beam profile B with integral one (Haehnelt & Tegmark 1996, arXiv:astro-ph/9507077, for a
known profile in white noise); for a Gaussian of width s it is n sqrt(4 pi) s. The noise of the CMB
and of other foregrounds is not in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky import arguments, seeds
from mlsky.sources import catalogue, cuts

if TYPE_CHECKING:
    from astropy.table import Table

    from mlsky.frequency.passbands import Band
    from mlsky.io.layers import Layer
    from mlsky.sky import Sky
    from mlsky.sphere.beams import Beam

__all__ = ["flux_error_mjy", "parse_noise", "subtract"]


def flux_error_mjy(noise_uk_arcmin: float, beam: Beam, band: Band) -> float:
    """Error (mJy) of the flux of a point source in white noise, see the module.

    Parameters
    ----------
    noise_uk_arcmin
        White noise, uK_CMB arcmin.
    """
    if beam.b_ell is None:
        sigma = np.radians(beam.fwhm_arcmin / 60) / np.sqrt(8 * np.log(2))
        square = 1 / ((4 * np.pi) * sigma**2)
    else:
        ell = np.arange(len(beam.b_ell))
        square = float(((2 * ell + 1) * beam.b_ell**2).sum() / (4 * np.pi))
    noise = noise_uk_arcmin * np.radians(1 / 60)
    return float(1e3 * noise * band.convert("uK_CMB", "Jy/sr") / np.sqrt(square))


def parse_noise(noise_uk_arcmin, count: int) -> list[float]:
    """White noise of each band: one number for all, or one for each.

    Raises
    ------
    ValueError
        If one is not positive, or there is another number of them than of bands.
    """
    many = isinstance(noise_uk_arcmin, (list, tuple, np.ndarray))
    values = list(noise_uk_arcmin) if many else [noise_uk_arcmin] * count
    if len(values) != count:
        raise ValueError(f"{len(values)} noise levels for {count} bands: give one, or one for each")
    allowed = "white noise in uK_CMB arcmin, positive, for example 10"
    return [arguments.number("noise_uk_arcmin", v, allowed, 1e-6, 1e9, "uK arcmin") for v in values]


def subtract(
    sky: Sky, snr: float, noise: Sequence[float], each: Sequence[Beam], found_in: int, seed: int
) -> tuple[dict[str, list[Layer]], Table]:
    """Layers and catalogue of a sky whose sources above a signal to noise are subtracted.

    As `mlsky.sky.Sky.subtract`, with checked arguments.
    """
    table = sky.catalog
    errors = np.array([flux_error_mjy(*one) for one in zip(noise, each, sky.bands, strict=True)])
    flux = catalogue.band_fluxes(table, sky.bands)
    place = catalogue.of_place(np.asarray(table["ra"]), np.asarray(table["dec"]))
    kind = (np.asarray(table["kind"]) == "dsfg").astype(np.int64)

    def wrong(band: int, letter: str) -> NDArray[np.float64]:
        """Error of a measurement, mJy; that of Q and U is larger by the root of two."""
        normal = seeds.normal(seed, "flux_errors", band, "TQU".index(letter), kind, place)
        return errors[band] * normal * (1.0 if letter == "T" else np.sqrt(2.0))

    measured = flux + np.stack([wrong(band, "T") for band in range(len(sky.bands))])
    there = np.stack([cuts.in_band(table, band) for band in range(len(sky.bands))], 1)
    found = there[:, found_in] & (measured[found_in] >= snr * errors[found_in])
    layers = {name: list(held) for name, held in sky.layers.items()}
    for name, own in catalogue.COMPONENTS.items():
        some = found & (np.asarray(table["kind"]) == own)
        for number, layer in enumerate(layers.get(name, ())):
            if layer.pixels is not None and some.any():
                values = {
                    letter: np.stack([wrong(b, letter)[some] for b in range(len(sky.bands))])
                    for letter in layer.stokes
                }
                layers[name][number] = _replaced(layer, table[some], sky, there[some], values)
    listed = table.copy()
    listed["in_map"] = np.asarray(table["in_map"]) & ~found
    if "in_bands" in table.colnames:
        listed["in_bands"] = there & ~found[:, np.newaxis]
    listed["measured_mjy"] = np.where(found[:, np.newaxis], measured.T, np.nan)
    listed["measured_mjy"].unit = "mJy"
    return layers, listed


def _replaced(
    layer: Layer,
    sources: Table,
    sky: Sky,
    there: NDArray[np.bool_],
    wrong: dict[str, NDArray[np.float64]],
) -> Layer:
    """A layer of sources in which some are replaced by minus the errors of their fluxes."""
    geometry = sky.geometry
    templates = np.array(layer.templates, np.float32)
    hit, values = catalogue.paint_sparse(sources, geometry, sky.bands, layer.stokes, there)
    templates[:, :, np.searchsorted(layer.pixels, hit)] -= values
    theta = np.radians(90 - np.asarray(sources["dec"], np.float64))
    pixel = geometry.pixel(theta, np.radians(np.asarray(sources["ra"], np.float64)))
    on = pixel >= 0
    place = np.searchsorted(layer.pixels, pixel[on])
    area = np.broadcast_to(geometry.area(pixel[on]), place.shape)
    for band, one in enumerate(sky.bands):
        per_uk = 1e3 * area * one.convert("uK_CMB", "Jy/sr")
        for row, letter in enumerate(layer.stokes):
            error = np.where(there[on, band], wrong[letter][band][on], 0.0)
            np.subtract.at(templates[band, row], place, (error / per_uk).astype(np.float32))
    return dataclasses.replace(layer, templates=templates)
