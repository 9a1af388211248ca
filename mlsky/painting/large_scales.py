"""Large scales of the foregrounds, which networks trained on patches do not know.

A network reproduces what it has seen on patches of a few degrees. A stitched sky therefore lacks
power at multipoles below about 400, and in tSZ below 1900 if the patches are small. The deficit is
measured once per weight file (`mlsky.training.sky_calibration`) and kept in its header: a response
to the Gaussian kappa, and the roots of the power that is still missing, by multipole. With these
and the kappa of the sky, a few band-limited fields are made before any network runs; they modulate
the maps chart by chart.

No map changes its sign. The templates of the CIB, the rate of radio sources, and the tSZ of
networks that leave clusters out are each multiplied by one plus a field of a few per cent; the
fields are correlated as the maps are. A Gaussian field is added to kSZ, which has both signs; a
part of it follows the kSZ of the objects, because haloes of every mass move together.

In networks that paint the clusters too, tSZ mostly lacks the shot noise of nearby clusters a degree
wide. Its rms is close to the mean of the map, so that a Gaussian field would make a fifth of the
sky positive. The tables of such weight files state a number of clusters instead. They are placed at
random as round negative profiles, their mean is subtracted, and the few pixels (1e-3) above zero
are set to zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky import seeds
from mlsky.components import maps_of
from mlsky.sphere import gaussian, refine
from mlsky.sphere.field import Field
from mlsky.sphere.multipoles import truncate

if TYPE_CHECKING:
    from mlsky.sphere.charts import Chart

__all__ = ["JOIN", "LargeScales", "correlated", "modes", "prepare"]

#: Below the first multipole the sky has the spectra of the truth, above the second those of the
#: networks, which there agree with the truth to a few per cent. For tSZ the table of a weight file
#: extends further, as nearby clusters are wider than small patches.
JOIN = (330, 480)
#: Order in which the white fields are drawn, which is part of the meaning of a seed; further
#: templates of the CIB follow. "radio" is the density of radio sources relative to its mean, the
#: others are in uK.
WHITE = ("cib", "radio", "ksz", "tsz")
#: Fields up to l = JOIN[1] vary over 20' or more, so that values on pixels of this size (arcmin)
#: suffice; fields with more multipoles need smaller pixels in proportion.
COARSE_ARCMIN = 8.0
#: Lowest density, as a fraction of its mean.
LEAST = 0.05


class LargeScales:
    """Corrections of the large scales of the networks' maps; see `prepare`.

    Parameters
    ----------
    alm
        Alm of the fields for some of "tsz", "ksz", "cib", "cib_353" and so on (uK) and "radio"
        (relative density).
    mean
        Means of the uncorrected maps that are multiplied, uK; fields of other maps are added.
    amplitude
        Factors of the maps.
    """

    def __init__(
        self,
        alm: Mapping[str, NDArray[np.complex128]],
        mean: Mapping[str, float],
        amplitude: Mapping[str, float],
    ) -> None:
        self.names = tuple(alm)
        lmax = max((gaussian.alm_lmax(values) for values in alm.values()), default=0)
        self._at = None
        if alm:  # of one band limit, so that a position is looked up once for all of them
            self._at = Field(np.stack([_extended(values, lmax) for values in alm.values()]))
        self._coarsest = COARSE_ARCMIN * min(1.0, JOIN[1] / max(1, lmax))
        self.mean, self.amplitude = dict(mean), dict(amplitude)

    def apply(self, chart: Chart, made: dict[str, NDArray[np.float32]]) -> None:
        """Correct the maps of a chart, in place.

        Parameters
        ----------
        made
            Some of "tsz", "ksz", "log_rate" and the templates of the CIB, (ny, nx) float32.
        """
        for name, factor in self.amplitude.items():
            if name in made:
                made[name] *= np.float32(factor)
        fields = {}
        if self._at is not None:
            values = refine.on_chart(self._at, chart, self._coarsest)
            fields = dict(zip(self.names, values, strict=True))
        for name in fields.keys() & made.keys():
            if name in self.mean:
                made[name] *= _density(fields[name] * np.float32(1 / self.mean[name]))
            else:
                made[name] += fields[name]
        if "tsz" in made:
            np.minimum(made["tsz"], 0, out=made["tsz"])
        if "log_rate" in made and "radio" in fields:
            made["log_rate"] += np.log(_density(fields["radio"]))


def prepare(
    calibration: Mapping,
    gaussian_kappa: NDArray[np.complex128],
    seed: int,
    objects: Callable[[str, int], NDArray[np.complex128]] | None = None,
) -> LargeScales:
    """What a sky needs beside its networks.

    Parameters
    ----------
    calibration
        Of a weight file. Its ``large_scales``, if it has one: ``ell``, ``response`` {name: values},
        ``root`` {"cib tsz": values} and ``mean`` {name: uK}; ``clusters`` (on the sky), if the
        networks paint them, and then ``mean_cib`` (uK) in place of ``mean``. And ``amplitude``
        {name: factor}.
    gaussian_kappa
        Gaussian kappa of the sky, healpy order.
    seed
        Of the sky; the stream is "large_scales", and one of its own at each multipole.
    objects
        Function of the name of a map and a band limit that gives the alm of the objects in it, as
        `mlsky.haloes.paint.HaloPainter.alm`; None if there are none.
    """
    table = calibration.get("large_scales")
    alm = modes(table, gaussian_kappa, seed, objects) if table else {}
    mean = table.get("mean", {"cib": table.get("mean_cib")}) if table else {}
    return LargeScales(alm, mean, calibration.get("amplitude", {}))


def correlated(names: Iterable[str]) -> list[str]:
    """The correlated ones of some fields, in the order of the Cholesky factor."""
    cib = sorted(maps_of(names, "cib"), key=_template_ghz)
    return [n for n in ("tsz", *cib, "radio") if n in names]


def _template_ghz(name: str) -> float:
    """Frequency of a further template of the CIB; 0 for "cib"."""
    return float(name.partition("_")[2] or 0)


def modes(
    table: Mapping,
    gaussian_kappa: NDArray[np.complex128],
    seed: int,
    objects: Callable[[str, int], NDArray[np.complex128]] | None = None,
) -> dict[str, NDArray[np.complex128]]:
    """Alm of the fields of `LargeScales`; see `prepare`."""

    have = gaussian.alm_lmax(gaussian_kappa)
    lmax = min(have, table["ell"][-1])
    ell = np.arange(lmax + 1)
    kappa = truncate(gaussian_kappa, lmax)

    def at(values) -> NDArray[np.float64]:
        out = np.interp(ell, table["ell"], values)
        out[:2] = 0  # the mean of a map is not changed
        return out

    root = {tuple(key.split()): at(values) for key, values in table["root"].items()}
    order = correlated(table["response"])
    drawn = (*WHITE, *(name for name in order if name not in WHITE))
    if "clusters" in table:
        drawn = tuple(name for name in drawn if name != "tsz")
    each = gaussian.white(lmax, seed, "large_scales", len(drawn))
    white = dict(zip(drawn, each, strict=True))
    if "clusters" in table:
        white["tsz"] = _clusters(int(table["clusters"]), lmax, seed)
    alm = {}
    for name in order:
        parts = [gaussian.scale_alm(kappa.copy(), at(table["response"][name]))]
        for other in order:
            factor = root.get((name,) if other == name else (name, other))
            if factor is not None and factor.any():
                parts.append(gaussian.scale_alm(white[other].copy(), factor))
        alm[name] = sum(parts)
    alm["ksz"] = gaussian.scale_alm(white["ksz"], root[("ksz",)])
    if objects is not None and any(table.get("ksz_of_objects", ())):
        own = objects("ksz", lmax)  # haloes move together
        alm["ksz"] += gaussian.scale_alm(own, at(table["ksz_of_objects"]))
    return {name: _bare(values, table["ell"]) for name, values in alm.items() if values.any()}


def _bare(alm: NDArray[np.complex128], nodes: Sequence[int]) -> NDArray[np.complex128]:
    """An alm without the multipoles above which a table is zero."""
    import healpy

    lmax = gaussian.alm_lmax(alm)
    last = max(np.flatnonzero(healpy.alm2cl(alm)))
    top = min(lmax, min((n for n in nodes if n > last), default=lmax))
    return truncate(alm, top)


def _extended(alm: NDArray[np.complex128], lmax: int) -> NDArray[np.complex128]:
    """An alm with zeros up to a higher band limit."""
    own = gaussian.alm_lmax(alm)
    out = np.zeros((lmax + 1) * (lmax + 2) // 2, np.complex128)
    for m in range(own + 1):
        start, there = m * (2 * own + 1 - m) // 2, m * (2 * lmax + 1 - m) // 2
        out[there + m : there + own + 1] = alm[start + m : start + own + 1]
    return out


def _clusters(count: int, lmax: int, seed: int) -> NDArray[np.complex128]:
    """White alm of unit power of `count` negative points at random places."""
    import ducc0

    rng = seeds.generator(seed, "large_scales", 0, 0)
    z, phi = rng.uniform(-1, 1, count), rng.uniform(0, 2 * np.pi, count)
    places = np.stack([np.arccos(z), phi], 1)
    # One thread: the bits of this transform depend on how many there are.
    alm = ducc0.sht.adjoint_synthesis_general(
        map=np.full((1, count), -np.sqrt(4 * np.pi / max(count, 1))),
        loc=places,
        lmax=lmax,
        spin=0,
        epsilon=1e-7,
        nthreads=1,
    )
    return np.asarray(alm[0], np.complex128)


def _density(modulation: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.maximum(1 + modulation, np.float32(LEAST))
