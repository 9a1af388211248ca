"""What can be done with a finished sky: flux cuts, masks, multipoles, spectra.

`mlsky.sky.Sky` has the methods of `Operations`. Nothing here draws anything; skies on disk stay
there, and the sky that is given stays as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky import arguments, bright_sources, harmonics, seeds, smoothing, subtraction
from mlsky.components import REFERENCE_GHZ
from mlsky.frequency import passbands
from mlsky.io.layers import TOTAL
from mlsky.sources import writers
from mlsky.sphere import beams

if TYPE_CHECKING:
    import os

    from pixell.enmap import ndmap

    from mlsky.frequency.passbands import Band
    from mlsky.sky import Sky

__all__ = ["Operations"]


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

    def cut(self, mjy: float, nu_ghz: float | str | Band = REFERENCE_GHZ) -> Sky:
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
        layers, table = bright_sources.without_sources(self, mjy, nu_ghz)
        cuts = [*self.meta.get("cuts", []), f"{mjy} mJy at {passbands.parse(nu_ghz)[0].label}"]
        return self._with(layers, catalog=table, meta={**self.meta, "cuts": cuts})

    def mask(
        self,
        flux_mjy: float | None = 15.0,
        nu_ghz: float | str | Band = REFERENCE_GHZ,
        radius_arcmin: float = 5.0,
        *,
        cluster_mass: float | None = None,
        cluster_radius: float = 1.0,
    ) -> NDArray[np.bool_]:
        """Where the sky is far from bright sources, as ACT masks them, and from massive clusters.

        Flux and radius are by default those of the power spectra of ACT DR6: holes of 5' round
        sources above 15 mJy at 150 GHz (Louis et al. 2025, arXiv:2503.14452); the frequency is that
        of every flux here, 148 GHz.

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
        return bright_sources.mask(
            self, flux_mjy, nu_ghz, radius_arcmin, cluster_mass, cluster_radius
        )

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
            two FWHM of its edges a cut-out lacks what lies beyond; what `mlsky.simulate` makes with
            ``beam=`` does not.

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

    def subtract(
        self,
        snr: float = 5.0,
        *,
        noise_uk_arcmin: float | list[float],
        beam,
        band: int | str | None = None,
        seed: int = 0,
    ) -> Sky:
        """This sky after its bright sources were found in noisy maps and subtracted.

        A source is found if its measured flux in one band is `snr` times its error or more. What is
        measured, with an error in every band, is then subtracted; minus the errors stays in the
        maps. The noise itself is not added.

        Parameters
        ----------
        snr
            Least signal to noise.
        noise_uk_arcmin
            White noise of T in uK_CMB arcmin, for all bands or one for each; that of Q and U is
            larger by the root of two.
        beam
            As for `smooth`: beams with which the maps are observed. The maps of the result have
            none yet.
        band
            Number or name of the band in which sources are found; by default the one nearest to
            150 GHz.
        seed
            Of the errors, which belong to the sources.

        Returns
        -------
        Sky
            In its catalogue the sources found have `in_map` False and their fluxes in
            "measured_mjy", one per band.

        Raises
        ------
        ValueError
            As `cut`; or for noise that is not positive, other numbers of beams or noise levels than
            of bands, or a limit below what the catalogue is complete to.
        """
        bright_sources.catalogue_of(self, "a subtraction of sources")
        bright_sources.without_beams(self, "subtract")
        least = arguments.number("snr", snr, "a positive number, for example 5", 1, 1e3)
        noise = subtraction.parse_noise(noise_uk_arcmin, len(self.bands))
        each = beams.parse(beam, len(self.bands))
        index = int(np.argmin(np.abs(self.freqs_ghz - 150))) if band is None else self.index(band)
        limit = least * subtraction.flux_error_mjy(noise[index], each[index], self.bands[index])
        # all sources above it must be listed
        bright_sources.fluxes(self.catalog, self.bands[index], limit)
        layers, table = subtraction.subtract(self, least, noise, each, index, seeds.check(seed))
        told = f"above {limit:.3g} mJy at {self.bands[index].label}"
        return self._with(layers, catalog=table, meta={**self.meta, "subtracted": told})

    def write_catalog(self, path: str | os.PathLike, overwrite: bool = False) -> None:
        """Write the list of sources for other programs; the suffix selects the format.

        ``.h5``, ``.hdf5``: the layout of PySM's ``PointSourceCatalog``, polynomials of the flux
        (Jy) in ln(nu / GHz). ``.toml``: that of toast's ``SimCatalog``. Both hold the sources that
        are in the maps. ``.fits``, ``.ecsv``: `Sky.catalog` as it is.

        Raises
        ------
        ValueError
            If the sky lists no sources, or the file cannot be written.
        """
        writers.write(bright_sources.catalogue_of(self, "a catalogue"), path, overwrite)

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
