"""Checks of the arguments of `mlsky.simulate`, and their conversion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky import arguments, component_plugins, seeds, smoothing
from mlsky import components as fields
from mlsky.frequency import cib_templates, passbands
from mlsky.io import resources, skies
from mlsky.signature import DEFAULTS, Arguments, Progress
from mlsky.sphere import beams as beam_shapes
from mlsky.sphere import geometry as pixels
from mlsky.sphere import margins
from mlsky.sphere.pixel_window import RADIUS

if TYPE_CHECKING:
    from mlsky.networks.weights import Weights
    from mlsky.sphere.kappa import InputKappa
    from mlsky.sphere.margins import Inside
    from mlsky.theory.parameters import Cosmology

__all__ = ["Request", "check", "count_haloes"]

#: Fraction of the sphere that the pixels of a full-sky map may miss.
FULL_SKY = 1e-3


@dataclass(frozen=True, eq=False)
class Request:
    """The arguments of `simulate`, checked.

    Attributes
    ----------
    geometry, painted, inside
        Pixels that are asked for, those on which the sky is painted so that it is right up to the
        edges, and where the former lie in the latter, as `mlsky.sphere.margins.widened`.
    """

    bands: tuple[passbands.Band, ...]
    geometry: pixels.Geometry
    painted: pixels.Geometry
    inside: Inside | None
    seed: int
    cmb_seed: int
    components: tuple[str, ...]
    plugins: tuple[component_plugins.Loaded, ...]
    stokes: str
    unit: str
    kappa: InputKappa | None
    cosmology: object
    weights: object
    weights_name: str
    flux_cuts: tuple[tuple[float, passbands.Band], ...] | None
    cut_per_band: bool
    beams: tuple[beam_shapes.Beam, ...] | None
    pixel_window: bool
    tsz_temperature_kev: float | None
    haloes: dict[str, NDArray[np.float64]] | None
    monopole_off: tuple[str, ...]
    device: str
    progress: Progress
    out: Path | None
    command: str

    @property
    def flux_cuts_told(self) -> list[list]:
        """The cuts in plain types: mJy, and a name or the points of the band."""
        return [
            [mjy, band.label if band.name is None and band.is_single else band.to_dict()]
            for mjy, band in self.flux_cuts or ()
        ]

    def memory(self, workers: int = 1) -> dict[str, float]:
        """Bytes at the peak of each stage, maps on disk, with so many charts at a time."""
        return resources.memory(
            self.painted,
            self.weights.pixel_arcmin,
            self.components,
            self.stokes,
            on_disk=True,
            cib_maps=cib_templates.map_count(self.weights.header),
            haloes=count_haloes(self.haloes, self.weights.mass_cut),
            workers=workers,
            nfreq=len(self.bands),
            pixel_window=self.pixel_window,
            beams=self.beams is not None,
            others=[plugin.stokes for plugin in self.plugins],
        )


def check(asked: Arguments) -> Request:
    """Check every argument of `mlsky.simulate` before any work starts, cheap ones first.

    Raises
    ------
    ValueError, RegistryError
        See `mlsky.simulate`.
    """
    from mlsky.frequency import relativistic
    from mlsky.painting import foregrounds
    from mlsky.sources import cuts
    from mlsky.sphere import kappa as given_kappa
    from mlsky.theory import cosmology as cosmologies
    from mlsky.theory import presets, response

    bands = passbands.parse(asked.freqs)
    grid = pixels.geometry(asked.nside, asked.geometry)
    own, plugins = component_plugins.split(asked.components)
    names = () if plugins and not own else fields.parse(own, component_plugins.names())
    stokes = fields.parse_stokes(asked.stokes)
    unit = passbands.parse_unit(asked.unit)
    passbands.convert(bands, "uK_CMB", unit)  # y has none where tSZ is null
    seed = seeds.check(asked.seed)
    cmb_seed = seed if asked.cmb_seed is None else seeds.check(asked.cmb_seed, "cmb_seed")
    found_cuts = cuts.parse(asked.flux_cut_mjy, asked.flux_cut, bands)
    window = arguments.boolean("pixel_window", asked.pixel_window)
    beams = _check_beams(asked.beam, bands, grid, names, window)
    painted, inside = _painted_on(grid, beams, window)
    temperature = relativistic.parse_temperature(asked.tsz_temperature_kev)
    monopole_off = _means_off(asked.monopole, grid)
    _check_device(asked.device)
    progress = asked.progress
    if progress is not None and not callable(progress):
        shown = arguments.short(progress)
        raise ValueError(f"progress={shown}: must be None or a function of (stage, fraction)")
    overwrite = arguments.boolean("overwrite", asked.overwrite)
    out = None if asked.out is None else skies.check(asked.out, overwrite)
    weights = str(arguments.path("weights", asked.weights, "a name, see mlsky weights list"))
    kappa_kind, fill_kappa = given_kappa.check_options(asked.kappa_kind, asked.fill_kappa)
    given = None if asked.kappa is None else given_kappa.parse(asked.kappa, kappa_kind, fill_kappa)
    cosmos = cosmologies.parse(asked.cosmology)
    chosen = foregrounds.select(weights, grid)
    preset = presets.check_truth(chosen.header.get("truth"))
    response.check(cosmos, chosen.header, response.fields_of(names))
    clusters = _check_haloes(asked.haloes, chosen, given, cosmos, preset)
    cib_maps = cib_templates.map_count(chosen.header)
    number = count_haloes(clusters, chosen.mass_cut)
    if arguments.boolean("check_resources", asked.check_resources):
        request = (painted, chosen.pixel_arcmin, names, stokes, len(bands), out, cib_maps, number)
        resources.check(
            *request,
            pixel_window=window,
            beams=beams is not None,
            cut=None if inside is None else grid,
            monopole_off=monopole_off,
            others=[plugin.stokes for plugin in plugins],
        )

    shown = {
        "freqs": [_shown_band(band) for band in bands],
        "nside": getattr(grid, "nside", None),
        "seed": seed,
        "geometry": None if grid.kind == "healpix" else grid.shape,
        "components": None if asked.components is None else [*names, *(p.name for p in plugins)],
        "stokes": stokes,
        "kappa": None if given is None else "given",
        "kappa_kind": "gaussian" if given is None else kappa_kind,
        "fill_kappa": given is not None and given.holes is not None,
        "cosmology": asked.cosmology if isinstance(asked.cosmology, str) else "given",
        "weights": weights,
        "flux_cut_mjy": None if asked.flux_cut_mjy is None else found_cuts[0][0],
        "flux_cut": None if asked.flux_cut is None else "given",
        "tsz_temperature_kev": temperature,
        "haloes": None if clusters is None else "given",
        "monopole": _shown(asked.monopole),
        "unit": unit,
        "beam": None if beams is None else "given",
        "pixel_window": window,
        "cmb_seed": None if cmb_seed == seed else cmb_seed,
        "out": None if out is None else out.name,
    }
    call = [f"{k}={v!r}" for k, v in shown.items() if k == "seed" or v != DEFAULTS[k]]
    return Request(
        bands=bands,
        geometry=grid,
        painted=painted,
        inside=inside,
        seed=seed,
        cmb_seed=cmb_seed,
        components=names,
        plugins=plugins,
        stokes=stokes,
        unit=unit,
        kappa=given,
        cosmology=cosmos,
        weights=chosen,
        weights_name=weights,
        flux_cuts=found_cuts,
        cut_per_band=asked.flux_cut is not None and cuts.is_per_band(asked.flux_cut),
        beams=beams,
        pixel_window=window,
        tsz_temperature_kev=temperature,
        haloes=clusters,
        monopole_off=monopole_off,
        device=asked.device,
        progress=_silent if progress is None else progress,
        out=out,
        command=f"mlsky.simulate({', '.join(call)})",
    )


def _check_beams(
    beam, bands: tuple[passbands.Band, ...], grid: pixels.Geometry, names, pixel_window: bool
) -> tuple[beam_shapes.Beam, ...] | None:
    """The beam of each band, given at once or by the bands; None for none."""
    own = [band.beam for band in bands]
    if beam is not None and any(own):
        raise ValueError("beam= beside bands that have beams: give one of the two")
    if beam is None and not any(own):
        if not pixel_window and set(names) & {"cib", "radio"}:
            raise ValueError(
                "pixel_window=False without beams: point sources have no samples but with a beam; "
                "give beam= (FWHM in arcmin), or components without sources"
            )
        return None
    if beam is None and not all(own):
        without = next(band.label for band in bands if band.beam is None)
        raise ValueError(f"band {without} has no beam and others have: give every band one")
    found = tuple(beam_shapes.parse(own if beam is None else beam, len(bands)))
    if grid.kind == "car" and not grid.cylindrical:
        raise ValueError(
            "beams need HEALPix or cylindrical pixels (CAR, CEA, ...); this map has other ones"
        )
    for one in found:
        one.transform(grid.lmax)  # a table may end too early
    smoothing.warn_narrow(found, grid)
    return found


def _painted_on(
    grid: pixels.Geometry, beams: tuple[beam_shapes.Beam, ...] | None, pixel_window: bool
) -> tuple[pixels.Geometry, Inside | None]:
    """The map with what beams, and the filter that takes the window off, need round it."""
    if beams is None and pixel_window:
        return grid, None
    reach = max((one.radius_arcmin for one in beams or ()), default=0.0)
    return margins.widened(grid, RADIUS, reach)


def _check_haloes(
    haloes, weights: Weights, kappa: InputKappa | None, cosmology: Cosmology, preset: str
):
    """Columns of the user's haloes, checked against the weights and kappa."""
    if weights.mass_cut is None:
        if haloes is not None:
            raise ValueError(
                "haloes= with weights that paint clusters themselves: use weights that leave "
                "them out (mlsky weights list), or no haloes"
            )
        return None
    nonlinear = kappa is not None and kappa.kind == "nonlinear"
    if haloes is None:
        if nonlinear:
            raise ValueError(
                "kappa_kind='nonlinear' without haloes: these weights leave clusters out; give "
                "haloes=, the clusters of that kappa, or use weights that paint all, as default@v4"
            )
        return None
    from mlsky.haloes import catalogue, paint, tables

    least = int(paint.FADE[0] * 10800 / weights.pixel_arcmin)
    if nonlinear and kappa.lmax < least:
        raise ValueError(
            f"kappa up to l = {kappa.lmax} with kappa_kind='nonlinear' and haloes: their cores are "
            f"taken off it up to l = {least} on the networks' pixels of {weights.pixel_arcmin:g} "
            "arcmin; give a finer kappa, or kappa_kind='gaussian'"
        )
    return catalogue.check(haloes, tables.of(cosmology, preset))


def count_haloes(given: dict | None, mass_cut: float | None) -> int:
    """Approximate number of objects in a sky, without drawing them.

    Parameters
    ----------
    given
        Haloes of the user, checked; None for random ones.
    mass_cut
        Of the weights; None if they paint every halo.
    """
    if mass_cut is None:
        return 0
    from mlsky.haloes import tables
    from mlsky.theory.objects import check_mass_cut, is_object

    t = tables.load()
    check_mass_cut(mass_cut, t["log10_mass"], "mass_cut of the weights")
    if given is not None:
        return len(given["z"])
    objects = is_object(t["z"], t["log10_mass"], mass_cut)
    return round(4 * np.pi * float(t["number"][objects].sum(dtype=np.float64)))


def _means_off(monopole, grid: pixels.Geometry) -> tuple[str, ...]:
    """Names of the maps whose mean is subtracted."""
    off = fields.parse_monopole(monopole)
    if off and grid.kind != "healpix" and abs(grid.area().sum() / (4 * np.pi) - 1) > FULL_SKY:
        raise ValueError(
            f"monopole={monopole!r}: the mean over the sky needs a map of the full sky; "
            "make one and cut it, or keep monopole=True"
        )
    return off


def _check_device(device) -> None:
    name, _, index = str(device).partition(":")
    if name not in ("auto", "cpu", "cuda") or (index and not (name == "cuda" and index.isdigit())):
        shown = arguments.short(device)
        raise ValueError(f"device={shown}: must be 'auto', 'cpu', 'cuda' or 'cuda:N'")
    if name == "cuda":
        from mlsky.networks.device import pick_device

        pick_device(device)


def _shown(monopole) -> bool | str | tuple:
    if isinstance(monopole, (bool, np.bool_)):
        return bool(monopole)
    return monopole if isinstance(monopole, str) else tuple(monopole)


def _shown_band(band: passbands.Band) -> float | str:
    """A band in the call that the provenance shows; `Sky.bands` has its points."""
    if band.name is not None or not band.is_single:
        return band.label
    return float(band.nu_ghz[0])


def _silent(stage: str, fraction: float) -> None:
    """No progress."""
