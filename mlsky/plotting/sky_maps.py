"""Pictures of a sky: the whole of it, a zoom of each component, spectra.

Matplotlib's object interface only: no pyplot, no global state, no display needed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky import arguments, harmonics
from mlsky.frequency import bands
from mlsky.io import skies
from mlsky.io.layers import TOTAL
from mlsky.plotting import sky_spectra
from mlsky.plotting.style import TITLES, UNIT_TEXT, figure_class
from mlsky.sphere.geometry import Geometry

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mlsky.sky import Sky

__all__ = ["SUFFIXES", "extent", "figure", "gnomonic", "mollweide", "save", "zoom_place"]

SUFFIXES = (".png", ".pdf", ".svg", ".jpg")

#: Side of the zoom and its centre, ra and dec (deg), on every map that holds it: the same place
#: whatever is there, with borders of three charts of the networks in view.
ZOOM_DEG = 5.0
ZOOM_CENTRE = (30.0, -30.0)
#: Cut-outs smaller than this (deg) are shown as they are, not as a speck on the whole sky.
WHOLE_SKY_DEG = 60.0

MOLLWEIDE_ROWS = 450


def figure(sky: Sky, freq_ghz: float | None = None) -> Figure:
    """Draw a sky.

    Parameters
    ----------
    freq_ghz
        The band nearest to this is shown; to 150 GHz by default.

    Returns
    -------
    matplotlib.figure.Figure
        The total, as a Mollweide view or, of a small cut-out, as it is; D_l of the components with
        the ACT DR6 values at l = 3000, and EE and BB if the sky has Q and U; a zoom of each
        component and of kappa, 5 x 5 degrees, at `zoom_place`.

    Raises
    ------
    ValueError
        If `freq_ghz` is no frequency that a passband may have.
    MissingDependencyError
        If matplotlib is not installed.
    """
    nearest = 150.0 if freq_ghz is None else _parse_freq(freq_ghz)
    new_figure = figure_class()
    band = int(np.argmin(np.abs(sky.freqs_ghz - nearest)))
    unit = UNIT_TEXT.get(sky.unit, sky.unit)
    drawing = new_figure(figsize=(16, 9.2), layout="constrained", facecolor="white")
    grid = drawing.add_gridspec(2, 1, height_ratios=(1.6, 1.0))
    top = grid[0].subgridspec(1, 2, width_ratios=(1.6, 1.0))
    title = f"{sky.stokes[0]} at {_band_title(sky, band)}, everything, mean removed"
    curves, zooms = {}, {}
    # one component at a time: maps may be large
    for name in (None, *sky):
        maps = sky.band(band, name)
        if name is None:
            _draw_whole(drawing.add_subplot(top[0]), maps[0], sky.geometry, title, unit)
        if harmonics.has_multipoles(sky.geometry):
            curves[name or TOTAL] = sky_spectra.measure(sky, band, name, maps)
        if name is not None or not sky.keys():
            zooms[name or TOTAL] = _zoom(maps[0], sky.geometry)
        del maps
    if sky.kappa is not None:
        zooms["kappa"] = _zoom(sky.kappa, sky.geometry)
    _draw_spectra(drawing, top[1], sky, band, curves, unit)
    bottom = grid[1].subgridspec(1, len(zooms))
    for column, (name, picture) in enumerate(zooms.items()):
        axes = drawing.add_subplot(bottom[column])
        shrink = min(0.9, 0.15 * len(zooms))
        _draw_zoom(axes, name, picture, sky.geometry, "" if name == "kappa" else unit, shrink)
    drawing.suptitle(_headline(sky), fontsize=11, color="0.35")
    return drawing


def save(
    sky: Sky,
    path: str | os.PathLike,
    *,
    freq_ghz: float | None = None,
    overwrite: bool = False,
    dpi: int = 130,
) -> None:
    """Draw a sky into a file; the suffix gives the format."""
    path = skies.check(path, overwrite, SUFFIXES)
    drawing = figure(sky, freq_ghz)
    with skies.beside(path) as temporary:
        drawing.savefig(temporary, format=path.suffix[1:].lower(), dpi=dpi)


def mollweide(values: NDArray, geometry: Geometry, rows: int = MOLLWEIDE_ROWS) -> NDArray:
    """Mollweide view, (rows, 2 rows) float64, east to the left, ra = 0 in the middle.

    Each point of the picture is the mean of 2 x 2 samples; outside the sky it is NaN.
    """
    fine = 2 * rows
    y, x = np.meshgrid(
        np.linspace(1, -1, fine, endpoint=False) - 1 / fine,
        np.linspace(2, -2, 2 * fine, endpoint=False) - 1 / fine,
        indexing="ij",
    )
    inside = y**2 + (x / 2) ** 2 < 1
    auxiliary = np.arcsin(y[inside])
    # Snyder 1987, Map projections, USGS PP 1395, eqs. 31-6 and 31-7 inverted.
    dec = np.arcsin(np.clip((2 * auxiliary + np.sin(2 * auxiliary)) / np.pi, -1, 1))
    ra = np.pi * x[inside] / (2 * np.cos(auxiliary))
    samples = np.full(y.shape, np.nan)
    samples[inside] = _sample(values, geometry, np.pi / 2 - dec, ra)
    blocks = samples.reshape(rows, 2, 2 * rows, 2)
    known = np.isfinite(blocks)
    count = known.sum(axis=(1, 3))
    total = np.where(known, blocks, 0.0).sum(axis=(1, 3))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def gnomonic(
    values: NDArray,
    geometry: Geometry,
    *,
    ra: float,
    dec: float,
    side_deg: float = ZOOM_DEG,
    size: int = 300,
) -> NDArray:
    """Gnomonic view, (size, size) float64, north up, east to the left; `ra`, `dec` in degrees."""
    theta, phi = _square(ra, dec, side_deg, size)
    return _sample(values, geometry, theta.ravel(), phi.ravel()).reshape(size, size)


def _square(ra: float, dec: float, side_deg: float, size: int) -> tuple[NDArray, NDArray]:
    """Colatitude and longitude (rad) of the points of a gnomonic view, (size, size) each."""
    half = np.tan(np.radians(side_deg / 2))
    axis = half * (2 * (np.arange(size) + 0.5) / size - 1)
    north, east = np.meshgrid(-axis, -axis, indexing="ij")
    dec0, ra0 = np.radians(dec), np.radians(ra)
    # Unit vectors: centre, east and north of the tangent plane.
    centre = np.array([np.cos(dec0) * np.cos(ra0), np.cos(dec0) * np.sin(ra0), np.sin(dec0)])
    to_east = np.array([-np.sin(ra0), np.cos(ra0), 0.0])
    to_north = np.cross(centre, to_east)
    vector = centre + east[..., None] * to_east + north[..., None] * to_north
    theta = np.arctan2(np.hypot(vector[..., 0], vector[..., 1]), vector[..., 2])
    phi = np.arctan2(vector[..., 1], vector[..., 0])
    return theta, phi


def _parse_freq(freq_ghz: float) -> float:
    low, high = bands.FREQ_RANGE_GHZ[0], bands.BAND_MAX_GHZ
    allowed = f"a number of GHz from {low:g} to {high:g}, for example 150"
    return arguments.number("freq", freq_ghz, allowed, low, high)


def _sample(values: NDArray, geometry: Geometry, theta: NDArray, phi: NDArray) -> NDArray:
    """Value of the pixel that holds each direction, float64; NaN outside the map."""
    pixel = geometry.pixel(theta, phi % (2 * np.pi))
    flat = np.asarray(values).reshape(-1)
    return np.where(pixel >= 0, flat[np.maximum(pixel, 0)].astype(np.float64), np.nan)


def _draw_whole(axes: Axes, values: NDArray, geometry: Geometry, title: str, unit: str) -> None:
    """The map as a whole."""
    if geometry.kind == "car" and max(extent(geometry)[2:]) < WHOLE_SKY_DEG:
        _draw_cut_out(axes, values, geometry, title, unit)
        return
    from matplotlib.patches import Ellipse

    picture = mollweide(values, geometry)
    picture -= _quantile(picture, 0.5)
    top = _quantile(np.abs(picture), 0.997)
    image = axes.imshow(
        picture, cmap="RdYlBu_r", vmin=-top, vmax=top, extent=(2, -2, -1, 1), interpolation="auto"
    )
    axes.add_patch(Ellipse((0, 0), 4, 2, fill=False, color="0.3", linewidth=0.8))
    axes.set(xlim=(2.01, -2.01), ylim=(-1.01, 1.01))
    axes.set_axis_off()
    axes.set_title(title, fontsize=13)
    _colour_bar(axes, image, unit, shrink=0.5, aspect=35)


def _draw_cut_out(axes: Axes, values: NDArray, geometry: Geometry, title: str, unit: str) -> None:
    """A part of the sky round its centre."""
    ra, dec, width, height = extent(geometry)
    side = float(max(width, height))
    size = int(np.clip(side * 60 / geometry.pixel_arcmin, 100, 2 * MOLLWEIDE_ROWS))
    picture = gnomonic(values, geometry, ra=ra, dec=dec, side_deg=side, size=size)
    picture -= _quantile(picture, 0.5)
    high = _quantile(np.abs(picture), 0.997)
    image = axes.imshow(
        picture,
        cmap="RdYlBu_r",
        vmin=-high,
        vmax=high,
        extent=(side / 2, -side / 2, -side / 2, side / 2),
        interpolation="auto",
    )
    axes.set_xlabel(_place(ra, dec), fontsize=8)
    axes.tick_params(labelsize=8, length=2)
    axes.set_title(title, fontsize=13)
    _colour_bar(axes, image, unit, shrink=0.5, aspect=35)


def _zoom(values: NDArray, geometry: Geometry) -> NDArray:
    ra, dec, side = zoom_place(geometry)
    size = int(np.clip(2 * side * 60 / geometry.pixel_arcmin, 100, 600))
    return gnomonic(values, geometry, ra=ra, dec=dec, side_deg=side, size=size)


def _draw_zoom(
    axes: Axes, name: str, picture: NDArray, geometry: Geometry, unit: str, shrink: float
) -> None:
    ra, dec, side = zoom_place(geometry)
    half = side / 2
    image = axes.imshow(
        picture, extent=(half, -half, -half, half), interpolation="nearest", **_colours(picture)
    )
    first = axes.get_subplotspec().is_first_col()
    tick = float(f"{0.8 * half:.1g}")
    axes.set_xticks((-tick, 0, tick))
    axes.set_yticks((-tick, 0, tick) if first else ())
    axes.tick_params(labelsize=8, length=2)
    axes.set_title(TITLES.get(name, name), fontsize=12)
    axes.set_xlabel(_place(ra, dec) if first else "degrees", fontsize=8)
    _colour_bar(axes, image, unit, shrink=shrink, aspect=22)


def _colours(picture: NDArray) -> dict:
    """Colour map and range: diverging for signals of both signs, else dark at zero."""
    from matplotlib.colors import AsinhNorm, Normalize

    low, high = _quantile(picture, 0.002), _quantile(picture, 0.998)
    if low < 0 < high and min(-low, high) > 0.1 * max(-low, high):
        top = _quantile(np.abs(picture), 0.997)
        return {"cmap": "RdBu_r", "norm": Normalize(-top, top)}
    positive = high >= -low
    reach = max(high, -low)
    reach = reach if reach > 0 else max(float(np.nanmax(np.abs(picture), initial=0.0)), 1e-30)
    start, stop = (min(low, 0.0), reach) if positive else (-reach, max(high, 0.0))
    cmap = "inferno" if positive else "GnBu_r"
    if positive and low > 0.1 * reach:  # a background, such as the mean CIB
        return {"cmap": cmap, "norm": Normalize(low, reach)}
    # Few bright points on a dark ground: linear near zero, logarithmic above.
    return {"cmap": cmap, "norm": AsinhNorm(0.15 * reach, start, stop)}


def _colour_bar(axes: Axes, image, unit: str, **style) -> None:
    from matplotlib.ticker import FixedLocator, FormatStrFormatter, MaxNLocator

    low, high = image.get_clim()
    ticks = MaxNLocator(nbins=4).tick_values(low, high)
    bar = axes.figure.colorbar(image, ax=axes, orientation="horizontal", pad=0.02, **style)
    bar.locator = FixedLocator(ticks[(ticks >= low) & (ticks <= high)])
    bar.formatter = FormatStrFormatter("%.3g")
    bar.minorticks_off()
    bar.update_ticks()
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_linewidth(0.5)
    bar.set_label(unit, fontsize=9)


def _band_title(sky: Sky, band: int) -> str:
    """The frequency of a band, with its name if it has one."""
    nu = f"{sky.freqs_ghz[band]:.4g} GHz"
    name = sky.bands[band].name
    return nu if name is None else f"{nu} ({name.replace('_', ' ')})"


def _draw_spectra(drawing: Figure, place, sky: Sky, band: int, curves: dict, unit: str) -> None:
    """Panels of TT, and of EE and BB, as the Stokes parameters of the sky have them."""
    pairs = [pair for pair, stokes in (("TT", "T"), ("EE", "Q")) if stokes in sky.stokes]
    ratios = (1.5, 1.0)[: len(pairs)]
    rows = place.subgridspec(len(pairs), 1, height_ratios=ratios)
    first = drawing.add_subplot(rows[0])
    panels = {pairs[0]: first}
    for number, pair in enumerate(pairs[1:], 1):
        panels[pair] = drawing.add_subplot(rows[number], sharex=first)
        first.tick_params(labelbottom=False)
    first.set_title(f"Power spectra at {_band_title(sky, band)}", fontsize=13)
    if not harmonics.has_multipoles(sky.geometry):
        first.text(
            *(0.5, 0.5),
            "these pixels have no multipoles",
            ha="center",
            transform=first.transAxes,
        )
        return
    sky_spectra.draw(panels, sky, band, curves, f"{unit}$^2$")


def _quantile(values: NDArray, q: float) -> float:
    """Quantile of the finite values; 0 if there are none."""
    finite = values[np.isfinite(values)]
    return float(np.quantile(finite, q)) if finite.size else 0.0


def zoom_place(geometry: Geometry) -> tuple[float, float, float]:
    """Centre, ra and dec, and side of the zoom, all in degrees.

    `ZOOM_CENTRE` where the map holds it with all that is round it. Else the middle of that quarter
    of the map with the first rows and columns: the middle of a map, where people put what they look
    at, is in a corner of it at most.
    """
    if _holds(geometry, *ZOOM_CENTRE, ZOOM_DEG):
        return *ZOOM_CENTRE, ZOOM_DEG
    ny, nx = geometry.shape
    _, _, width, height = extent(geometry)
    theta, phi = geometry.angles_at(ny / 4 - 0.5, nx / 4 - 0.5)
    ra, dec = float(np.degrees(phi)), float(90 - np.degrees(theta))
    side = float(min(ZOOM_DEG, width / 2, height / 2))
    while not _holds(geometry, ra, dec, side) and side * 60 > geometry.pixel_arcmin:
        side *= 0.95  # the map is narrower towards a pole
    return ra, dec, side


def extent(geometry: Geometry) -> tuple[float, float, float, float]:
    """Centre of a rectangular map, ra and dec, its width there and its height, in degrees."""
    ny, nx = geometry.shape
    theta, phi = geometry.angles_at((ny - 1) / 2, (nx - 1) / 2)
    width, height = (
        n * abs(step) for n, step in zip((nx, ny), np.degrees(geometry.steps), strict=True)
    )
    if geometry.cylindrical:
        width *= np.sin(theta)
    return float(np.degrees(phi)), float(90 - np.degrees(theta)), float(width), float(height)


def _holds(geometry: Geometry, ra: float, dec: float, side: float) -> bool:
    """Whether a map holds all points of a square."""
    if geometry.kind == "healpix":
        return True
    n = 11  # with the first and last points on the edges
    theta, phi = (x.ravel() for x in _square(ra, dec, side * n / (n - 1), n))
    return bool(np.all(geometry.pixel(theta, phi % (2 * np.pi)) >= 0))


def _place(ra: float, dec: float) -> str:
    return f"degrees from RA {ra:.1f}, Dec {round(dec, 1) + 0.0:.1f}"


def _headline(sky: Sky) -> str:
    meta = sky.meta
    weights = meta.get("weights", {}).get("name", "unknown")
    return f"mlsky {meta.get('version', '')}   seed {meta.get('seed')}   weights {weights}"
