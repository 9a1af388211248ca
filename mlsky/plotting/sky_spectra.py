"""The panels of power spectra in the picture of a sky."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky import harmonics, smoothing
from mlsky.frequency import passbands
from mlsky.io.layers import TOTAL
from mlsky.plotting.style import COLOURS, OTHER, TITLES
from mlsky.sources import catalogue, cuts
from mlsky.validation import act_dr6

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mlsky.sky import Sky
    from mlsky.sphere.geometry import Geometry

__all__ = ["Curve", "binned", "draw", "is_cut", "measure", "without_bright"]

#: Multipole and D_l of the bins of a spectrum, float64 each.
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]

#: A band this far (GHz) from one of the table is still compared with it.
ACT_NEAR_GHZ = 3.0

#: Highest multipole shown. On HEALPix pixels, in units of nside: beyond 2.5 the quadrature of T is
#: off by many per cent, and beyond 1.5 more of E is found in B than lensing puts there.
LMAX = 6000
LMAX_T, LMAX_EB = 2.5, 1.5

#: Bins of a spectrum of the full sky.
BINS = 60

STYLES = {"TT": "-", "EE": "-", "BB": ":"}


def measure(sky: Sky, band: int, component: str | None, maps: NDArray) -> dict[str, Curve]:
    """Power spectra of the maps of one component, or of the total, in one band.

    Sources that ACT masks are taken out where `is_cut` says so. Cut-outs have their mean removed
    and their edges tapered (`mlsky.Sky.spectra`), and bins no narrower than their lowest multipole.

    Parameters
    ----------
    component
        A name; None for the total.
    maps
        (nstokes, *shape), as `mlsky.Sky.band` gives them.

    Returns
    -------
    dict
        Binned D_l = l(l+1) C_l / 2 pi in the unit of the sky squared: "TT", and "EE" and "BB" if
        the maps have polarisation, for those of the Stokes parameters that the sky has.
    """
    geometry = sky.geometry
    if is_cut(sky):
        maps = without_bright(sky, band, component, maps)
    found: dict[str, Curve] = {}
    lowest = harmonics.lowest_multipole(geometry)
    for stokes, part, top in (("T", maps[:1], LMAX_T), ("QU", maps[-2:], LMAX_EB)):
        if stokes in sky.stokes and part.any():
            lmax = _lmax(geometry, top)
            spectra = harmonics.autospectra(part, geometry, stokes, lmax, iterations=0)
            for pair, cl in spectra.items():
                ell = np.arange(len(cl))
                found[pair] = binned(ell * (ell + 1) * cl / (2 * np.pi), lowest)
    return found


def draw(
    panels: dict[str, Axes], sky: Sky, band: int, curves: dict[str, dict[str, Curve]], text: str
) -> None:
    """Draw what `measure` found.

    Parameters
    ----------
    panels
        Axes of "TT", and of "EE", which BB shares; either may be missing.
    curves
        By component, `TOTAL` for everything.
    text
        The label of the ordinate in front of its unit squared.
    """
    cut = f" (< {act_dr6.CUT_MJY:g} mJy)" if is_cut(sky) else ""
    for first, axes in panels.items():
        pairs = ("TT",) if first == "TT" else ("EE", "BB")
        highest = 0.0
        for name, found in curves.items():
            for pair in pairs:
                ell, d_ell = found.get(pair, (np.empty(0), np.empty(0)))
                shown = d_ell > 0
                if not shown.any():
                    continue
                highest = max(highest, float(d_ell.max()))
                label = TITLES.get(name, name) + (cut if name in (TOTAL, "radio") else "")
                axes.plot(
                    ell[shown],
                    d_ell[shown],
                    STYLES[pair],
                    color=COLOURS.get(name, OTHER),
                    label=label if pair in ("TT", "EE") else None,
                    linewidth=1.4,
                    zorder=3 if name == TOTAL else 2,
                )
        if first == "TT":
            _draw_act(axes, sky, band)
        if highest > 0:
            # what lensing makes of E is a few thousandths of it at most multipoles
            axes.set(xscale="log", yscale="log", ylim=(1e-6 * highest, 3 * highest))
        axes.set_ylabel(rf"$D_\ell$ {', '.join(pairs)}  [{text}]")
        axes.grid(alpha=0.25, linewidth=0.5)
    axes.set_xlabel(r"multipole $\ell$")
    _add_legends(panels, sky.geometry)


def _add_legends(panels: dict[str, Axes], geometry: Geometry) -> None:
    """Components by colour below the last panel, EE and BB by their lines in their own."""
    from matplotlib.lines import Line2D

    last = list(panels.values())[-1]
    if "EE" in panels:
        leak = "" if harmonics.lowest_multipole(geometry) <= 2 else ", with some of E"
        lines = [Line2D([], [], color="0.3", linestyle=STYLES[pair]) for pair in ("EE", "BB")]
        last.add_artist(last.legend(lines, ["EE", f"BB{leak}"], fontsize=8, loc="upper left"))
    handles, labels = next(iter(panels.values())).get_legend_handles_labels()
    if handles:
        height = last.get_subplotspec().get_gridspec().get_height_ratios()
        below = -0.16 * sum(height) / height[-1] if len(panels) > 1 else -0.12
        last.legend(
            handles,
            labels,
            fontsize=8,
            ncols=3,
            loc="upper center",
            bbox_to_anchor=(0.45, below),
            frameon=False,
            columnspacing=1.2,
        )


def is_cut(sky: Sky) -> bool:
    """Whether spectra are those without the sources that ACT masks.

    They can be taken out where they are listed and no beam has spread them.
    """
    return sky.catalog is not None and not sky.meta.get("beams")


def without_bright(sky: Sky, band: int, component: str | None, maps: NDArray) -> NDArray:
    """Maps of one band without the listed sources that are brighter than ACT's cut.

    Parameters
    ----------
    component
        A name; None for the total.
    maps
        (nstokes, *shape).
    """
    names = [component] if component is not None else list(sky) or list(catalogue.COMPONENTS)
    kinds = [catalogue.COMPONENTS[name] for name in names if name in catalogue.COMPONENTS]
    table = sky.catalog
    (flux,) = catalogue.band_fluxes(table, passbands.Band(act_dr6.CUT_GHZ))
    bright = cuts.in_band(table, band) & (flux > act_dr6.CUT_MJY)
    bright &= np.isin(np.asarray(table["kind"]), kinds)
    if not bright.any():
        return maps
    maps = np.array(maps)
    smoothing.take_out(maps, sky, table[bright], band, sky.stokes)
    return maps


def binned(d_ell: NDArray, lowest: float = 2.0, number: int = BINS) -> Curve:
    """Means over bins of equal width in log l, from `lowest` on and no narrower than it.

    For the full sky, whose lowest multipole is 2, a bin may be one multipole.
    """
    first = int(np.ceil(lowest))
    least = first if first > 2 else 1
    edges = [first]
    ratio = max(len(d_ell) / first, 1.0) ** (1 / number)
    while edges[-1] < len(d_ell):
        edges.append(max(edges[-1] + least, round(edges[-1] * ratio)))
    if edges[-1] > len(d_ell):  # the last bin would not be whole
        edges.pop()
    edges = np.array(edges)
    if len(edges) < 2:
        return np.empty(0), np.empty(0)
    total = np.concatenate([[0.0], np.cumsum(d_ell)])
    middle = (edges[1:] + edges[:-1] - 1) / 2
    return middle, (total[edges[1:]] - total[edges[:-1]]) / np.diff(edges)


def _lmax(geometry: Geometry, per_nside: float) -> int:
    if geometry.kind == "healpix":
        return max(2, min(LMAX, int(per_nside * geometry.nside)))
    return max(2, min(LMAX, geometry.lmax - 1))


def _draw_act(axes: Axes, sky: Sky, band: int) -> None:
    """The foregrounds that ACT DR6 found at l = 3000, of the components that the maps hold."""
    nu = float(sky.freqs_ghz[band])
    near = min(act_dr6.D3000, key=lambda known: abs(known - nu))
    # a file of the total alone says in its provenance what that is the sum of
    held = sky.keys() or tuple(sky.meta.get("components", ()))
    values = {name: value for name, value in act_dr6.D3000[near].items() if name in held}
    if abs(near - nu) > ACT_NEAR_GHZ or not values:
        return
    factor = sky.bands[band].convert("uK_CMB", sky.unit) ** 2
    for name, value in values.items():
        style = {"color": COLOURS[name], "markeredgecolor": "white", "markersize": 8}
        # without curves of their own the points need names
        label = None if sky.keys() else f"{TITLES[name]}, ACT DR6"
        axes.plot([3000], [value * factor], "o", zorder=5, label=label, **style)
    label = f"ACT DR6, {near:g} GHz"
    axes.plot([], [], "o", color="0.5", markeredgecolor="white", markersize=8, label=label)
