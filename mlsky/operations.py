"""What can be done with a finished sky: flux cuts, masks, multipoles, spectra.

`mlsky.sky.Sky` has the methods of `Operations`. Nothing here draws anything; skies on disk stay
there, and the sky that is given stays as it is.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky import arguments, harmonics, smoothing
from mlsky.frequency import passbands
from mlsky.io.layers import TOTAL, Layer
from mlsky.sources import catalogue, cuts
from mlsky.sphere import discs

if TYPE_CHECKING:
    from astropy.table import Table
    from pixell.enmap import ndmap

    from mlsky.frequency.passbands import Band
    from mlsky.sky import Sky

__all__ = ["Operations"]

#: Quantile of the colours of listed sources by which it is told down to what flux in another band
#: the catalogue is complete. Our choice.
COLOUR_QUANTILE = 0.999


def _without_sources(sky: Sky, mjy: float, nu_ghz) -> tuple[dict[str, list[Layer]], Table]:
    """Layers and catalogue of a sky without the sources above a flux in a band.

    Parameters
    ----------
    mjy
        Sources brighter than this are taken out, mJy or a Quantity.
    nu_ghz
        The band: a frequency, a `Band` or a name.

    Raises
    ------
    ValueError
        If the sky has no components or catalogue, or the catalogue is not complete to that flux.
    """
    table = _catalogue_of(sky, "a flux cut")
    if sky.meta.get("beams"):
        raise ValueError(
            "cut: the sources of this sky have a beam, which hides where they are; cut the sky "
            "before it gets the beam, or give simulate flux_cut="
        )
    band = _one_band(nu_ghz)
    cut = arguments.number(
        "mjy", mjy, "a flux in mJy, positive, for example 15", 0, np.inf, unit="mJy"
    )
    bright = _fluxes(table, band, cut) > cut
    gone = np.stack([cuts.in_band(table, i) & bright for i in range(len(sky.bands))], 1)
    layers = {name: list(held) for name, held in sky.layers.items()}
    for name, kind in catalogue.COMPONENTS.items():
        some = gone.any(1) & (np.asarray(table["kind"]) == kind)
        for number, layer in enumerate(layers.get(name, ())):
            if layer.pixels is not None and some.any():
                layers[name][number] = _subtracted(layer, table[some], sky, gone[some])
    listed = table.copy()
    listed["in_map"] = np.asarray(table["in_map"]) & ~bright
    if "in_bands" in table.colnames:
        listed["in_bands"] = np.asarray(table["in_bands"]) & ~bright[:, np.newaxis]
    return layers, listed


def _subtracted(layer: Layer, sources: Table, sky: Sky, gone: NDArray[np.bool_]) -> Layer:
    """A layer of sources without some of them, in the bands where they are `gone`."""
    hit, values = catalogue.paint_sparse(sources, sky.geometry, sky.bands, layer.stokes, gone)
    templates = np.array(layer.templates, np.float32)
    place = np.searchsorted(layer.pixels, hit)
    templates[:, :, place] -= values
    if "T" in layer.stokes:  # what rounding leaves of a bright source may be negative
        row = templates[:, layer.stokes.index("T")]
        np.maximum(row, 0, out=row)
    return dataclasses.replace(layer, templates=templates)


def _mask(
    sky: Sky,
    flux_mjy: float | None,
    nu_ghz,
    radius_arcmin: float,
    cluster_mass: float | None,
    cluster_radius: float,
) -> NDArray[np.bool_]:
    """Which pixels of a sky are farther from bright sources and massive clusters than a radius.

    As `Operations.mask`.
    """
    positive = "a positive number, for example 5"
    radius = arguments.number("radius_arcmin", radius_arcmin, positive, 1e-3, 600, unit="arcmin")
    centres = [np.empty((0, 3))]  # ra, dec, radius, all in degrees
    if flux_mjy is not None:
        table = _catalogue_of(sky, "a mask of sources")
        band = _one_band(nu_ghz)
        cut = arguments.number(
            "flux_mjy", flux_mjy, "a flux in mJy, positive, for example 15", 0, np.inf, unit="mJy"
        )
        bright = table[_fluxes(table, band, cut) > cut]
        centres.append(_discs(bright, np.full(len(bright), radius / 60)))
    if cluster_mass is not None:
        least = arguments.number(
            "cluster_mass", cluster_mass, "M500c in Msun, for example 2e14", 0, np.inf, unit="Msun"
        )
        scale = arguments.number("cluster_radius", cluster_radius, positive, 1e-3, 100)
        if sky.clusters is None:
            raise ValueError(
                "cluster_mass: this sky lists no clusters, as its weights paint them; give weights "
                "that leave them out (mlsky weights list)"
            )
        heavy = sky.clusters[np.asarray(sky.clusters["m500c"]) > least]
        theta = scale * np.asarray(heavy["theta500"], np.float64)
        centres.append(_discs(heavy, np.maximum(theta, radius) / 60))
    return discs.outside(sky.geometry, np.concatenate(centres))


def _catalogue_of(sky: Sky, what: str) -> Table:
    if sky.catalog is None:
        raise ValueError(
            f"{what} needs the catalogue of sources: make the sky with components 'cib' or 'radio'"
        )
    if not any(name in sky.layers for name in catalogue.COMPONENTS):
        raise ValueError(
            f"{what} needs the components of a sky, and this one holds the total alone: use the "
            "HDF5 file"
        )
    return sky.catalog


def _one_band(nu_ghz) -> passbands.Band:
    found = passbands.parse(nu_ghz)
    if len(found) != 1:
        raise ValueError(f"nu_ghz={arguments.short(nu_ghz)}: must be one band or frequency")
    return found[0]


def _fluxes(table: Table, band: passbands.Band, cut: float) -> NDArray[np.float64]:
    """Fluxes (mJy) of listed sources in a band; a cut below which not all are listed is refused."""
    flux = catalogue.band_fluxes(table, band)[0]
    if not len(table):
        return flux
    colour = np.quantile(flux / np.asarray(table["flux_mjy"]), COLOUR_QUANTILE)
    complete = catalogue.LISTED_MJY * float(colour)
    if cut < complete:
        raise ValueError(
            f"{cut:g} mJy in the band {band.label}: the catalogue lists sources above "
            f"{catalogue.LISTED_MJY:g} mJy at 148 GHz, which is all above {complete:.2g} mJy there"
        )
    return flux


def _discs(table: Table, radius_deg: NDArray) -> NDArray[np.float64]:
    """(n, 3): right ascension, declination and radius in degrees."""
    return np.stack(
        [np.asarray(table["ra"], float), np.asarray(table["dec"], float), radius_deg], 1
    )


class Operations:
    """The methods of `mlsky.sky.Sky` that make something else of it."""

    def to_enmap(self, component: str | None = None, convention: str = "COSMO") -> ndmap:
        """The total, or one component, as a map of pixell with its WCS.

        Parameters
        ----------
        component
            A name; None for the total.
        convention
            Polarisation convention: "COSMO", as in the sky, or "IAU", in which U has the opposite
            sign, as in the maps of ACT.

        Returns
        -------
        pixell.enmap.ndmap
            (nfreq, nstokes, ny, nx) float32, in `unit`, a new array.

        Raises
        ------
        ValueError
            If the sky is on HEALPix pixels, or the convention is unknown.
        """
        if self.geometry.kind != "car":
            raise ValueError(
                f"to_enmap: this sky is on HEALPix pixels, nside={self.geometry.nside}; use "
                "to_healpix, or simulate with geometry=(shape, wcs)"
            )
        from pixell import enmap

        return enmap.ndmap(self._maps(component, convention), self.geometry.wcs.deepcopy())

    def to_healpix(
        self, component: str | None = None, nest: bool = False, convention: str = "COSMO"
    ) -> NDArray[np.float32]:
        """The total, or one component, as HEALPix maps.

        Parameters
        ----------
        component
            A name; None for the total.
        nest
            NESTED instead of RING order.
        convention
            Of polarisation, as for `to_enmap`.

        Returns
        -------
        ndarray
            (nfreq, nstokes, npix) float32, in `unit`, a new array.

        Raises
        ------
        ValueError
            If the sky is on rectangular pixels, or the convention is unknown.
        """
        if self.geometry.kind != "healpix":
            raise ValueError(
                "to_healpix: this sky is on rectangular pixels; use to_enmap, or simulate with "
                "nside="
            )
        nest = arguments.boolean("nest", nest)
        maps = self._maps(component, convention)
        if nest:
            import healpy

            order = healpy.nest2ring(self.geometry.nside, np.arange(self.geometry.npix))
            maps = maps[..., order]
        return maps

    def cut(self, mjy: float, nu_ghz: float | str | Band = 148.0) -> Sky:
        """This sky without the sources that are brighter than a flux in a band.

        Parameters
        ----------
        mjy
            Flux in mJy, or a Quantity.
        nu_ghz
            The band of that flux: a frequency, a `Band` or the name of one.

        Returns
        -------
        Sky
            The maps of the other components are shared with this one; those that were taken out
            have `in_map` False in its catalogue.

        Raises
        ------
        ValueError
            If the sky holds the total alone or no sources, or the cut is below what the catalogue,
            which lists sources above 1 mJy at 148 GHz, is complete to in that band.
        """
        layers, table = _without_sources(self, mjy, nu_ghz)
        cuts = [*self.meta.get("cuts", []), f"{mjy} mJy at {passbands.parse(nu_ghz)[0].label}"]
        return self._with(layers, catalog=table, meta={**self.meta, "cuts": cuts})

    def mask(
        self,
        flux_mjy: float | None = 15.0,
        nu_ghz: float | str | Band = 150.0,
        radius_arcmin: float = 5.0,
        *,
        cluster_mass: float | None = None,
        cluster_radius: float = 1.0,
    ) -> NDArray[np.bool_]:
        """Where the sky is far from bright sources, as ACT masks them, and from massive clusters.

        The defaults are those of the power spectra of ACT DR6: holes of 5' round sources above
        15 mJy at 150 GHz (Louis et al. 2025, arXiv:2503.14452).

        Parameters
        ----------
        flux_mjy
            Flux in mJy above which sources are masked; None for none.
        nu_ghz
            The band of that flux: a frequency, a `Band` or the name of one.
        radius_arcmin
            Radius of the holes.
        cluster_mass
            M500c in Msun above which clusters are masked; None for none.
        cluster_radius
            Radius of their holes in units of theta500, `radius_arcmin` at least.

        Returns
        -------
        ndarray
            (*shape,) bool, True where the sky is kept.

        Raises
        ------
        ValueError
            If the sky lists no sources, or no clusters, or the flux is below what the catalogue is
            complete to.
        """
        return _mask(self, flux_mjy, nu_ghz, radius_arcmin, cluster_mass, cluster_radius)

    def alm(
        self, index: int | str = 0, component: str | None = None, lmax: int | None = None
    ) -> NDArray[np.complex128]:
        """Multipoles of one band, in healpy's order.

        Parameters
        ----------
        index
            Number of the band, or its name.
        component
            A name; None for the total.
        lmax
            Band limit; that of the pixels by default.

        Returns
        -------
        ndarray
            (n, nalm) complex128 in `unit`: T; E and B; or T, E and B, by the Stokes parameters. A
            cut-out is analysed as if the rest of the sky were zero.

        Raises
        ------
        ValueError
            If the pixels are not HEALPix or cylindrical, or `lmax` is beyond theirs.
        """
        return harmonics.alm(self, index, component, lmax)

    def smooth(self, beam, component: str | None = None) -> Sky:
        """This sky with a beam.

        Fields are multiplied by the beam's transform in multipoles. Sources of the catalogue are
        painted with its profile at their places, so nothing rings round them. The pixel window
        stays as it is in the sky, also for sources.

        Parameters
        ----------
        beam
            FWHM of a Gaussian in arcmin (or a Quantity), or its transform b_l from l = 0 as an
            array; or a list of these, one per band.
        component
            A name; None for the total.

        Returns
        -------
        Sky
            Of the total, or of this component, alone: one map per band. kappa has no beam. Within
            a few FWHM of its edge a cut-out lacks what lies beyond.

        Raises
        ------
        ValueError
            For a beam that is not positive and finite, a table that ends too early, another number
            of beams than of bands, pixels that are not HEALPix or cylindrical, or a sky that holds
            the total alone.
        """
        layer, told = smoothing.smoothed(self, beam, component)
        name = TOTAL if component is None else component
        return self._with({name: [layer]}, meta={**self.meta, "beams": told})

    def spectra(
        self, component: str | None = None, lmax: int | None = None
    ) -> dict[str, NDArray[np.float64]]:
        """Power spectra of all bands, and between them.

        Parameters
        ----------
        component
            A name; None for the total.
        lmax
            Band limit; that of the pixels by default.

        Returns
        -------
        dict
            "TT", "EE", "TE", ... by the Stokes parameters: (nfreq, nfreq, lmax + 1) float64, plain
            C_l in `unit` squared. The pixel window is in them. Cut-outs have their mean removed and
            their edges tapered, and are divided by the mean square of the taper: multipoles below
            pi over the shorter side are not resolved.

        Raises
        ------
        ValueError
            As `alm`.
        """
        return harmonics.spectra(self, component, lmax)

    def _maps(self, component: str | None, convention: str) -> NDArray[np.float32]:
        """Maps of all bands in a polarisation convention."""
        convention = arguments.choice("convention", convention, ("COSMO", "IAU"))
        maps = self[TOTAL if component is None else component]
        if convention == "IAU" and "U" in self.stokes:
            u = maps[:, self.stokes.index("U")]
            np.negative(u, out=u)
        return maps
