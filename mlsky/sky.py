"""The chain: `simulate` asks every stage in turn; `Sky` holds what they made.

No physics lives here. In order: spectra, Gaussian kappa, networks
(`mlsky.foregrounds`), lensing of the CMB by the sky's own kappa, bands.

A sky is kept in compact form, as `mlsky.outputs.Layer`, so a component at twenty
bands costs no more memory than at one.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlsky import bands, outputs, seeds
from mlsky import components as fields
from mlsky._version import __version__
from mlsky.outputs import Layer
from mlsky.sphere import geometry as pixels

if TYPE_CHECKING:
    from astropy.table import Table
    from astropy.units import Quantity

    from mlsky.sphere.kappa import Given

__all__ = ["Progress", "Realisation", "Sky", "observe", "realise", "simulate"]

#: ``progress(stage, fraction)``: name of the stage under way, share of all the work done.
Progress = Callable[[str, float], None]

#: Sources fainter than this at 148 GHz are in the maps but not in `Sky.catalog`.
CATALOG_MIN_MJY = 1.0

#: Highest multipole of the unlensed CMB; beyond it the primary CMB is below 1e-3 uK^2 in D_l.
CMB_LMAX = 10000

#: Multipoles beyond the band limit that lensing still moves into it. Below 3000 less is enough
#: (the deflection of 2.5' is small against the wavelength), and more would alias.
LENSING_MARGIN = 500

#: Kind of source in the catalogue that belongs to a component.
KINDS = {"cib": "dusty", "radio": "radio"}

CITE = (
    "Han, Sehgal & Villaescusa-Navarro 2021, PRD 104, 123521 (doi:10.1103/PhysRevD.104.123521); "
    "mlsky and the weight files used (mlsky weights show NAME)"
)
LICENCE = "BSD-3-Clause (code); the licence of the weights is in the registry"


@dataclass(frozen=True, eq=False)
class Realisation:
    """One sky at the reference frequency, before any band is chosen.

    Attributes
    ----------
    maps
        Name to (nstokes, *shape) float32 uK_CMB at 148 GHz; sources apart, nstokes 1 or 3.
    catalog
        Every source, also the faint ones, as `mlsky.sources.catalogue` makes them.
    kappa
        (*shape,) float32, dimensionless.
    """

    geometry: pixels.Geometry
    components: tuple[str, ...]
    maps: dict[str, NDArray[np.float32]]
    catalog: Table | None
    kappa: NDArray[np.float32]
    flux_cut_mjy: float | None
    meta: dict


class Sky:
    """A multi-frequency sky: components, kappa, catalogue, provenance.

    Skies are made by `simulate` and `Sky.read`. ``sky["tsz"]`` and `sky.total` are built
    afresh from the compact form at each access: keep them in a variable.
    ``np.asarray(sky)`` is `sky.total`, iteration goes over the names of the components.

    Attributes
    ----------
    kappa : (*shape,) float32 or None
        Convergence that lenses the CMB and that the foregrounds follow; dimensionless.
    catalog : astropy.table.Table or None
        Sources above 1 mJy at 148 GHz; `in_map` is False for those that the flux cut removed.
    meta : dict
        Provenance, plain JSON types: version, seeds, weights and their sha256, cosmology,
        flux cut, unit, geometry, command, licence, citation.
    """

    def __init__(
        self,
        *,
        freqs_ghz: ArrayLike,
        geometry: pixels.Geometry,
        stokes: str,
        unit: str,
        components: dict[str, Sequence[Layer]],
        kappa: NDArray[np.float32] | None = None,
        catalog: Table | None = None,
        meta: dict | None = None,
        source: str = "this sky",
    ) -> None:
        self.freqs_ghz = np.array(freqs_ghz, dtype=np.float64)
        self.geometry = geometry
        self.stokes = stokes
        self.unit = unit
        self.layers = {name: tuple(layers) for name, layers in components.items()}
        self.kappa = kappa
        self.catalog = catalog
        self.meta = {} if meta is None else meta
        self._source = source

    @property
    def freqs(self) -> Quantity:
        """(nfreq,) band frequencies, GHz."""
        from astropy import units

        return self.freqs_ghz * units.GHz

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of `total`, (nfreq, nstokes, *map shape)."""
        return (len(self.freqs_ghz), len(self.stokes), *self.geometry.shape)

    @property
    def total(self) -> NDArray[np.float32]:
        """(nfreq, nstokes, *shape), everything, in `unit`; a new array at each access."""
        return self[outputs.TOTAL]

    def keys(self) -> tuple[str, ...]:
        """Names of the components held; none if the file read held the total alone."""
        return tuple(name for name in self.layers if name != outputs.TOTAL)

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

    def band(self, index: int, component: str | None = None) -> NDArray[np.float32]:
        """One band of the total or of one component, (nstokes, *shape), without the others."""
        return self.integrate(np.eye(len(self.freqs_ghz))[index], component)

    def integrate(self, weights: ArrayLike, component: str | None = None) -> NDArray[np.float32]:
        """Sum over bands with one weight per band, (nstokes, *shape), in `unit`.

        Parameters
        ----------
        weights
            (nfreq,), as of a quadrature over a passband.
        component
            A name; None for the total.
        """
        share = np.asarray(weights, dtype=np.float64)
        if share.shape != self.freqs_ghz.shape:
            raise ValueError(
                f"weights of shape {share.shape}: must be one per band, {self.freqs_ghz.shape}"
            )
        out = np.zeros(self.shape[1:], dtype=np.float32)
        for layer in self._select(outputs.TOTAL if component is None else component):
            layer.add_to(out, self.stokes, share)
        return out

    def _select(self, name: str) -> tuple[Layer, ...]:
        if name in self.layers:
            return self.layers[name]
        if name == outputs.TOTAL:
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
        """Write the sky; the suffix gives the format.

        ``.h5``, ``.hdf5``: everything, read back to the bit. ``.fits``: the total (or one
        `component`), kappa and catalogue; HEALPix as one table per band (``healpy.read_map``
        with ``hdu=band + 1``), CAR as one image (``pixell.enmap.read_map``).

        Parameters
        ----------
        component
            FITS only: write this component in place of the total.
        ordering
            HEALPix FITS only: "RING" or "NESTED".

        Raises
        ------
        ValueError
            If `path` exists and `overwrite` is False, cannot be written, or has another suffix.
        """
        outputs.write(self, path, overwrite=overwrite, component=component, ordering=ordering)

    @classmethod
    def read(cls, path: str | os.PathLike) -> Sky:
        """Read a sky that `write` has written.

        Raises
        ------
        ValueError
            If the file is not one of mlsky's, or is damaged.
        """
        return cls(**outputs.read(path), source=os.fspath(path))

    def __repr__(self) -> str:
        geometry = self.geometry
        where = (
            f"nside={geometry.nside}"
            if geometry.kind == "healpix"
            else f"CAR {geometry.shape[0]} x {geometry.shape[1]} at {geometry.pixel_arcmin:g}'"
        )
        freqs = ", ".join(f"{nu:g}" for nu in self.freqs_ghz)
        held = ", ".join(self.keys()) or "total only"
        return (
            f"<Sky [{freqs}] GHz, {self.stokes}, {where}, {self.unit}, "
            f"seed={self.meta.get('seed')}: {held}>"
        )


@dataclass(frozen=True, eq=False)
class _Request:
    """The arguments of `simulate`, checked."""

    freqs_ghz: NDArray[np.float64]
    geometry: pixels.Geometry
    seed: int
    cmb_seed: int
    components: tuple[str, ...]
    stokes: str
    unit: str
    kappa: Given | None
    cosmology: object
    weights: object
    weights_name: str
    flux_cut_mjy: float | None
    device: str
    progress: Progress
    command: str


def simulate(
    freqs,
    nside: int | None = None,
    seed: int = 0,
    *,
    geometry=None,
    components: Sequence[str] | None = None,
    stokes: str = "TQU",
    kappa: ArrayLike | None = None,
    cosmology="planck2018",
    weights: str = "default",
    flux_cut_mjy: float | None = None,
    unit: str = "uK_CMB",
    cmb_seed: int | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Sky:
    """Make one sky: lensed CMB, kSZ, tSZ, CIB and radio sources, correlated with its kappa.

    The same arguments give the same maps to the bit; a seed's sky does not depend on bands or
    components, nor on `nside` while the same networks paint it (2' to nside 1024, 0.5' above).

    Parameters
    ----------
    freqs
        Frequencies, GHz numbers or an astropy Quantity, one or many.
    nside
        HEALPix resolution, a power of two; RING, equatorial. Or give `geometry`.
    seed
        Integer >= 0.
    geometry
        ``(shape, wcs)`` of a CAR map, as from ``pixell.enmap.fullsky_geometry``.
    components
        Of "cmb", "tsz", "ksz", "cib", "radio"; all by default.
    stokes
        "TQU", "T" or "QU"; polarisation in the COSMO (HEALPix) convention.
    kappa
        Gaussian convergence in place of a drawn one, dimensionless, positive for overdensity:
        a HEALPix RING map (used up to l = 2 nside) or a healpy-ordered complex alm. Higher
        multipoles, which it does not hold, are drawn from `seed`.
    cosmology
        "planck2018", another name, a dict, a `pyccl.Cosmology` or a `camb.CAMBparams`.
    weights
        Name of the networks, see ``mlsky weights list``.
    flux_cut_mjy
        Leave sources brighter than this at 148 GHz out of the maps, mJy.
    unit
        "uK_CMB", "K_CMB", "uK_RJ", "Jy/sr" or "MJy/sr".
    cmb_seed
        Seed of the unlensed CMB alone; `seed` by default.
    device
        "auto", "cpu", "cuda" or "cuda:N", for the networks.
    progress
        Called as ``progress(stage, fraction)``.

    Returns
    -------
    Sky
        `total` of shape (nfreq, nstokes, npix) or (nfreq, nstokes, ny, nx).

    Raises
    ------
    ValueError
        For an argument that is not allowed, before any work starts.
    RegistryError
        If the weight file is missing, truncated, altered or of another architecture.

    Examples
    --------
    >>> import mlsky
    >>> sky = mlsky.simulate(freqs=[93, 145, 225], nside=1024, seed=1)  # doctest: +SKIP
    """
    request = check(**locals())
    realisation = realise(request)
    request.progress("bands and sources", 0.95)
    sky = observe(realisation, request.freqs_ghz, stokes=request.stokes, unit=request.unit)
    request.progress("done", 1.0)
    return sky


def check(
    *, freqs, nside, seed, geometry, components, stokes, kappa, cosmology, weights,
    flux_cut_mjy, unit, cmb_seed, device, progress,
) -> _Request:  # fmt: skip
    """Check every argument of `simulate` before any work; cheap ones first.

    Raises
    ------
    ValueError, RegistryError
        As `simulate` says.
    """
    from mlsky import foregrounds
    from mlsky.sources import catalogue
    from mlsky.sphere import kappa as given_kappa
    from mlsky.theory import cosmology as cosmologies

    freqs_ghz = bands.parse_freqs(freqs)
    grid = pixels.geometry(nside, geometry)
    names = fields.parse(components)
    stokes = fields.parse_stokes(stokes)
    unit = bands.parse_unit(unit)
    seed = seeds.check(seed)
    cmb_seed = seed if cmb_seed is None else seeds.check(cmb_seed, "cmb_seed")
    cut = catalogue.parse_flux_cut(flux_cut_mjy)
    _check_device(device)
    if progress is not None and not callable(progress):
        raise ValueError(f"progress={progress!r}: must be None or a function of (stage, fraction)")
    if not isinstance(weights, (str, os.PathLike)):
        raise ValueError(f"weights={weights!r}: must be a name, see mlsky weights list")
    weights = os.fspath(weights)
    given = None if kappa is None else given_kappa.parse(kappa)
    cosmos = cosmologies.parse(cosmology)
    chosen = foregrounds.select(weights, grid)

    shown = {
        "freqs": freqs_ghz.tolist(),
        "nside": getattr(grid, "nside", None),
        "seed": seed,
        "geometry": None if grid.kind == "healpix" else grid.shape,
        "components": None if components is None else list(names),
        "stokes": stokes,
        "kappa": None if given is None else "given",
        "cosmology": cosmology if isinstance(cosmology, str) else "given",
        "weights": weights,
        "flux_cut_mjy": cut,
        "unit": unit,
        "cmb_seed": None if cmb_seed == seed else cmb_seed,
    }
    defaults = {name: p.default for name, p in inspect.signature(simulate).parameters.items()}
    call = [f"{k}={v!r}" for k, v in shown.items() if k == "seed" or v != defaults[k]]
    return _Request(
        freqs_ghz=freqs_ghz,
        geometry=grid,
        seed=seed,
        cmb_seed=cmb_seed,
        components=names,
        stokes=stokes,
        unit=unit,
        kappa=given,
        cosmology=cosmos,
        weights=chosen,
        weights_name=weights,
        flux_cut_mjy=cut,
        device=device,
        progress=_silent if progress is None else progress,
        command=f"mlsky.simulate({', '.join(call)})",
    )


def realise(request: _Request) -> Realisation:
    """Everything random and everything slow: the sky at 148 GHz."""
    from mlsky import foregrounds

    progress = request.progress
    progress("spectra", 0.0)
    kappa_alm = _kappa_alm(request, foregrounds.kappa_lmax(request.weights))
    progress("networks", 0.15)
    made = foregrounds.generate(
        kappa_alm,
        request.geometry,
        weights=request.weights,
        seed=request.seed,
        components=tuple(name for name in request.components if name != "cmb"),
        device=request.device,
        progress=_span(progress, 0.15, 0.75),
    )
    maps = {name: values[np.newaxis] for name, values in made.maps.items()}
    if "cmb" in request.components:
        progress("lensing of the CMB", 0.75)
        maps["cmb"] = _lensed_cmb(request, made.kappa_alm)
    return Realisation(
        geometry=request.geometry,
        components=request.components,
        maps=maps,
        catalog=_wanted_sources(made.catalogue, request.components),
        kappa=made.kappa,
        flux_cut_mjy=request.flux_cut_mjy,
        meta=_provenance(request),
    )


def observe(
    realisation: Realisation, freqs_ghz: NDArray[np.float64], *, stokes: str, unit: str
) -> Sky:
    """The sky at the bands: scaling laws, sources painted, units; nothing random.

    Parameters
    ----------
    freqs_ghz
        (nfreq,), checked by `mlsky.bands.parse_freqs`.
    """
    from mlsky import scaling

    to_unit = bands.convert(freqs_ghz, "uK_CMB", unit)
    layers: dict[str, list[Layer]] = {name: [] for name in realisation.components}
    for name, values in realisation.maps.items():
        held = "TQU"[: len(values)]
        kept = "".join(s for s in held if s in stokes)
        if kept:
            if kept != held:
                values = values[[held.index(s) for s in kept]]
            law = scaling.factor(fields.COMPONENTS[name].scaling, freqs_ghz)
            layers[name].append(Layer(values[np.newaxis], (law * to_unit)[:, np.newaxis], kept))
    catalog = realisation.catalog
    if catalog is not None:
        flux_mjy = np.asarray(catalog["flux_mjy"])
        cut = realisation.flux_cut_mjy
        painted = np.ones(len(catalog), bool) if cut is None else flux_mjy <= cut
        for name, kind in KINDS.items():
            chosen = catalog[(np.asarray(catalog["kind"]) == kind) & painted]
            if name in layers and len(chosen):
                layers[name] += _source_layers(
                    chosen, realisation.geometry, freqs_ghz, stokes, to_unit
                )
        listed = flux_mjy >= CATALOG_MIN_MJY
        catalog = catalog[listed]
        catalog["in_map"] = painted[listed]
    return Sky(
        freqs_ghz=freqs_ghz,
        geometry=realisation.geometry,
        stokes=stokes,
        unit=unit,
        components=layers,
        kappa=realisation.kappa,
        catalog=catalog,
        meta={**realisation.meta, "unit": unit, "freqs_ghz": np.asarray(freqs_ghz).tolist()},
    )


def _source_layers(
    table: Table,
    geometry: pixels.Geometry,
    freqs_ghz: NDArray[np.float64],
    stokes: str,
    to_unit: NDArray[np.float64],
) -> list[Layer]:
    """Painted sources, kept as the pixels they touch: a source map is mostly empty.

    Painted band by band, so that one dense map exists at a time.
    """
    from mlsky.sources import catalogue

    theta, phi = np.radians(90.0 - np.asarray(table["dec"])), np.radians(np.asarray(table["ra"]))
    hit = np.unique(geometry.pixel(theta, phi))
    hit = hit[hit >= 0].astype(np.int64)
    templates = np.empty((len(freqs_ghz), len(stokes), len(hit)), dtype=np.float32)
    for row, nu_ghz in zip(templates, freqs_ghz, strict=True):
        painted = catalogue.paint(table, geometry, np.array([nu_ghz]), stokes)
        row[:] = painted.reshape(len(stokes), -1)[:, hit]
    return [Layer(templates, np.diag(to_unit).astype(np.float64), stokes, hit)]


def _kappa_alm(request: _Request, lmax: int) -> NDArray[np.complex128]:
    """Gaussian kappa up to `lmax`: drawn, with the user's own multipoles in place if given."""
    from mlsky.sphere import gaussian, kappa
    from mlsky.theory import spectra

    if request.kappa is not None and request.kappa.lmax >= lmax:
        return kappa.complete(request.kappa, lmax)
    cl = spectra.kappa_spectrum(lmax, cosmology=request.cosmology)
    request.progress("Gaussian kappa", 0.08)
    drawn = gaussian.draw_alm(cl, request.seed, field="kappa")
    return drawn if request.kappa is None else kappa.complete(request.kappa, lmax, drawn)


def _lensed_cmb(request: _Request, kappa_alm: NDArray[np.complex128]) -> NDArray[np.float32]:
    from mlsky.sphere import gaussian, lensing
    from mlsky.theory import spectra

    band_limit = min(request.geometry.lmax, CMB_LMAX - LENSING_MARGIN)
    lmax = band_limit + min(LENSING_MARGIN, band_limit // 6)
    cls = spectra.cmb_spectra(lmax, cosmology=request.cosmology)
    lensed = lensing.lens(gaussian.draw_cmb(cls, request.cmb_seed), kappa_alm, request.geometry)
    return lensed[:1] if request.stokes == "T" else lensed


def _wanted_sources(table: Table | None, names: tuple[str, ...]) -> Table | None:
    kinds = [kind for name, kind in KINDS.items() if name in names]
    if table is None or not kinds:
        return None
    return table[np.isin(np.asarray(table["kind"]), kinds)]


def _provenance(request: _Request) -> dict:
    """Plain JSON types only; no date, so that two runs give the same."""
    weights = request.weights
    return {
        "version": __version__,
        "seed": request.seed,
        "cmb_seed": request.cmb_seed,
        "weights": {
            "name": request.weights_name,
            "sha256": weights.sha256,
            "pixel_arcmin": float(weights.pixel_arcmin),
        },
        "cosmology": request.cosmology.to_dict(),
        "kappa": "drawn" if request.kappa is None else f"given up to l = {request.kappa.lmax}",
        "flux_cut_mjy": request.flux_cut_mjy,
        "geometry": outputs.describe_geometry(request.geometry),
        "command": request.command,
        "licence": LICENCE,
        "cite": CITE,
    }


def _check_device(device) -> None:
    name, _, index = str(device).partition(":")
    if name not in ("auto", "cpu", "cuda") or (index and not (name == "cuda" and index.isdigit())):
        raise ValueError(f"device={device!r}: must be 'auto', 'cpu', 'cuda' or 'cuda:N'")
    if name == "cuda":
        from mlsky.training.loop import pick_device

        pick_device(device)


def _span(progress: Progress, start: float, stop: float) -> Progress:
    """A progress for one stage that reports to the progress of the whole."""

    def inner(stage: str, fraction: float) -> None:
        progress(stage, start + (stop - start) * min(max(float(fraction), 0.0), 1.0))

    return inner


def _silent(stage: str, fraction: float) -> None:
    """No progress."""
