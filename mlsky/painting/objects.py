"""The haloes of a sky, which are added to what the networks paint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from mlsky.components import REFERENCE_GHZ, maps_of
from mlsky.frequency import cib_templates
from mlsky.haloes import catalogue, draw, paint
from mlsky.networks import evaluate
from mlsky.sphere import resampling

if TYPE_CHECKING:
    from mlsky.haloes.draw import HaloList
    from mlsky.haloes.paint import HaloPainter
    from mlsky.networks.weights import Weights
    from mlsky.sphere.chart_area import Area
    from mlsky.sphere.charts import Chart
    from mlsky.sphere.geometry import Geometry

__all__ = ["SkyObjects", "filtered", "objects_of_sky"]

#: Fields of objects without point sources.
SMOOTH = ("tsz", "ksz")


def objects_of_sky(
    kappa_alm: NDArray[np.complex128],
    cl: NDArray[np.float64],
    seed: int,
    *,
    weights: Weights,
    tables: dict,
    geometry: Geometry,
    components: Sequence[str],
    halved: bool = False,
    tsz_order: int | None = None,
    given: dict | None = None,
) -> tuple[HaloList, HaloPainter]:
    """Haloes that the networks leave out, random or given by the user, and their painter.

    Parameters
    ----------
    kappa_alm
        Gaussian kappa of the sky, healpy order, to `mlsky.haloes.shells.LMAX` at least.
    cl
        Its spectrum.
    seed
        Of the sky.
    weights
        Weights of the rest; they give the mass cut, the CIB templates and the chart pixels.
    tables
        From `mlsky.haloes.tables`, of the sky's cosmology.
    geometry
        Output pixels.
    components
        Components of the sky. kappa is painted always, tSZ also if the networks are given it.
    halved
        Whether haloes are painted on pixels half as large as the networks'.
    tsz_order
        As for `HaloPainter`.
    given
        Haloes of the user, checked by `mlsky.haloes.catalogue.check`, instead of random ones.

    Raises
    ------
    ValueError
        If the mass cut is not in the tables.
    """
    cut, sky = weights.mass_cut, (seed, kappa_alm, cl)
    if given is None:
        haloes = draw.draw(tables, *sky, mass_cut=cut)
    else:
        haloes = catalogue.parse(given, tables, cut, *sky)
    law = cib_templates.of_header(weights.header)
    shown = ("kappa", "tsz") if evaluate.takes_objects(weights) else ("kappa",)
    fields = dict.fromkeys((*shown, *(name for name in components if name != "cmb")))
    objects = paint.HaloPainter(
        haloes,
        tables,
        seed,
        fields=tuple(fields),
        tsz_order=tsz_order,
        cib_ghz=(REFERENCE_GHZ,) if law is None else tuple(law.templates_ghz),
        mass_cut=cut,
        pixel_arcmin=weights.pixel_arcmin / (1 + halved),
        geometry=geometry,
    )
    return haloes, objects


def filtered(
    field: np.ndarray, pixel_rad: float, gain: Callable, inside: np.ndarray | None = None
) -> NDArray[np.float32]:
    """A field on a chart, (ny, nx), with its modes multiplied by a slowly varying gain.

    Edges are periodic, and the field is replaced by its mean outside the pixels `inside`.
    """
    if inside is not None:
        field = np.where(inside, field, field[inside].mean(dtype=np.float64).astype(np.float32))
    ny, nx = field.shape
    step = 2 * np.pi / pixel_rad
    ky, kx = (np.fft.fftfreq(ny) * step)[:, np.newaxis], np.fft.rfftfreq(nx) * step
    # One thread and float32: the bits do not depend on the number of charts in work.
    modes = fft.rfft2(field, workers=1)
    modes *= gain(np.hypot(ky, kx)).astype(np.float32)
    return fft.irfft2(modes, s=(ny, nx), workers=1)


@dataclass(frozen=True, eq=False)
class SkyObjects:
    """The objects of a sky together with the maps of the networks; there may be no objects.

    Attributes
    ----------
    added
        Whether they are added to the maps; otherwise only the networks see them.
    gain
        Gain of the networks' kappa, a function of multipole; None for one.
    """

    objects: HaloPainter | None
    nonlinear: bool
    added: bool = True
    gain: Callable[[NDArray], NDArray[np.float64]] | None = None

    @property
    def kappa_maps(self) -> int:
        """Number of maps of `kappa`."""
        return 1 + (self.objects is not None and not self.added)

    def tsz_names(self) -> tuple[str, ...]:
        """Names of the tSZ maps of the objects."""
        if self.objects is None or self.objects.tsz_order is None or not self.added:
            return ()
        return tuple(name for name in self.objects.terms if name.startswith("tsz"))

    def on(self, chart: Chart) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Maps of the objects on a chart, and their member sources."""
        if self.objects is None:
            return {}, {}
        return self.objects.on(chart)

    @staticmethod
    def shown(haloes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The maps of the objects that networks are given."""
        return {"kappa": haloes["kappa"], "tsz": haloes["tsz" if "tsz" in haloes else "tsz_0"]}

    def kappa(
        self, made: dict[str, np.ndarray], chart: Chart, area: Area, haloes: dict[str, np.ndarray]
    ) -> list[np.ndarray]:
        """Convergence of a chart: the total, or the networks' and that of the objects.

        With objects, the kappa of the networks is calibrated here, before the objects are added,
        which must not change. Otherwise it is calibrated on the sphere.
        """
        if self.objects is None:
            return [made["kappa"]]
        own = made["kappa"]
        if self.gain is not None:
            own = filtered(own, chart.pixel_rad, self.gain, area.mask())
        return [own + haloes["kappa"]] if self.added else [own, haloes["kappa"]]

    def add(
        self,
        values: dict[str, np.ndarray],
        chart: Chart,
        haloes: dict[str, np.ndarray],
        geometry: Geometry,
        owned: np.ndarray,
    ) -> None:
        """Add tSZ and kSZ of a chart's objects to the output pixels that it owns, in place.

        They are smooth and are averaged over the pixels.
        """
        names = [name for name in maps_of(haloes, *SMOOTH) if name in values and self.added]
        if names:
            stack = np.stack([haloes[name] for name in names])
            parts = resampling.average(chart, stack, geometry, owned)
            for name, part in zip(names, parts, strict=True):
                values[name] += part

    def with_sources(
        self, maps: dict[str, np.ndarray], haloes: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Maps of a chart with the CIB of the objects, which is resampled with that of the rest."""
        own = [name for name in maps_of(haloes, "cib") if name in maps and self.added]
        return {**maps, **{name: maps[name] + haloes[name] for name in own}}

    def without(self, kappa, chart: Chart, haloes: dict[str, np.ndarray]):
        """The convergence that the networks see, without the objects."""
        if not (self.nonlinear and haloes):
            return kappa
        own = haloes["kappa"]
        if self.gain is not None:
            # for another cosmology kappa was divided by its gain, including the objects
            own = filtered(own, chart.pixel_rad, lambda ell: 1 / self.gain(ell))
        return kappa - own
