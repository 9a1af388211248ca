"""The simulation: `simulate` runs the stages in order, and `mlsky.sky.Sky` holds the result.

No physics lives here. In order: spectra, Gaussian kappa, networks
(`mlsky.painting.foregrounds`), lensing of the CMB by the sky's own kappa, bands
(`mlsky.observation`).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky import averages, component_plugins, edges, smoothing
from mlsky.frequency import cib_templates
from mlsky.io import content, hdf5, resources
from mlsky.io.disk_array import Array
from mlsky.io.store import Disk, Memory, Store
from mlsky.observation import Realisation, list_sources, observe
from mlsky.provenance import provenance
from mlsky.request import Request, check
from mlsky.signature import Arguments, Progress, takes
from mlsky.sky import Sky, finish
from mlsky.sources import catalogue
from mlsky.sphere import pixel_window

if TYPE_CHECKING:
    from astropy.table import Table

    from mlsky.component_plugins import Templates
    from mlsky.haloes.paint import HaloPainter

__all__ = [
    "Realisation",
    "ingredients",
    "list_sources",
    "observe",
    "realise",
    "run",
    "simulate",
]

#: Highest multipole of the unlensed CMB; above it the primary CMB is below 1e-3 uK^2 in D_l.
CMB_LMAX = 10000

#: Multipoles above the band limit whose power lensing moves below it. Below l = 3000 fewer suffice
#: (the deflection of 2.5' is small against the wavelength), and more would alias.
LENSING_MARGIN = 500

#: Highest multipole at which T and E are drawn given kappa. Above it the correlation is less than
#: 0.003; below it a nonlinear kappa of the user is Gaussian.
CMB_KAPPA_LMAX = 500

#: Multipoles of kappa that place the haloes, `mlsky.haloes.shells.LMAX`.
HALO_LMAX = 1024

#: Relativistic terms in the temperature of each cluster, in addition to the non-relativistic one.
TSZ_ORDER = 2

#: Components that are maps; "radio" is sources alone.
MAPS = ("cmb", "tsz", "ksz", "cib")

#: Entries of the provenance on which the maps at 148 GHz depend.
MADE_OF = (
    "version",
    "seed",
    "cmb_seed",
    "weights",
    "cosmology",
    "kappa",
    "haloes",
    "geometry",
    "monopole_off",
    "pixel_window",
    "plugins",
)


@takes(Arguments)
def simulate(asked: Arguments) -> Sky:
    """Simulate one sky: lensed CMB, kSZ, tSZ, CIB and radio sources, all correlated with its kappa.

    The same arguments give the same maps to the bit on one kind of machine and set of versions, and
    the same sky on all (docs/conventions); a seed's sky does not depend on bands or components, nor
    on `nside` while the same networks paint it (2' to nside 1024, 0.5' above).

    Parameters
    ----------
    freqs
        Bands, one or many, also mixed: frequencies as numbers in GHz or astropy Quantities,
        `mlsky.Band` for passbands, or names of them such as "so_lat/f150" (docs/bands).
    nside
        HEALPix resolution, a power of two; RING, equatorial. Or give `geometry`.
    seed
        Random seed, an integer >= 0.
    geometry
        ``(shape, wcs)`` of a CAR map, as from ``pixell.enmap.fullsky_geometry``.
    components
        Of "cmb", "tsz", "ksz", "cib", "radio", all of these by default; and names that other
        packages register (docs/plugins).
    stokes
        "TQU", "T" or "QU"; polarisation in the COSMO (HEALPix) convention.
    kappa
        Full-sky convergence to use instead of a random one, dimensionless and positive for an
        overdensity: a HEALPix RING map (used up to l = 2 nside), a CAR map as ``(map, wcs)`` or
        enmap, or a healpy-ordered complex alm. Foregrounds follow it and it lenses the CMB. Higher
        multipoles are drawn from `seed` as a Gaussian field.
    kappa_kind
        "gaussian": the networks turn it into a nonlinear one. "nonlinear", for example from an
        N-body simulation: it is used as it is. Without multipoles up to the Nyquist multipole of
        the networks' pixels (5400 to nside 1024, 10800 above) it has no cores of haloes, and
        clusters are too faint.
    fill_kappa
        Fill holes (NaN, UNSEEN) of a map with a Gaussian random field. Otherwise a map with holes
        is refused.
    cosmology
        "planck2018", another name, a dict such as ``{"sigma8": 0.8, "H0": 70}``, a
        `pyccl.Cosmology` or a `camb.CAMBparams`, see `mlsky.theory.parse`.
    weights
        Name of the networks, see ``mlsky weights list``.
    flux_cut_mjy
        Leave sources brighter than this at 148 GHz out of the maps, mJy.
    flux_cut
        The same in another band, ``(mJy, band)`` as (15, 150): out of the maps of all bands. Or a
        list of such pairs, one per band: each for the maps of its band alone.
    tsz_temperature_kev
        Electron temperature of the gas, keV or a Quantity, 0 to 15: relativistic corrections to the
        tSZ for gas of this one temperature. None for the non-relativistic limit.
    haloes
        Your own clusters instead of random ones, an astropy Table or dict of Quantities: "ra",
        "dec", "z", "m200m" and, if known, "velocity" (radial, positive if receding). Every column
        but "z" must state its unit. Haloes below the mass cut of the networks are ignored. With a
        nonlinear `kappa`, give the haloes that it contains.
    monopole
        Whether maps keep their mean over the sky. False subtracts the mean of the CIB, for use with
        dust models that already contain it (d9 to d11 of PySM). Or give the names, out of "tsz" and
        "cib", of the maps that keep their mean; () subtracts both. Sources in the catalogue are not
        changed.
    unit
        "uK_CMB", "K_CMB", "uK_RJ", "Jy/sr", "MJy/sr" or "y", the Compton parameter.
    beam
        Beam of the maps: FWHM in arcmin (or a Quantity), its transform b_l from l = 0 as an array,
        or a list of these, one per band; bands may have beams of their own (`mlsky.Band`). Every
        component then is one map per band. kappa has no beam. Part of the sky is made with what
        lies within 2.5 FWHM of it, and then cut.
    pixel_window
        True: every map is an average over its pixels, and has their window. False: samples at their
        centres, without it; with sources this needs a beam (docs/beams).
    cmb_seed
        Seed of the unlensed CMB; `seed` by default.
    device
        "auto", "cpu", "cuda" or "cuda:N", for the networks.
    progress
        Called as ``progress(stage, fraction)``.
    out
        A file, ``.h5`` or ``.fits`` as for `Sky.write`, to which the maps are written as they are
        made, so that the sky may be larger than memory. Unfinished work is kept in the folder
        ``out.partial`` beside it. Repeat an interrupted call to resume it; the result is the same
        to the bit. The file appears when it is complete.
    overwrite
        Replace `out` if it exists.
    check_resources
        Refuse a sky for which, by our estimate, memory or disk space does not suffice. False skips
        this check.

    Returns
    -------
    Sky
        `total` of shape (nfreq, nstokes, npix) or (nfreq, nstokes, ny, nx). With `out` the maps
        stay in that file and are read at each access.

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
    return run(check(asked))


def run(request: Request) -> Sky:
    """`simulate` with checked arguments."""
    # first, before anything is written: another package may fail in any way
    painted = replace(request, geometry=request.painted)
    others = _of_plugins(painted)
    for plugin, maps in others.values():
        plugin.at_bands(request.bands, len(maps))
    store = Memory() if request.out is None else _disk(request)
    finished = False
    try:
        realisation = realise(painted, store, others)
        request.progress("bands and sources", 0.95)
        sky = observe(realisation, request.bands, stokes=request.stokes, unit=request.unit)
        del realisation
        sky = edges.as_asked(sky, request, store)
        if request.out is not None:
            request.progress(f"writing {request.out.name}", 0.97)
            sky = finish(sky, store, request.out)
        finished = True
    finally:
        store.close(remove=finished)
    request.progress("done", 1.0)
    return sky


def _disk(request: Request) -> Disk:
    """The folder beside `request.out`, with room for the maps that stay in the sky."""
    shape, whole = request.geometry.shape, request.inside is None
    kept = {"kappa" if whole else edges.array_name("kappa"): ("kappa", shape)}
    for name in request.components:
        path = hdf5.template_path(name)
        if request.beams is not None:
            stokes = smoothing.stokes_of(name, request.stokes)
            if stokes:
                beamed = (len(request.bands), len(stokes), *shape)
                kept[smoothing.array_name(name)] = (path, beamed)
            continue
        stokes = request.stokes if name == "cmb" else "T"
        if name in MAPS and set(stokes) <= set(request.stokes):
            rows = cib_templates.map_count(request.weights.header) if name == "cib" else 1
            if name == "tsz" and _tsz_order(request) is not None:
                rows = 2 + TSZ_ORDER  # what networks paint, and the relativistic terms of clusters
            own = averages.last_name(name, request.pixel_window, request.monopole_off)
            kept[own if whole else edges.array_name(name)] = (path, (rows, len(stokes), *shape))
    return Disk(request.out, ingredients(request), kept)


def ingredients(request: Request) -> dict:
    """What the maps at 148 GHz depend on, in plain JSON types."""
    found = {k: v for k, v in provenance(request).items() if k in MADE_OF}
    found |= {"components": list(request.components), "stokes": request.stokes}
    if request.inside is not None:
        found["painted"] = content.describe_geometry(request.painted)
    if request.kappa is not None:
        given = request.kappa
        found["kappa values"] = hashlib.sha256(given.values.data).hexdigest()
        found["kappa kind"] = [given.kind, given.lmax, given.holes is not None]
    return found


def _workers(request: Request, haloes: int) -> int:
    """Number of charts painted at the same time."""
    return resources.chart_workers(
        request.geometry,
        request.weights.pixel_arcmin,
        request.components,
        request.stokes,
        request.out is not None,
        cib_templates.map_count(request.weights.header),
        haloes,
    )


def realise(
    request: Request, store: Store | None = None, others: Templates | None = None
) -> Realisation:
    """All random and slow steps: the sky at 148 GHz, with its maps in `store`.

    `others` are the templates of the plugins if they are made already.
    """
    from mlsky.painting import foregrounds
    from mlsky.sphere.multipoles import truncate
    from mlsky.theory import response

    progress = request.progress
    store = store or Memory()
    others = _of_plugins(request) if others is None else others
    progress("spectra", 0.0)
    lmax = foregrounds.kappa_lmax(request.weights)
    kappa_alm = [_kappa_alm(request, max(lmax, HALO_LMAX if request.weights.mass_cut else 0))]
    # a copy, even if it is all of it, so that the whole array can be freed
    large_scales = truncate(kappa_alm[0], CMB_KAPPA_LMAX).copy()
    changed = response.response(
        request.cosmology, request.weights.header, response.fields_of(request.components)
    )
    objects, clusters = _objects(request, kappa_alm[0])
    kappa_alm[0] = truncate(kappa_alm[0], lmax)
    made = foregrounds.generate(
        # freed here: above nside 1024 it takes a gigabyte, which the networks need
        kappa_alm.pop(),
        request.geometry,
        weights=request.weights,
        seed=request.seed,
        nonlinear=request.kappa is not None and request.kappa.kind == "nonlinear",
        response=changed,
        objects=objects,
        components=tuple(name for name in request.components if name != "cmb"),
        device=request.device,
        progress=_span(progress, 0.15, 0.75),
        store=store,
        workers=_workers(request, 0 if clusters is None else len(clusters)),
        averaged=request.pixel_window,
    )
    del objects  # a gigabyte that lensing needs
    shape = (1, *request.geometry.shape)  # each has T alone
    maps = {
        name: values.reshape(int(np.prod(values.shape)) // request.geometry.npix, *shape)
        for name, values in made.maps.items()
    }
    for name in set(request.monopole_off) & set(maps):
        maps[name] = averages.without_mean(name, maps[name], request.geometry, store)
    if not request.pixel_window:
        maps = {
            n: averages.sampled(n, values, request.geometry, store) for n, values in maps.items()
        }
    if "cmb" in request.components:
        progress("lensing of the CMB", 0.75)
        cmb = _lensed_cmb(request, large_scales, made.kappa_alm, store)
        maps["cmb"] = cmb.reshape(1, *cmb.shape)
    return Realisation(
        geometry=request.geometry,
        components=request.components,
        maps=maps,
        catalog=_wanted_sources(made.catalogue, request.components),
        clusters=clusters,
        kappa=made.kappa,
        flux_cuts=request.flux_cuts,
        cut_per_band=request.cut_per_band,
        others=others,
        tsz_temperature_kev=request.tsz_temperature_kev,
        meta=provenance(request),
        cib=cib_templates.of_header(request.weights.header),
    )


def _of_plugins(request: Request) -> Templates:
    return component_plugins.templates(
        request.plugins, request.geometry, request.seed, request.pixel_window, request.progress
    )


def _objects(
    request: Request, kappa_alm: NDArray[np.complex128]
) -> tuple[HaloPainter | None, Table | None]:
    """Haloes to paint and their table, for weights that leave clusters out; otherwise None."""
    if not request.weights.mass_cut:
        return None, None
    request.progress("haloes", 0.1)
    from mlsky.haloes import catalogue
    from mlsky.haloes import tables as halo_tables
    from mlsky.painting import finer
    from mlsky.painting.objects import objects_of_sky
    from mlsky.sphere import gaussian
    from mlsky.theory import presets, spectra

    preset = presets.check_truth(request.weights.header.get("truth"))
    tables = halo_tables.of(request.cosmology, preset)
    cl = spectra.kappa_spectrum(gaussian.alm_lmax(kappa_alm), cosmology=request.cosmology)
    haloes, objects = objects_of_sky(
        kappa_alm,
        cl,
        request.seed,
        weights=request.weights,
        tables=tables,
        geometry=request.geometry,
        components=request.components,
        halved=finer.halves_pixels(request.weights, request.geometry),
        tsz_order=_tsz_order(request),
        given=request.haloes,
    )
    if request.geometry.kind != "healpix":  # those on the map are listed
        haloes = haloes[request.geometry.pixel(haloes.theta, haloes.phi) >= 0]
    return objects, catalogue.table(haloes, tables, request.weights.mass_cut)


def _tsz_order(request: Request) -> int | None:
    """Highest power of their temperature in the tSZ of clusters; None if they have none."""
    hot = request.tsz_temperature_kev is not None and request.weights.mass_cut
    return TSZ_ORDER if hot else None


def _kappa_alm(request: Request, lmax: int) -> NDArray[np.complex128]:
    """The kappa that the networks start from, up to `lmax`: random, or the user's."""
    from mlsky.sphere import gaussian, kappa
    from mlsky.theory import spectra

    if request.kappa is not None and request.kappa.lmax >= lmax and request.kappa.holes is None:
        return kappa.complete(request.kappa, lmax)
    cl = spectra.kappa_spectrum(lmax, cosmology=request.cosmology)
    request.progress("Gaussian kappa", 0.08)
    drawn = gaussian.draw_alm(cl, request.seed, field="kappa")
    return drawn if request.kappa is None else kappa.complete(request.kappa, lmax, drawn)


def _lensed_cmb(
    request: Request,
    large_scales: NDArray[np.complex128],
    kappa_alm: NDArray[np.complex128],
    store: Store,
) -> Array:
    """The CMB drawn given the Gaussian kappa on large scales, lensed by the whole kappa."""
    from mlsky.sphere import cmb, lensing
    from mlsky.theory import spectra

    band_limit = min(request.geometry.lmax, CMB_LMAX - LENSING_MARGIN)
    lmax = band_limit + min(LENSING_MARGIN, band_limit // 6)
    cls = spectra.cmb_spectra(lmax, cosmology=request.cosmology)
    polarised = request.stokes != "T"
    cmb_alm = cmb.draw_cmb(cls, request.cmb_seed, large_scales, polarised=polarised)
    rows = ["TQU".index(s) for s in request.stokes]
    geometry, inside = request.geometry, None
    if request.pixel_window:
        geometry, inside = pixel_window.padded(geometry)
    name = "cmb" if inside is None else "cmb_padded"
    lensed = store.array(name, (len(rows), *geometry.shape))
    for pixel, values in lensing.pieces(cmb_alm, kappa_alm, geometry):
        for number, row in enumerate(rows):
            lensed.put(pixel + number * geometry.npix, values[row])
    del cmb_alm  # room for those of the maps
    if request.pixel_window:
        out = lensed if inside is None else store.array("cmb", (len(rows), *request.geometry.shape))
        pixel_window.average(lensed, request.stokes, geometry, inside, out, band_limit)
        return out
    return lensed


def _wanted_sources(table: Table | None, names: tuple[str, ...]) -> Table | None:
    kinds = [kind for name, kind in catalogue.COMPONENTS.items() if name in names]
    if table is None or not kinds:
        return None
    return table[np.isin(np.asarray(table["kind"]), kinds)]


def _span(progress: Progress, start: float, stop: float) -> Progress:
    """A progress function for one stage, as part of the whole."""

    def inner(stage: str, fraction: float) -> None:
        progress(stage, start + (stop - start) * min(max(float(fraction), 0.0), 1.0))

    return inner
