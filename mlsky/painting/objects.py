"""The haloes of a sky beside what its networks paint."""

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
    """Haloes that networks leave out, drawn or given, and what paints them.

    Parameters
    ----------
    kappa_alm
        Gaussian kappa of the sky, healpy order, to `mlsky.haloes.shells.LMAX` at least.
    cl
        Its spectrum.
    seed
        Of the sky.
    weights
        Of the rest: the mass cut, the templates of the CIB and the pixels of their charts are used.
    tables
        From `mlsky.haloes.tables`, of the sky's cosmology.
    geometry
        Output pixels.
    components
        Of the sky: what is painted beside kappa, and beside tSZ if the networks are given it.
    halved
        Whether haloes are painted on pixels half as large as the networks'.
    tsz_order
        As for `HaloPainter`.
    given
        A user's haloes, checked by `mlsky.haloes.catalogue.check`, in place of drawn ones.

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
    """A field on a chart, (ny, nx), whose modes are multiplied by a gain, which must vary slowly.

    Opposite edges meet, and beyond the pixels `inside` the mean takes the place of the field.
    """
    if inside is not None:
        field = np.where(inside, field, field[inside].mean(dtype=np.float64).astype(np.float32))
    ny, nx = field.shape
    step = 2 * np.pi / pixel_rad
    ky, kx = (np.fft.fftfreq(ny) * step)[:, np.newaxis], np.fft.rfftfreq(nx) * step
    # One thread and float32: the bits do not depend on how many charts are under way.
    modes = fft.rfft2(field, workers=1)
    modes *= gain(np.hypot(ky, kx)).astype(np.float32)
    return fft.irfft2(modes, s=(ny, nx), workers=1)


@dataclass(frozen=True, eq=False)
class SkyObjects:
    """The objects of a sky beside what its networks paint; none of them if there are none.

    Attributes
    ----------
    added
        Whether they are part of the maps; otherwise networks see them alone.
    gain
        Of the kappa that networks make, by multipole; None for one.
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
        """Maps of tSZ that the objects have to themselves."""
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
        """Convergence of a chart: of the whole, or of what networks make and of the objects.

        Where there are objects, what networks make is calibrated here, before they are added: the
        objects are to stay as they are. Otherwise it is calibrated on the sphere.
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

        They are smooth, and averages over the pixels are taken.
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
        """Maps of a chart with the CIB of the objects, which is sampled with that of the rest."""
        own = [name for name in maps_of(haloes, "cib") if name in maps and self.added]
        return {**maps, **{name: maps[name] + haloes[name] for name in own}}

    def without(self, kappa, chart: Chart, haloes: dict[str, np.ndarray]):
        """The convergence that networks see: without the objects, which they do not paint."""
        if not (self.nonlinear and haloes):
            return kappa
        own = haloes["kappa"]
        if self.gain is not None:
            # the kappa of another cosmology was divided by its gain, and the objects with it
            own = filtered(own, chart.pixel_rad, lambda ell: 1 / self.gain(ell))
        return kappa - own
