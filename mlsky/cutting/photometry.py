"""Point sources found on a HEALPix map by aperture photometry, and the map without them.

Sources are identified on the full-sky map, and placed again with their flux on every patch. This is
done on the twelve faces of the HEALPix grid, whose pixels are squares of equal area: nothing is
resampled, and the flux removed from the map is the flux that is placed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlsky.components import REFERENCE_GHZ
from mlsky.errors import MissingDependencyError
from mlsky.frequency.bands import jy_per_sr_per_uk

__all__ = ["check_find_mjy", "find_sources", "require_photutils"]

#: Radius (pixels) of the aperture: the pixel of a source and its eight neighbours.
APERTURE = 1.5

#: Radii (pixels) of the annulus whose median is the background.
ANNULUS = (2.5, 5.0)

#: Sources closer than this (pixels, along a face's axes) to a brighter one are left to the next
#: pass, so that no two apertures share a pixel.
_APART = 3

#: Largest number of passes; each finds sources hidden by brighter neighbours before.
_PASSES = 4

#: Pixels added around a face, from its neighbours: the radius of the annulus and one more.
_MARGIN = 8

#: Sources stand out by this many robust standard deviations, unless a flux is asked for.
_SIGMAS = 5.0

#: Face to the S, SE, E, SW, centre, NE, W, NW, N of each face (-1: none) and how its axes lie
#: (1: x mirrored, 2: y mirrored, 4: swapped), per row of faces (north, equator, south), as
#: in HEALPix C++ (Gorski et al. 2005, doi:10.1086/427976; healpix_tables.cc).
_FACE = np.array(
    [
        [8, 9, 10, 11, -1, -1, -1, -1, 10, 11, 8, 9],
        [5, 6, 7, 4, 8, 9, 10, 11, 9, 10, 11, 8],
        [-1, -1, -1, -1, 5, 6, 7, 4, -1, -1, -1, -1],
        [4, 5, 6, 7, 11, 8, 9, 10, 11, 8, 9, 10],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
        [1, 2, 3, 0, 0, 1, 2, 3, 5, 6, 7, 4],
        [-1, -1, -1, -1, 7, 4, 5, 6, -1, -1, -1, -1],
        [3, 0, 1, 2, 3, 0, 1, 2, 4, 5, 6, 7],
        [2, 3, 0, 1, -1, -1, -1, -1, 0, 1, 2, 3],
    ]
)
_SWAP = np.zeros((9, 3), np.int64)
_SWAP[[0, 1, 3], 2] = 3, 6, 5
_SWAP[[5, 7, 8], 0] = 5, 6, 3


def require_photutils() -> None:
    """Raise, before any work, if photutils is not there.

    Raises
    ------
    MissingDependencyError
        With what to install.
    """
    try:
        import photutils.detection  # noqa: F401
    except ModuleNotFoundError:
        raise MissingDependencyError(
            "photutils is needed to find point sources on a map: pip install 'mlsky[cut]', or "
            "give a catalogue, or find=False to interpolate the whole map"
        ) from None


def check_find_mjy(find_mjy: float | None) -> None:
    """Raise a ValueError if a least flux is not None or a positive number of mJy."""
    number = isinstance(find_mjy, (int, float, np.number)) and not isinstance(find_mjy, bool)
    if find_mjy is not None and not (number and np.isfinite(find_mjy) and find_mjy > 0):
        raise ValueError(f"find_mjy={find_mjy!r}: must be a flux in mJy, finite and > 0, or None")


def find_sources(
    values: NDArray, nside: int, above_mjy: float | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]:
    """Point sources of a map.

    Parameters
    ----------
    values
        uK_CMB at 148 GHz, RING order, *(12 nside^2,)*.
    above_mjy
        Flux (148 GHz) that the pixel of a source must hold above the background; None takes
        five robust standard deviations of the map.

    Returns
    -------
    vectors
        Unit vectors of the pixels of the sources, *(3, n)*.
    flux_mjy
        Fluxes at 148 GHz, *(n,)*: sum over the 3 x 3 pixels less the background.
    rest
        The map with the apertures filled with their backgrounds, RING order. Sources and rest
        together hold the flux of the map.

    Raises
    ------
    ValueError
        If nside is below 16 or the flux is not valid.
    MissingDependencyError
        If photutils is missing.
    """
    import healpy

    require_photutils()
    if nside < 2 * _MARGIN:
        raise ValueError(f"nside={nside}: sources are found on maps of nside {2 * _MARGIN} or more")
    check_find_mjy(above_mjy)
    mjy = 4 * np.pi / (12 * nside**2) * jy_per_sr_per_uk(REFERENCE_GHZ) * 1e3  # of 1 uK_CMB
    middle = float(np.median(values))
    if above_mjy is None:
        # 1.4826: standard deviation over median absolute deviation of a normal distribution
        contrast = _SIGMAS * 1.4826 * float(np.median(np.abs(values - middle)))
    else:
        contrast = above_mjy / mjy
    rest = np.array(values, np.float32)
    order = _face_order(nside)
    pixels, fluxes = [], []
    for _ in range(_PASSES):
        found = 0
        for face in range(12):
            index = _padded(face, nside, order)
            image = np.where(index >= 0, rest[index], np.nan)
            y, x, flux, background = _photometry(image, middle, contrast)
            if not len(y):
                continue
            # each aperture takes its nine pixels' excess; pixels come once, as they are apart
            near = index[y[:, None] + _NINE[0], x[:, None] + _NINE[1]]
            rest[near] = background[:, None]
            pixels.append(index[y, x])
            fluxes.append(flux * mjy)
            found += len(y)
        if not found:
            break
    pixel = np.concatenate([*pixels, np.empty(0, np.int64)])
    flux = np.concatenate([*fluxes, np.empty(0)])
    return np.stack(healpy.pix2vec(nside, pixel)), flux, rest


#: Rows and columns of an aperture's pixels.
_NINE = np.array([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]).T


def _photometry(image: np.ndarray, middle: float, contrast: float):
    """Rows, columns, sums above the background and backgrounds of one padded face's sources."""
    from photutils.aperture import ApertureStats, CircularAnnulus, CircularAperture
    from photutils.detection import find_peaks

    empty = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0)
    missing = ~np.isfinite(image)
    inside = np.zeros(image.shape, bool)
    inside[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN] = True
    # nothing stands out by less than nothing: a flat map has no sources
    level = middle + max(contrast, np.finfo(np.float32).eps * max(abs(middle), 1e-30))
    if not np.any(image[inside] > level):
        return empty
    filled = np.where(missing, middle, image)
    # peaks in the margin are the neighbour's; the brightest wins wherever it lies
    peaks = find_peaks(filled, level, box_size=2 * _APART - 1)
    if peaks is None:
        return empty
    y, x = np.asarray(peaks["y_peak"]), np.asarray(peaks["x_peak"])
    keep = inside[y, x]
    y, x = y[keep], x[keep]
    if not len(y):
        return empty
    y, x = _apart(y, x, filled[y, x])
    places = np.stack([x, y], axis=1)
    ring = ApertureStats(
        filled, CircularAnnulus(places, *ANNULUS), mask=missing, sum_method="center"
    )
    disc = ApertureStats(
        filled, CircularAperture(places, APERTURE), mask=missing, sum_method="center"
    )
    background = np.atleast_1d(ring.median).astype(np.float32).astype(np.float64)
    flux = np.atleast_1d(disc.sum) - np.atleast_1d(disc.sum_aper_area.value) * background
    keep = (filled[y, x] - background > contrast) & (flux > 0)
    # at the corners where three faces meet a pixel has seven neighbours
    keep &= ~missing[y[:, None] + _NINE[0], x[:, None] + _NINE[1]].any(axis=1)
    return y[keep], x[keep], flux[keep], background[keep]


def _apart(y, x, height) -> tuple[np.ndarray, np.ndarray]:
    """Peaks that are left if of equal ones too close to each other the first is kept."""
    order = np.lexsort((x, y, -height))
    taken: set[tuple[int, int]] = set()
    keep = []
    for i in order:
        cell = int(y[i]), int(x[i])
        reach = range(1 - _APART, _APART)
        if any((cell[0] + dy, cell[1] + dx) in taken for dy in reach for dx in reach):
            continue
        taken.add(cell)
        keep.append(i)
    keep = np.sort(np.asarray(keep, np.int64))
    return y[keep], x[keep]


def _face_order(nside: int) -> NDArray[np.int64]:
    """Place (y, x) of a face's pixels in its NESTED numbers, *(nside, nside)*."""
    place = np.arange(nside, dtype=np.int64)
    spread = np.zeros(nside, np.int64)
    for bit in range(nside.bit_length() - 1):
        spread |= ((place >> bit) & 1) << (2 * bit)
    return (spread[:, None] << 1) | spread[None]


def _padded(face: int, nside: int, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """RING numbers of the pixels of a face and a margin around it; -1 without a neighbour."""
    import healpy

    place = np.arange(-_MARGIN, nside + _MARGIN)
    tile = place // nside  # -1, 0, 1
    y, x = np.meshgrid(place % nside, place % nside, indexing="ij")
    side = 4 + tile[None] + 3 * tile[:, None]
    other = _FACE[side, face]
    swap = _SWAP[side, face // 4]
    x = np.where(swap & 1, nside - 1 - x, x)
    y = np.where(swap & 2, nside - 1 - y, y)
    x, y = np.where(swap & 4, y, x), np.where(swap & 4, x, y)
    nested = np.where(other >= 0, other, 0) * nside**2 + order[y, x]
    return np.where(other >= 0, healpy.nest2ring(nside, nested), -1)
