"""How well networks reproduce held-out truth: one table of figures per weight file.

Generated fields start from the truth's own Gaussian kappa, so that both sides share the
sample variance of the large scales; errors are those of the mean over regions.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch

from mlsky import bands, seeds
from mlsky.components import REFERENCE_GHZ
from mlsky.networks import evaluate
from mlsky.networks.weights import Weights
from mlsky.sources import counts
from mlsky.training.data import fields_of

__all__ = ["FIELDS", "generate", "run", "score"]

FIELDS = ("kappa", "ksz", "tsz", "cib", "radio")
EDGES = (300, 700, 1200, 2000, 3000, 4500, 6000, 8000)  # multipoles of the bands
PAIRS = (("kappa", "ksz"), ("kappa", "tsz"), ("kappa", "cib"), ("kappa", "radio"), ("tsz", "cib"))
QUANTILES = (0.001, 0.01, 0.99, 0.999)
COUNTS_MJY = (0.5, 1.0, 2.0)  # pixel flux
#: tSZ spectra are those of maps clipped here: rare clusters set the rest (uK)
TSZ_CLIP = -40.0


def run(weights: Weights, kappa: np.ndarray, seed: int, tile: int) -> dict[str, torch.Tensor]:
    """What the networks make of a Gaussian kappa (n, n), with white noise of `seed`."""
    n = kappa.shape[-1]
    noise = {}
    for i, (name, levels) in enumerate(evaluate.noise_channels(weights).items()):
        rng = torch.Generator().manual_seed(seeds.integer(seed, "network", tile, i))
        noise[name] = [torch.randn(c, n >> l, n >> l, generator=rng) for l, c in levels]
    return evaluate.evaluate(weights, kappa, noise)


def generate(weights: Weights, kappa: np.ndarray, seed: int, tile: int) -> np.ndarray:
    """All of `FIELDS` (5, n, n) from a Gaussian kappa (n, n).

    Radio sources above 7 mJy are left out, as in the training truth.
    """
    made = run(weights, kappa, seed, tile)
    if "radio" not in made:
        rng = seeds.generator(seed, "points", tile)
        pixel_sr = math.radians(weights.pixel_arcmin / 60) ** 2
        mean_rate = weights.header.get("calibration", {}).get("radio_mean_rate")
        rate = counts.rate_gain(mean_rate, pixel_sr) * np.exp(made["log_rate"].double().numpy())
        number = rng.poisson(rate).ravel()
        flux = counts.draw_radio_flux(rng.random(number.sum()))
        flux[flux > 7.0] = 0
        pixel = np.repeat(np.arange(number.size), number)
        uk = np.bincount(pixel, flux, number.size) * 1e-3 / _jy_per_uk(weights.pixel_arcmin)
        made["radio"] = torch.from_numpy(uk.reshape(kappa.shape))
    return np.stack([made[name].numpy().astype(np.float32) for name in FIELDS])


def _jy_per_uk(pixel_arcmin: float) -> float:
    """Flux (Jy) of one pixel of 1 uK at the reference frequency."""
    return bands.jy_per_sr_per_uk(REFERENCE_GHZ) * math.radians(pixel_arcmin / 60) ** 2


def _spectra(maps: np.ndarray, pixel_arcmin: float) -> np.ndarray:
    """Band powers (fields, fields, bands) of windowed maps (fields, n, n)."""
    n = maps.shape[-1]
    pixel = math.radians(pixel_arcmin / 60)
    window = np.hanning(n + 2)[1:-1]
    window = window[:, None] * window[None]
    maps = maps - maps.mean((1, 2), keepdims=True)
    modes = np.fft.rfft2(maps * window) * pixel / n / np.sqrt((window**2).mean())
    ell = np.hypot(
        2 * np.pi * np.fft.fftfreq(n, pixel)[:, None], 2 * np.pi * np.fft.rfftfreq(n, pixel)[None]
    )
    out = np.empty((len(maps), len(maps), len(EDGES) - 1))
    for b, (lo, hi) in enumerate(pairwise(EDGES)):
        inside = modes[:, (ell >= lo) & (ell < hi)]
        out[..., b] = (inside @ inside.conj().T).real / max(inside.shape[1], 1)
    return out


def _moments(maps: np.ndarray, pixel_arcmin: float) -> np.ndarray:
    """Per field: std, skewness, quantiles, and sources per square degree by pixel flux."""
    per_mjy = 1e-3 / _jy_per_uk(pixel_arcmin)
    area = maps[0].size * (pixel_arcmin / 60) ** 2
    rows = []
    for x in maps.astype(np.float64):
        s = x.std()
        above = [(x > f * per_mjy).sum() / area for f in COUNTS_MJY]
        rows.append([s, ((x - x.mean()) ** 3).mean() / s**3, *np.quantile(x, QUANTILES), *above])
    return np.array(rows)


def _regions(weights: Weights, data: str | os.PathLike, regions: int | None, seed: int) -> Iterator:
    fields, attrs = fields_of(data, (*FIELDS, "kappa_in"))
    if attrs["pixel_arcmin"] != weights.pixel_arcmin:
        raise ValueError(
            f"{data}: pixels of {attrs['pixel_arcmin']}', the weights want {weights.pixel_arcmin}'"
        )
    total = len(fields[0])
    for i in range(total if regions is None else min(regions, total)):
        *truth, start = (f[i] for f in fields)
        truth = np.stack(truth)
        truth[3] = np.maximum(truth[3], 0)
        yield truth, generate(weights, start, seed, i)


def score(
    weights: Weights, data: str | os.PathLike, regions: int | None = None, seed: int = 0
) -> dict:
    """Figures of a weight file against a held-out set.

    Returns
    -------
    dict
        ``power``: ratio generated / true per field and band, with errors; ``correlation``:
        coefficients of pairs, true and generated; ``pixels``: standard deviation, skewness,
        quantiles, and densities of pixels above 0.5, 1, 2 mJy, true and generated.

    Raises
    ------
    ValueError
        If the set cannot be read, lacks a field or has other pixels; if `regions` < 1.
    """
    if regions is not None and regions < 1:
        raise ValueError(f"regions={regions}: must be at least 1")
    spectra, moments = [], []
    for pair in _regions(weights, data, regions, seed):
        clipped = []
        for maps in pair:
            maps = maps.copy()
            maps[2] = np.maximum(maps[2], TSZ_CLIP)
            clipped.append(maps)
        spectra.append([_spectra(m, weights.pixel_arcmin) for m in clipped])
        moments.append([_moments(m, weights.pixel_arcmin) for m in pair])
    used = sum(hi <= 10800 / weights.pixel_arcmin for hi in EDGES[1:])
    spectra = np.array(spectra)[..., :used]
    return {
        "regions": len(spectra),
        "square_degrees": round(len(spectra) * _area(data), 1),
        "ell": [[a, b] for a, b in pairwise(EDGES[: used + 1])],
        "power": _power(spectra),
        "correlation": _correlation(spectra.mean(0)),
        "pixels": _pixels(np.mean(moments, 0)),
    }


def _power(spectra: np.ndarray) -> dict:
    """Ratios generated / true of (regions, 2, fields, fields, bands), and their errors."""
    out = {}
    for i, name in enumerate(FIELDS):
        true, made = spectra[:, 0, i, i], spectra[:, 1, i, i]
        ratio = made.mean(0) / true.mean(0)
        # paired: regions share their large scales
        error = (made - ratio * true).std(0) / true.mean(0) / math.sqrt(len(spectra))
        out[name] = {"ratio": _round(ratio), "error": _round(error)}
    return out


def _correlation(mean: np.ndarray) -> dict:
    """Correlation coefficients of `PAIRS` from (2, fields, fields, bands)."""
    out = {}
    for a, b in PAIRS:
        i, j = FIELDS.index(a), FIELDS.index(b)
        r = mean[:, i, j] / np.sqrt(mean[:, i, i] * mean[:, j, j])
        out[f"{a} x {b}"] = {"true": _round(r[0]), "generated": _round(r[1])}
    return out


def _pixels(mean: np.ndarray) -> dict:
    """Named one-point figures from (2, fields, figures) of `_moments`."""
    quantiles = [f"q{100 * q:g}%" for q in QUANTILES]
    names = ("std", "skewness", *quantiles, *(f"N>{f:g}mJy" for f in COUNTS_MJY))
    out = {}
    for i, field in enumerate(FIELDS):
        out[field] = {
            name: {"true": float(f"{t:.4g}"), "generated": float(f"{g:.4g}")}
            for name, t, g in zip(names, *mean[:, i], strict=True)
            if not name.startswith("N>") or field in ("cib", "radio")
        }
    return out


def _area(data) -> float:
    (field,), attrs = fields_of(data, ("kappa",))
    return (field.shape[-1] * attrs["pixel_arcmin"] / 60) ** 2


def _round(x) -> list[float]:
    return [float(f"{v:.4g}") for v in x]
