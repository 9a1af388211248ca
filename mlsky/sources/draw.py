"""Random sources, cell by cell, from the rates of the networks.

The cells are the pixels of the charts, whose positions are the same for every geometry. Each cell
has its own random numbers (`mlsky.seeds`): one for the number of its sources, by inversion of the
Poisson distribution, and one for every quantity of each source. A slightly different rate, as on
another processor or with other versions of the libraries, adds or removes the last source of a few
cells and moves no other. The number of sources changes by the relative difference of the rates, the
smallest change possible.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky import seeds
from mlsky.components import REFERENCE_GHZ
from mlsky.errors import RegistryError
from mlsky.frequency import bands
from mlsky.sources import counts
from mlsky.sphere.charts import NSIDE
from mlsky.sphere.threads import BLOCK

if TYPE_CHECKING:
    from mlsky.sphere.charts import Chart
    from mlsky.sphere.geometry import Geometry

__all__ = ["of_chart", "on_map"]

#: Quantities in the stream "sources": number of sources in a cell, then row and column inside the
#: cell, kind and flux of each source. They are part of the meaning of a seed.
_HOW_MANY, _ROW, _COLUMN, _KIND, _FLUX = range(5)

#: Largest expected number of sources on a chart, our choice: a hundred times the usual number.
MOST = 2_000_000

#: Bits of the number of a source, from the last: column and row of its cell relative to the middle
#: of the chart, which does not depend on the sides; the chart; the number within the cell.
_BITS, _MIDDLE, _CHART_BITS = 16, 1 << 15, 8


def of_chart(
    chart: Chart, made: dict[str, NDArray[np.float32]], header: dict, seed: int
) -> dict[str, NDArray]:
    """Sources that a chart owns.

    Parameters
    ----------
    chart
        The chart.
    made
        Maps of it, *(ny, nx)*: "log_rate", ln of radio sources per pixel at the chart's centre, or
        "radio" (uK_CMB at 148 GHz), each bright pixel of which is a source; and "cib" (uK_CMB at
        148 GHz), which bright dusty sources follow.
    header
        Of the weight file, with its calibration and the fluxes of dusty sources.
    seed
        Of the sky; the stream "sources" is used.

    Returns
    -------
    sources
        "vectors" *(3, n)*, unit vectors; "flux" *(n,)*, mJy at 148 GHz; "dsfg" *(n,)*, bool;
        "number" *(n,)* int64, unique on the sky.

    Raises
    ------
    ValueError
        If a rate is not finite.
    RegistryError
        If more than `MOST` sources are expected, as from untrained networks.
    """
    import healpy

    if "log_rate" in made:
        cells, dsfg_fraction = _poisson(chart, made, header, seed)
        flux = None
    else:
        cells, flux = _bright_pixels(chart, made["radio"])
        dsfg_fraction = np.zeros(len(flux))
    row, column, number = cells

    def drawn(quantity: int) -> NDArray[np.float64]:
        return seeds.uniform(seed, "sources", quantity, number)

    vectors = chart.vectors_at(row + drawn(_ROW) - 0.5, column + drawn(_COLUMN) - 0.5)
    mine = healpy.vec2pix(NSIDE, *vectors, nest=True) == chart.index
    dsfg = drawn(_KIND) < dsfg_fraction
    if flux is None:
        uniform = drawn(_FLUX)
        flux = counts.draw_radio_flux(uniform)
        if dsfg.any():
            fluxes = header["sources"]["dsfg"]["flux_mjy"]
            flux[dsfg] = np.interp(uniform[dsfg], np.linspace(0, 1, len(fluxes)), fluxes)
    found = {"flux": flux, "dsfg": dsfg, "number": number}
    return {"vectors": vectors[:, mine], **{name: v[mine] for name, v in found.items()}}


def on_map(found: dict[str, NDArray], geometry: Geometry) -> dict[str, NDArray]:
    """The sources of `of_chart` that lie on a map."""
    if geometry.kind == "healpix":
        return found
    x, y, z = found["vectors"]
    on = geometry.pixel(np.arctan2(np.hypot(x, y), z), np.arctan2(y, x) % (2 * np.pi)) >= 0
    return {name: values[..., on] for name, values in found.items()}


def _poisson(chart: Chart, made: dict, header: dict, seed: int) -> tuple[tuple, np.ndarray]:
    """Cells of the sources of both kinds, and the probabilities that they are dusty."""
    table = header.get("calibration", {})
    fraction = table.get("radio_fraction", 1.0)
    gain = counts.rate_gain(table.get("radio_mean_rate"), chart.pixel_rad**2, fraction)
    dsfg = header.get("sources", {}).get("dsfg")
    per_uk = 0.0
    if dsfg:  # bright dusty galaxies follow the CIB they belong to
        per_uk = dsfg["per_sr"] * chart.pixel_rad**2 / dsfg["mean_cib_uk"]
    ny, nx = chart.shape
    found, expected = [], 0.0
    for first in range(0, ny, max(1, BLOCK // nx)):
        rows = slice(first, min(first + max(1, BLOCK // nx), ny))
        rate = np.exp(made["log_rate"][rows])
        rate *= gain
        of_dsfg = per_uk * made["cib"][rows]
        rate += of_dsfg
        expected += float(rate.sum(dtype=np.float64))
        if expected > MOST:
            raise RegistryError(
                f"the networks ask for {expected:.3g} sources on chart {chart.index}, at most "
                f"{MOST} are drawn: the weight file is no trained one, or damaged; use another "
                "(mlsky weights list)"
            )
        area = chart.scale(slice(rows.start * nx, rows.stop * nx)).reshape(rate.shape) ** 2
        cell = _cells(chart, np.arange(*rows.indices(ny))[:, np.newaxis], np.arange(nx))
        many = seeds.poisson(seeds.uniform(seed, "sources", _HOW_MANY, cell), rate * area)
        row, column = np.nonzero(many)
        many = many[row, column]
        which = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
        row, column = np.repeat(row, many), np.repeat(column, many)
        number = cell[row, column] + (which << 2 * _BITS + _CHART_BITS)
        fraction = of_dsfg[row, column] / rate[row, column]
        found.append((row + first, column, number, fraction))
    row, column, number, fraction = (np.concatenate(part) for part in zip(*found, strict=True))
    return (row, column, number), fraction


def _bright_pixels(chart: Chart, radio: np.ndarray) -> tuple[tuple, np.ndarray]:
    """Cells and fluxes (mJy) of a radio map's pixels above the faintest source."""
    mjy = radio * bands.jy_per_sr_per_uk(REFERENCE_GHZ) * chart.pixel_rad**2 * 1e3
    mjy = mjy * chart.scale() ** 2
    row, column = np.nonzero(mjy > counts.FLUX_MIN_MJY)
    return (row, column, _cells(chart, row, column)), mjy[row, column].astype(np.float64)


def _cells(chart: Chart, row: np.ndarray, column: np.ndarray) -> NDArray[np.int64]:
    """Numbers of the cells of a chart."""
    ny, nx = chart.shape
    row, column = row - ny // 2 + _MIDDLE, column - nx // 2 + _MIDDLE
    return (((chart.index << _BITS) + row) << _BITS) + column
