"""mapsims: an mlsky sky as one of its ``other_components``, on its own pixels and with the beams.

In the TOML file of a run::

    [other_components.extragalactic]
    class = "mlsky.plugins.mapsims.Extragalactic"
    seed = 1
    components = ["tsz", "ksz", "cib", "radio"]

mapsims needs no installation for this class. Maps are made on the pixels of the output, CAR or
HEALPix, so nothing is rotated or resampled, and sources are painted with the beam. They are
equatorial: give ``output_reference_frame = "C"``. With ``healpix``, ``modeling_nside`` must be the
``nside`` of the output, as mapsims tells the component that one alone.

The classes of `mlsky.plugins.pysm` go under ``pysm_components`` instead: mapsims smooths and turns
them with PySM's others, through spherical harmonics.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlsky import arguments, seeds
from mlsky.components import REFERENCE_GHZ
from mlsky.frequency.passbands import Band
from mlsky.plugins.skies import SimulatedSky
from mlsky.request import check
from mlsky.signature import DEFAULTS, Arguments
from mlsky.sphere.geometry import geometry

__all__ = ["Extragalactic"]

#: Arguments of `mlsky.simulate` that mapsims or the component set.
SET = (
    *("freqs", "nside", "seed", "geometry", "stokes", "unit", "beam"),
    *("progress", "out", "overwrite"),
)

#: Pixels of the FWHM that stands for those of the channels where samples need beams: they are known
#: when maps are asked for.
SOME_BEAM = 2.0


class Extragalactic:
    """Lensed CMB, kSZ, tSZ, CIB and radio sources of one mlsky realisation, with beams.

    Parameters
    ----------
    nside
        HEALPix resolution; not used for CAR maps.
    seed, num
        As for `mlsky.plugins.pysm.Extragalactic`; mapsims passes its ``num``.
    shape, wcs
        Of CAR maps, as mapsims passes them; None for HEALPix.
    **options
        As in `mlsky.simulate`, those that do not concern bands, beams, pixels and files.

    Raises
    ------
    ValueError, RegistryError
        As `mlsky.simulate`, when the component is made.
    """

    # spelt out, and undecorated: mapsims looks for the names nside, num, shape and wcs
    def __init__(
        self,
        nside: int | None = None,
        seed: int = 0,
        num: int = 0,
        shape: tuple[int, ...] | None = None,
        wcs=None,
        **options,
    ) -> None:
        allowed = [name for name in DEFAULTS if name not in SET]
        unknown = sorted(set(options) - set(allowed))
        if unknown:
            raise TypeError(
                f"Extragalactic(): unexpected argument {unknown[0]!r}; may be {', '.join(allowed)}"
            )
        if nside is None and shape is None:
            raise ValueError(
                "nside=None: must be that of the maps; give modeling_nside in the TOML file"
            )
        pixels = {"nside": nside} if shape is None else {"geometry": (tuple(shape)[-2:], wcs)}
        if options.get("pixel_window", True) is False:
            pixels["beam"] = SOME_BEAM * geometry(**pixels).pixel_arcmin
        asked = Arguments(
            freqs=REFERENCE_GHZ, seed=seeds.realisation(seed, num), **pixels, **options
        )
        request = check(asked)
        if request.cut_per_band:
            raise ValueError(
                f"flux_cut={arguments.short(options['flux_cut'])}: must be one cut for all "
                "channels, (mJy, band)"
            )
        self._sky, self._names = SimulatedSky.of(request), request.components

    def simulate(self, ch, output_units: str = "uK_CMB") -> NDArray[np.float32]:
        """Maps of channels, with their beams.

        Parameters
        ----------
        ch
            A channel of mapsims or several: each has ``center_frequency`` and ``beam`` (FWHM),
            Quantities, and may have ``bandpass``, frequencies and response to power, and
            ``custom_beam``, b_l from l = 0.
        output_units
            One of mlsky's: "uK_CMB", "K_CMB", "uK_RJ", "MJy/sr", ...

        Returns
        -------
        ndarray
            (channels, 1, 3, *shape) float32; the second axis is that of splits, which have the same
            sky. Within two FWHM of its edges a map of part of the sky lacks what lies beyond.

        Raises
        ------
        ValueError
            If a band is outside the range of the laws, a beam or a unit is not allowed.
        """
        channels = list(ch) if isinstance(ch, Sequence) else [ch]
        sky = self._sky.observed(
            [_band(channel) for channel in channels], self._names, str(output_units)
        )
        return sky.smooth([_beam(channel) for channel in channels]).total[:, np.newaxis]


def _band(channel) -> Band:
    """Passband of a channel; its centre if it has none."""
    name = str(getattr(channel, "tag", "")) or None
    if getattr(channel, "bandpass", None) is None:
        return Band(channel.center_frequency, name=name)
    nu, weights = channel.bandpass
    return Band(nu, None if len(np.atleast_1d(nu)) == 1 else np.asarray(weights), name=name)


def _beam(channel):
    custom = getattr(channel, "custom_beam", None)
    return channel.beam if custom is None else np.asarray(custom)
