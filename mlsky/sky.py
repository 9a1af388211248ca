"""`Sky`: the result of `mlsky.simulate` and the content of a sky file.

A sky is kept in compact form, as `mlsky.io.layers.Layer`, so a component at twenty
bands costs no more memory than at one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlsky import arguments
from mlsky.frequency.passbands import Band
from mlsky.io import fits, hdf5, skies
from mlsky.io.layers import TOTAL, Layer
from mlsky.operations import Operations
from mlsky.sphere import geometry as pixels

if TYPE_CHECKING:
    from pathlib import Path

    from astropy.table import Table
    from astropy.units import Quantity

    from mlsky.io.store import Disk

__all__ = ["Sky", "finish"]


class Sky(Operations):
    """A multi-frequency sky: components, kappa, catalogue, provenance.

    Skies are made by `simulate` and `Sky.read`. ``sky["tsz"]`` and `sky.total` are built
    from the compact form at each access: keep them in a variable.
    ``np.asarray(sky)`` is `sky.total`, iteration goes over the names of the components.

    Attributes
    ----------
    bands : tuple of Band
        Passbands; of one point for a single frequency.
    catalog : astropy.table.Table or None
        Sources above 1 mJy at 148 GHz; `in_map` is False for those that the flux cut removed.
    clusters : astropy.table.Table or None
        Haloes above the mass cut, most massive first: "ra", "dec" (deg), "z", "m200m",
        "m200c", "m500c" (Msun), "y500" (arcmin^2), "theta500" (arcmin), "velocity" (km/s,
        positive if receding). None if the weights paint clusters themselves.
    meta : dict
        Provenance, plain JSON types: version, seeds, weights and their sha256, cosmology,
        flux cut, unit, geometry, command, licence, citation.
    """

    def __init__(
        self,
        *,
        freqs_ghz: ArrayLike,
        bands: Sequence[Band] | None = None,
        geometry: pixels.Geometry,
        stokes: str,
        unit: str,
        components: dict[str, Sequence[Layer]],
        kappa: NDArray[np.float32] | None = None,
        catalog: Table | None = None,
        clusters: Table | None = None,
        meta: dict | None = None,
        source: str = "this sky",
    ) -> None:
        self.freqs_ghz = np.array(freqs_ghz, dtype=np.float64)
        self.bands = tuple(Band(nu) for nu in self.freqs_ghz) if bands is None else tuple(bands)
        self.geometry = geometry
        self.stokes = stokes
        self.unit = unit
        self.layers = {name: tuple(layers) for name, layers in components.items()}
        self._kappa = kappa
        self.catalog = catalog
        self.clusters = clusters
        self.meta = {} if meta is None else meta
        self._source = source

    @property
    def freqs(self) -> Quantity:
        """(nfreq,) centres of the bands, GHz."""
        from astropy import units

        return self.freqs_ghz * units.GHz

    @property
    def kappa(self) -> NDArray[np.float32] | None:
        """(*shape,) float32: the convergence, which lenses the CMB and shapes the foregrounds."""
        return None if self._kappa is None else np.asarray(self._kappa)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of `total`, (nfreq, nstokes, *map shape)."""
        return (len(self.freqs_ghz), len(self.stokes), *self.geometry.shape)

    @property
    def total(self) -> NDArray[np.float32]:
        """(nfreq, nstokes, *shape), everything, in `unit`; a new array at each access."""
        return self[TOTAL]

    def keys(self) -> tuple[str, ...]:
        """Names of the components; none if the file held only the total."""
        return tuple(name for name in self.layers if name != TOTAL)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        layers = self._select(name)
        out = np.zeros(self.shape, dtype=np.float32)
        for target, share in zip(out, np.eye(len(self.freqs_ghz)), strict=True):
            for layer in layers:
                layer.add_to(target, self.stokes, share)
        return out

    def band(self, index: int | str, component: str | None = None) -> NDArray[np.float32]:
        """One band of the total or of one component, (nstokes, *shape).

        Parameters
        ----------
        index
            Number of the band, or its name.

        Raises
        ------
        ValueError
            If there is no such band, or more than one has that name.
        """
        return self.integrate(np.eye(len(self.freqs_ghz))[self.index(index)], component)

    def index(self, band: int | str) -> int:
        """Number of a band, given by number or name.

        Raises
        ------
        ValueError
            If no band, or more than one, has that name, or there are fewer bands.
        """
        count = len(self.bands)
        if not isinstance(band, str):
            labels = ", ".join(one.label for one in self.bands)
            allowed = f"a name, or a number from 0 to {count - 1}, of the bands {labels}"
            return arguments.integer("band", band, allowed, -count, count - 1) % count
        found = [i for i, one in enumerate(self.bands) if one.name == band]
        if len(found) != 1:
            named = ", ".join(one.label for one in self.bands)
            raise ValueError(f"band {band!r}: {len(found)} of the bands {named} have that name")
        return found[0]

    def integrate(
        self,
        weights: ArrayLike,
        component: str | None = None,
        rows: slice = slice(None),
        stokes: str | None = None,
    ) -> NDArray[np.float32]:
        """Sum over bands with one weight per band, (nstokes, *shape), in `unit`.

        Parameters
        ----------
        weights
            (nfreq,), for example those of a quadrature over a passband.
        component
            A name; None for the total.
        rows
            Part of the first axis of the maps, without steps, for skies larger than memory: pixels
            of HEALPix, rows of CAR maps.
        stokes
            Stokes parameters that the sky holds, in any order; all by default.

        Raises
        ------
        ValueError
            For another number of weights, rows with a step, or a Stokes parameter that the sky
            does not hold.
        KeyError
            For a component that the sky does not hold.
        """
        share = np.asarray(weights, dtype=np.float64)
        if share.shape != self.freqs_ghz.shape:
            raise ValueError(
                f"weights of shape {share.shape}: must be one per band, {self.freqs_ghz.shape}"
            )
        if not isinstance(rows, slice) or rows.step not in (None, 1):
            raise ValueError(f"rows={rows!r}: must be a slice without steps, as slice(0, 1024)")
        stokes = self._parse_stokes(stokes)
        first, *rest = self.geometry.shape
        start, stop, _ = rows.indices(first)
        stop = max(start, stop)
        out = np.zeros((len(stokes), stop - start, *rest), dtype=np.float32)
        for layer in self._select(TOTAL if component is None else component):
            layer.add_to(out, stokes, share, slice(start, stop))
        return out

    def _with(self, layers: dict[str, list[Layer]], **changed) -> Sky:
        """A sky of other layers, and what else is given."""
        held = {"kappa": self._kappa, "catalog": self.catalog, "clusters": self.clusters}
        return Sky(
            freqs_ghz=self.freqs_ghz,
            bands=self.bands,
            geometry=self.geometry,
            stokes=self.stokes,
            unit=self.unit,
            components=layers,
            source=self._source,
            **{**held, "meta": self.meta, **changed},
        )

    def _parse_stokes(self, stokes: str | None) -> str:
        """The Stokes parameters requested, all by default; others are refused."""
        if stokes is None:
            return self.stokes
        held = isinstance(stokes, str) and 0 < len(stokes) == len(set(stokes))
        if not held or not set(stokes) <= set(self.stokes):
            raise ValueError(
                f"stokes={stokes!r}: {self._source} holds {self.stokes}; name some of them, "
                "each once"
            )
        return stokes

    def _select(self, name: str) -> tuple[Layer, ...]:
        if name in self.layers:
            return self.layers[name]
        if name == TOTAL:
            return tuple(layer for layers in self.layers.values() for layer in layers)
        held = ", ".join(self.keys()) or "the total alone (HDF5 files keep the components)"
        raise KeyError(f"component {name!r}: {self._source} holds {held}")

    def __array__(self, dtype=None, copy: bool | None = None) -> NDArray:
        if copy is False:
            raise ValueError(
                "copy=False: the total of a sky is built when asked for, use np.asarray(sky)"
            )
        total = self.total
        return total if dtype is None else total.astype(dtype, copy=False)

    def write(
        self,
        path: str | os.PathLike,
        overwrite: bool = False,
        *,
        component: str | None = None,
        ordering: str = "RING",
    ) -> None:
        """Write the sky; the suffix selects the format.

        ``.h5``, ``.hdf5``: everything, read back to the bit. ``.fits``: the total (or one
        `component`), kappa and the lists of sources and clusters; HEALPix as one table per band
        (``healpy.read_map`` with ``hdu=band + 1``), CAR as one image (``pixell.enmap.read_map``).

        Parameters
        ----------
        component
            FITS only: write this component instead of the total.
        ordering
            HEALPix FITS only: "RING" or "NESTED".

        Raises
        ------
        ValueError
            If `path` exists and `overwrite` is False, cannot be written, or has another suffix.
        """
        skies.write(self, path, overwrite=overwrite, component=component, ordering=ordering)

    @classmethod
    def read(cls, path: str | os.PathLike, lazy: bool = False) -> Sky:
        """Read a sky that `write` has written.

        Parameters
        ----------
        lazy
            Leave the maps on disk and read only what is needed at each access; the file must not
            move. `band` and `integrate` then need only the memory of their result. Checksums are
            not compared; use `mlsky verify`.

        Raises
        ------
        ValueError
            If the file is not one of mlsky's, is damaged, or was changed since it was written.
        """
        content = skies.read(path, lazy)
        del content["version"]
        bands = content.pop("bands")
        if bands is not None:
            content["bands"] = [Band.from_dict(band) for band in bands]
        return cls(**content, source=os.fspath(path))

    def __repr__(self) -> str:
        geometry = self.geometry
        where = (
            f"nside={geometry.nside}"
            if geometry.kind == "healpix"
            else f"CAR {geometry.shape[0]} x {geometry.shape[1]} at {geometry.pixel_arcmin:g}'"
        )
        freqs = ", ".join(band.label for band in self.bands)
        held = ", ".join(self.keys()) or "total only"
        return (
            f"<Sky [{freqs}] GHz, {self.stokes}, {where}, {self.unit}, "
            f"seed={self.meta.get('seed')}: {held}>"
        )


def finish(sky: Sky, store: Disk, out: Path) -> Sky:
    """Turn the file with the maps into the file `out`, and return the sky in it."""
    made = store.file
    store.protect()
    hdf5.write_hdf5(sky, made, store.paths)
    store.flush()
    if out.suffix.lower() in skies.HDF5:
        store.move(out)
    else:
        # in the folder too, so that a run that is killed leaves nothing elsewhere
        image = store.folder / f"sky{out.suffix}"
        image.unlink(missing_ok=True)
        fits.write_fits(Sky.read(made, lazy=True), image)
        store.move(out, image)
    return Sky.read(out, lazy=True)
