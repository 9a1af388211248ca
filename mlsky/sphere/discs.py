"""Discs on a map: which pixels lie in them, and how far from their centres."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mlsky.sphere.geometry import Geometry

__all__ = ["outside", "pixels"]


def outside(geometry: Geometry, discs: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Pixels whose centres lie in none of some discs (ra, dec, radius; degrees)."""
    out = np.ones(geometry.npix, bool)
    for pixel, _ in pixels(geometry, discs):
        out[pixel] = False
    return out.reshape(geometry.shape)


def pixels(
    geometry: Geometry, discs: NDArray[np.float64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Of each disc (ra, dec, radius; degrees) the flat numbers of its pixels and their distance."""
    theta, phi = np.radians(90 - discs[:, 1]), np.radians(discs[:, 0])
    vectors, radii = _vectors(theta, phi), np.radians(discs[:, 2])
    if geometry.kind == "healpix":
        import healpy

        for vector, radius in zip(vectors, radii, strict=True):
            pixel = healpy.query_disc(geometry.nside, vector, radius)
            yield pixel, _distance(np.stack(healpy.pix2vec(geometry.nside, pixel), -1), vector)
        return
    if geometry.axes is None:  # rotated, or of another projection
        from scipy.spatial import cKDTree

        centres = np.nan_to_num(_vectors(*geometry.angles()))  # off the sphere: the middle
        found = cKDTree(centres).query_ball_point(vectors, 2 * np.sin(radii / 2))
        for vector, near in zip(vectors, found, strict=True):
            pixel = np.asarray(near, np.int64)
            yield pixel, _distance(centres[pixel], vector)
        return
    rows, columns = geometry.axes
    for vector, centre, azimuth, radius in zip(vectors, theta, phi, radii, strict=True):
        y = np.flatnonzero(np.abs(rows - centre) < radius)
        # how far a small circle reaches in azimuth: all round if it holds a pole
        reach = np.pi
        if radius < centre < np.pi - radius:
            reach = np.arcsin(min(1.0, np.sin(radius) / np.sin(centre)))
        x = np.flatnonzero(np.abs((columns - azimuth + np.pi) % (2 * np.pi) - np.pi) <= reach)
        distance = _distance(_vectors(rows[y][:, np.newaxis], columns[x]), vector)
        i, j = np.nonzero(distance < radius)
        yield y[i] * geometry.shape[1] + x[j], distance[i, j]


def _distance(vectors: NDArray, vector: NDArray) -> NDArray[np.float64]:
    """Angles (rad) between unit vectors (..., 3) and one; also small ones are right."""
    return 2 * np.arcsin(np.minimum(np.linalg.norm(vectors - vector, axis=-1) / 2, 1))


def _vectors(theta: NDArray, phi: NDArray) -> NDArray[np.float64]:
    """Unit vectors (..., 3)."""
    theta, phi = np.broadcast_arrays(theta, phi)
    sine = np.sin(theta)
    return np.stack([sine * np.cos(phi), sine * np.sin(phi), np.cos(theta)], -1)
