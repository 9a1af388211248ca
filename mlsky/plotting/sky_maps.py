"""Pictures of a sky: the whole of it, a zoom of each component, spectra.

Matplotlib's object interface only: no pyplot, no global state, no display needed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky.errors import MissingDependencyError
from mlsky.io import skies
from mlsky.sphere.geometry import Geometry
from mlsky.validation import act_dr6

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mlsky.sky import Sky

__all__ = ["SUFFIXES", "figure", "gnomonic", "mollweide", "save", "spectrum"]

SUFFIXES = (".png", ".pdf", ".svg", ".jpg")

#: A band this far (GHz) from one of the table is still compared with it.
ACT_NEAR_GHZ = 3.0

ZOOM_DEG = 5.0
#: Centre of the zoom on a full sky, ra and dec (deg): anywhere; away from poles and edges.
ZOOM_CENTRE = (30.0, -30.0)

MOLLWEIDE_ROWS = 450
LMAX = 6000

TITLES = {
    "total": "everything",
    "cmb": "lensed CMB",
    "tsz": "thermal SZ",
    "ksz": "kinetic SZ",
    "cib": "CIB",
    "radio": "radio sources",
    "kappa": "convergence $\\kappa$",
}
#: Colour-blind safe (Okabe & Ito 2008), one per component.
COLOURS = {
    "total": "#000000",
    "cmb": "#7f7f7f",
    "tsz": "#0072b2",
    "ksz": "#009e73",
    "cib": "#d55e00",
    "radio": "#cc79a7",
}
#: Of components of other packages.
OTHER = "#56b4e9"
UNIT_TEXT = {
    "uK_CMB": r"$\mu$K$_{\rm CMB}$",
    "K_CMB": r"K$_{\rm CMB}$",
    "uK_RJ": r"$\mu$K$_{\rm RJ}$",
}


def figure(sky: Sky, freq_ghz: float | None = None) -> Figure:
    """Draw a sky.

    Parameters
    ----------
    freq_ghz
        The band nearest to this is shown; to 150 GHz by default.

    Returns
    -------
    matplotlib.figure.Figure
        Mollweide view of the total, D_l of the components with the ACT DR6 values at
        l = 3000, and a 5 x 5 degree zoom of each component and of kappa.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError(
            "matplotlib is needed to draw a sky: pip install 'mlsky[plot]'"
        ) from None
    band = int(np.argmin(np.abs(sky.freqs_ghz - (150.0 if freq_ghz is None else freq_ghz))))
    maps = {name: sky.band(band, name)[0] for name in sky}
    total = sky.band(band)[0]
    panels = dict(maps) or {"total": total}
    if sky.kappa is not None:
        panels["kappa"] = sky.kappa

    drawing = Figure(figsize=(16, 9.2), layout="constrained", facecolor="white")
    grid = drawing.add_gridspec(2, 1, height_ratios=(1.35, 1.0))
    top = grid[0].subgridspec(1, 2, width_ratios=(1.75, 1.0))
    unit = UNIT_TEXT.get(sky.unit, sky.unit)
    title = f"{sky.stokes[0]} at {_band_title(sky, band)}, everything, mean removed"
    _draw_mollweide(drawing.add_subplot(top[0]), total, sky.geometry, title, unit)
    _draw_spectra(drawing.add_subplot(top[1]), sky, band, maps, total, unit)
    bottom = grid[1].subgridspec(1, len(panels))
    for column, (name, values) in enumerate(panels.items()):
        axes = drawing.add_subplot(bottom[column])
        _draw_zoom(axes, name, values, sky.geometry, "" if name == "kappa" else unit)
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
    return _sample(values, geometry, theta.ravel(), phi.ravel()).reshape(size, size)


def spectrum(values: NDArray, geometry: Geometry, lmax: int | None = None) -> NDArray:
    """D_l = l(l+1) C_l / 2 pi of one map, (lmax + 1,) float64, divided by the sky fraction."""
    if geometry.kind == "healpix":
        import healpy

        # Beyond 2.5 nside HEALPix quadrature without iterations is off by many per cent.
        lmax = min(LMAX, 5 * geometry.nside // 2) if lmax is None else lmax
        cl = healpy.anafast(np.asarray(values, np.float64), lmax=lmax, iter=0)
    else:
        from mlsky.sphere import gaussian

        lmax = min(LMAX, geometry.lmax - 1) if lmax is None else lmax
        alm = gaussian.map_to_alm(np.asarray(values, np.float64), geometry, lmax)
        power = np.abs(alm) ** 2
        cl, start = power[: lmax + 1].copy(), lmax + 1
        for m in range(1, lmax + 1):
            cl[m:] += 2 * power[start : start + lmax + 1 - m]
            start += lmax + 1 - m
        cl /= 2 * np.arange(lmax + 1) + 1
        cl /= float(np.sum(geometry.area())) / (4 * np.pi)
    ell = np.arange(lmax + 1)
    return ell * (ell + 1) * cl / (2 * np.pi)


def _sample(values: NDArray, geometry: Geometry, theta: NDArray, phi: NDArray) -> NDArray:
    """Value of the pixel that holds each direction, float64; NaN outside the map."""
    pixel = geometry.pixel(theta, phi % (2 * np.pi))
    flat = np.asarray(values).reshape(-1)
    return np.where(pixel >= 0, flat[np.maximum(pixel, 0)].astype(np.float64), np.nan)


def _draw_mollweide(axes: Axes, values: NDArray, geometry: Geometry, title: str, unit: str) -> None:
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


def _draw_zoom(axes: Axes, name: str, values: NDArray, geometry: Geometry, unit: str) -> None:
    ra, dec = _zoom_centre(geometry)
    size = int(np.clip(ZOOM_DEG * 60 / geometry.pixel_arcmin, 100, 600))
    picture = gnomonic(values, geometry, ra=ra, dec=dec, size=size)
    half = ZOOM_DEG / 2
    image = axes.imshow(
        picture, extent=(half, -half, -half, half), interpolation="nearest", **_colours(picture)
    )
    axes.set_xticks((-2, 0, 2))
    axes.set_yticks((-2, 0, 2) if axes.get_subplotspec().is_first_col() else ())
    axes.tick_params(labelsize=8, length=2)
    axes.set_title(TITLES.get(name, name), fontsize=12)
    axes.set_xlabel("degrees", fontsize=8)
    _colour_bar(axes, image, unit, shrink=0.9, aspect=22)


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


def _draw_spectra(
    axes: Axes, sky: Sky, band: int, maps: dict[str, NDArray], total: NDArray, unit: str
) -> None:
    name_of_band = _band_title(sky, band)
    faint = {"total": total, **maps}
    cut = f" < {act_dr6.CUT_MJY:g} mJy" if sky.catalog is not None and "radio" in maps else ""
    for name in ("cib", "radio"):
        if name in maps and sky.catalog is not None:
            faint[name] = _without_bright(sky, name, maps[name])
            faint["total"] = faint["total"] - (maps[name] - faint[name])
    highest = 0.0
    for name, values in faint.items():
        ell, d_ell = _binned(spectrum(values, sky.geometry))
        shown = d_ell > 0
        if not shown.any():
            continue
        highest = max(highest, float(d_ell.max()))
        label = TITLES.get(name, name) + (cut if name in ("total", "radio") else "")
        axes.plot(
            ell[shown], d_ell[shown], color=COLOURS.get(name, OTHER), label=label, linewidth=1.6
        )
    _draw_act(axes, sky, band, maps)
    if highest > 0:
        axes.set(xscale="log", yscale="log", ylim=(1e-6 * highest, 3 * highest))
    axes.set_xlabel(r"multipole $\ell$")
    axes.set_ylabel(rf"$D_\ell$ at {name_of_band}  [{unit}$^2$]")
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.legend(fontsize=8, ncols=2, loc="lower left", framealpha=0.9, edgecolor="none")
    axes.set_title("Power spectra", fontsize=13)


def _draw_act(axes: Axes, sky: Sky, band: int, maps: dict[str, NDArray]) -> None:
    nu = float(sky.freqs_ghz[band])
    near = min(act_dr6.D3000, key=lambda known: abs(known - nu))
    if abs(near - nu) > ACT_NEAR_GHZ or not sky.stokes.startswith("T"):
        return
    factor = sky.bands[band].convert("uK_CMB", sky.unit) ** 2
    label = f"ACT DR6, {near:g} GHz"
    for name, value in act_dr6.D3000[near].items():
        if name in maps:
            style = {"color": COLOURS[name], "markeredgecolor": "white", "markersize": 8}
            axes.plot([3000], [value * factor], "o", zorder=5, **style)
    axes.plot([], [], "o", color="0.5", markeredgecolor="white", markersize=8, label=label)


def _without_bright(sky: Sky, name: str, values: NDArray) -> NDArray:
    """The map of sources with the pixels of bright ones emptied, as ACT masks them."""
    bright = sky.catalog[np.asarray(sky.catalog["flux_mjy"]) > act_dr6.CUT_MJY]
    theta, phi = np.radians(90 - np.asarray(bright["dec"])), np.radians(np.asarray(bright["ra"]))
    pixel = sky.geometry.pixel(theta, phi)
    values = np.array(values, copy=True)
    # The CIB has a mean: holes in it would be power.
    values.reshape(-1)[pixel[pixel >= 0]] = np.median(values) if name == "cib" else 0.0
    return values


def _binned(d_ell: NDArray, number: int = 60) -> tuple[NDArray, NDArray]:
    """Means over bins of equal width in log l, from l = 2; narrow bins merge."""
    ell = np.arange(len(d_ell))
    edges = np.unique(np.geomspace(2, len(d_ell), number + 1).astype(int))
    where = np.digitize(ell, edges)
    keep = (where > 0) & (where < len(edges))
    count = np.bincount(where[keep], minlength=len(edges))[1:]
    centre = np.bincount(where[keep], ell[keep], len(edges))[1:] / np.maximum(count, 1)
    mean = np.bincount(where[keep], d_ell[keep], len(edges))[1:] / np.maximum(count, 1)
    return centre[count > 0], mean[count > 0]


def _quantile(values: NDArray, q: float) -> float:
    """Quantile of the finite values; 0 if there are none."""
    finite = values[np.isfinite(values)]
    return float(np.quantile(finite, q)) if finite.size else 0.0


def _zoom_centre(geometry: Geometry) -> tuple[float, float]:
    theta, phi = np.radians(90 - ZOOM_CENTRE[1]), np.radians(ZOOM_CENTRE[0])
    if geometry.kind == "healpix" or geometry.pixel(np.array([theta]), np.array([phi]))[0] >= 0:
        return ZOOM_CENTRE
    ny, nx = geometry.shape
    theta, phi = geometry.angles(np.array([(ny // 2) * nx + nx // 2]))
    return float(np.degrees(phi[0])), float(90 - np.degrees(theta[0]))


def _headline(sky: Sky) -> str:
    meta = sky.meta
    weights = meta.get("weights", {}).get("name", "unknown")
    return f"mlsky {meta.get('version', '')}   seed {meta.get('seed')}   weights {weights}"
