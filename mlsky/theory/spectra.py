"""Spectra of kappa and of the unlensed CMB, computed once per cosmology and kept on disk.

A spectrum is always computed up to `LMAX` and then cut, so that C_l does not depend on the
requested lmax, and a sky of higher resolution extends the same realisation.

The cache holds one .npz per (parameters, source, settings, versions) in
``$MLSKY_CACHE_DIR/spectra``, by default in the user's cache folder.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import warnings
import zipfile
from importlib.resources import files
from pathlib import Path

import numpy as np

from mlsky import registry
from mlsky.errors import MissingDependencyError
from mlsky.io.files import whole
from mlsky.sphere.threads import lock
from mlsky.theory.cosmology import parse
from mlsky.theory.parameters import DEFAULT, Cosmology

__all__ = ["LMAX", "SOURCES", "cache_dir", "cmb_spectra", "kappa_spectrum", "keep"]

SOURCES = ("camb", "ccl")

#: Highest computed multipole, above 3 nside - 1 at nside 8192 and Nyquist at 0.5'.
LMAX = 25_000

#: Highest multipole allowed (0.1' pixels); a larger one is probably a mistake.
LMAX_ALLOWED = 108_000

#: Above LMAX, C_L^kk continues as a power law with the slope between this multipole and LMAX.
SLOPE_FROM = 20_000

# Raised when the content of a cache file changes its meaning.
_FORMAT = 2

#: Shipped spectra of the default cosmology, made by `benchmarks/default_spectra.py`.
TABLE = "spectra_planck2018.npz"

_KEYS = {"camb": ("kk", "tt", "ee", "te", "tk", "ek"), "ccl": ("kk",)}

_LOCK = lock()

_log = logging.getLogger("mlsky")


def kappa_spectrum(lmax: int, cosmology: object = DEFAULT, source: str = "camb") -> np.ndarray:
    """Angular power of the CMB lensing convergence, C_L^kk, nonlinear.

    Parameters
    ----------
    lmax
        Last multipole, 1 to 108000.
    cosmology
        Anything `mlsky.theory.parse` takes.
    source
        ``"camb"`` or ``"ccl"``: the code that computes it. They agree within 1 % (measured: 0.1 %)
        for 30 < L < 8000.

    Returns
    -------
    ndarray
        *(lmax + 1,)* float64, dimensionless, for L = 0..lmax; zero at L = 0 and 1.

    Raises
    ------
    ValueError
        If an argument is not one of the above.
    MissingDependencyError
        Without CAMB, for another cosmology than planck2018, whose spectra are in the package.

    Notes
    -----
    HMcode-2020 (Mead et al. 2021, doi:10.1093/mnras/stab082) without baryons. The accurate range
    ends near L = 22000, where the k range of CAMB loses 0.6 %; above 25000 the spectrum continues
    as a power law.
    """
    lmax = _check_lmax(lmax)
    if source not in SOURCES:
        raise ValueError(f"source={source!r}: must be one of {', '.join(SOURCES)}")
    return _extend(_spectra(parse(cosmology), source)["kk"], lmax)


def cmb_spectra(lmax: int, cosmology: object = DEFAULT) -> dict[str, np.ndarray]:
    """Angular power of the unlensed scalar CMB and its correlation with kappa, from CAMB.

    Parameters
    ----------
    lmax
        Last multipole, 1 to 108000. The power above 25000 (there below 1e-12 of that at
        the first peak) is zero.
    cosmology
        Anything `mlsky.theory.parse` takes.

    Returns
    -------
    dict
        C_l (not D_l) in uK_CMB^2 under ``tt``, ``ee``, ``bb``, ``te``, in uK_CMB under ``tk``,
        ``ek`` (with the convergence) and dimensionless under ``kk``, the corresponding
        `kappa_spectrum`, each *(lmax + 1,)* float64; ``bb`` is zero, as there are no tensors and no
        lensing here.

    Raises
    ------
    ValueError
        If an argument is not one of the above.

    Notes
    -----
    T and E are correlated with kappa by the late integrated Sachs-Wolfe effect and by scattering at
    reionisation. C^Tk is positive at low l, where potential wells are hot.
    """
    lmax = _check_lmax(lmax)
    table = _spectra(parse(cosmology), "camb")
    out = {name: np.zeros(lmax + 1) for name in ("tt", "ee", "bb", "te", "tk", "ek", "kk")}
    n = min(lmax, LMAX) + 1
    for name in ("tt", "ee", "te", "tk", "ek", "kk"):
        out[name][:n] = table[name][:n]
    return out


def cache_dir() -> Path:
    """Folder of the kept spectra: ``$MLSKY_CACHE_DIR/spectra`` or the user's cache."""
    return registry.cache_dir() / "spectra"


def _check_lmax(lmax: int) -> int:
    if (
        isinstance(lmax, bool)
        or not isinstance(lmax, (int, np.integer))
        or not 1 <= lmax <= LMAX_ALLOWED
    ):
        raise ValueError(
            f"lmax={lmax!r}: must be an integer from 1 to {LMAX_ALLOWED}, for example 3071"
        )
    return int(lmax)


def _extend(cl: np.ndarray, lmax: int) -> np.ndarray:
    if lmax <= LMAX:
        return cl[: lmax + 1].copy()
    slope = np.log(cl[LMAX] / cl[SLOPE_FROM]) / np.log(LMAX / SLOPE_FROM)
    tail = cl[LMAX] * (np.arange(LMAX + 1, lmax + 1) / LMAX) ** slope
    return np.concatenate([cl, tail])


def _spectra(cosmology: Cosmology, source: str) -> dict[str, np.ndarray]:
    """Every spectrum of one source up to LMAX, from the cache if it is there."""
    # A cached spectrum does not need CAMB and CCL (0.5 s to load), but the key needs their
    # settings, which are defined in the adapters.
    if source == "camb" and importlib.util.find_spec("camb") is None:
        return _shipped(cosmology)
    if source == "camb":
        from mlsky.plugins import camb as adapter
    else:
        from mlsky.plugins import ccl as adapter
    path = cache_dir() / f"{_key(cosmology, source, adapter.SETTINGS)}.npz"
    with _LOCK:  # threads that ask for one cosmology compute it once
        table = _read(path, _KEYS[source])
        if table is not None:
            return table
        if source == "camb":
            table = adapter.spectra(cosmology, LMAX)
        else:
            table = {"kk": adapter.kappa_spectrum(cosmology, LMAX)}
        keep(path, table)
    return table


@functools.cache
def _shipped(cosmology: Cosmology) -> dict[str, np.ndarray]:
    """Spectra of planck2018 from the package, where there is no CAMB (of camb 2.0.5)."""
    if cosmology != parse(DEFAULT):
        raise MissingDependencyError(
            "camb is needed for the spectra of another cosmology than planck2018: pip install camb"
        )
    with (files("mlsky.data") / "tables" / TABLE).open("rb") as file, np.load(file) as data:
        return dict(data)


def _key(cosmology: Cosmology, source: str, settings: dict) -> str:
    """Name of the cache file, which depends on everything that affects the spectra."""
    packages = ("camb", "pyccl") if source == "ccl" else ("camb",)
    content = {
        "format": _FORMAT,
        "cosmology": cosmology.to_dict(),
        "source": source,
        "settings": settings,
        "lmax": LMAX,
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read(path: Path, keys: tuple[str, ...]) -> dict[str, np.ndarray] | None:
    """Spectra of a cache file, or None if there is none or it is damaged (a warning)."""
    try:
        # Opened here, as numpy does not close a file that it cannot read.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as data:
            table = {key: data[key] for key in keys}
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        table = {}
    if table and all(
        cl.shape == (LMAX + 1,) and cl.dtype == np.float64 and np.isfinite(cl).all()
        for cl in table.values()
    ):
        return table
    warnings.warn(f"{path} is damaged: its spectra are computed again", stacklevel=4)
    return None


def keep(path: Path, table: dict[str, np.ndarray]) -> None:
    """Write spectra to the cache if possible; failures must never stop a sky."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **table)
    except OSError as error:
        _log.warning("spectra not kept in %s: %s", path.parent, error)
