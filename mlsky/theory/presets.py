"""Presets of the training truth: parameters fitted to one experiment or simulation each.

docs/truth describes the data and the quality of each fit; `benchmarks/fit_truth.py` does the fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mlsky.theory.halo_model import Parameters

__all__ = ["DEFAULT", "check_truth", "names", "parameters"]

DEFAULT = "act-dr6"

_ACT = Parameters()

_PRESETS = {
    #: Best fit of ACT DR6 (Louis et al. 2025, arXiv:2503.14452), Planck's monopole, counts.
    "act-dr6": _ACT,
    #: tSZ and kSZ of SPT-3G D1 (arXiv:2601.20551): 4.12 and 1.75 uK^2 at l = 3000 and 150 GHz;
    #: the shape of tSZ and everything else as for ACT.
    "spt-3g-d1": replace(_ACT, pressure=(1.006, 0.363, -0.708), ksz_amplitude=0.986),
    #: CIB of Planck 2014, A&A 571, A30 (arXiv:1309.0382), 217 to 857 GHz, and the monopole of
    #: Odegard et al. 2019; everything else as for ACT. It is brighter than measured by ACT at 150
    #: and 220 GHz.
    "planck": replace(
        _ACT,
        cib_l0=10**-7.3807,
        cib_log10_meff=12.634,
        cib_sigma=0.7896,
        cib_evolution=4.272,
        cib_plateau=1.191,
        cib_t0=22.43,
        cib_alpha=0.0707,
        cib_beta=1.847,
        cib_log10_quench=15.63,
        cib_scatter=0.7584,
    ),
    #: The simulation Agora (Omori 2024) through the passbands of ACT DR6.
    "agora": replace(
        _ACT,
        pressure=(1.028, 1.132, -0.365),
        ksz_amplitude=0.7513,
        cib_l0=10**-7.0792,
        radio_counts=1.019,
    ),
}


def names() -> tuple[str, ...]:
    """Names of the presets, the default first."""
    return tuple(_PRESETS)


def parameters(preset: str = DEFAULT) -> Parameters:
    """Parameters of a preset.

    Raises
    ------
    ValueError
        If there is no such preset.
    """
    if preset not in names():
        raise ValueError(f"preset={preset!r}: must be one of {', '.join(names())}")
    return _PRESETS[preset]


def check_truth(truth: Mapping | None) -> str:
    """The preset that weights were trained on, checked to be unchanged since.

    Clusters are painted with the preset of this version, and must be those that the networks leave
    out.

    Parameters
    ----------
    truth
        ``preset`` and ``parameters`` as the header of the weights states them; None if it does not.

    Raises
    ------
    ValueError
        If the preset is unknown, or has other parameters now.
    """
    if truth is None:
        return DEFAULT
    preset = truth["preset"]
    now = parameters(preset).to_dict()
    for name, value in truth["parameters"].items():
        if now.get(name) != value:
            raise ValueError(
                f"weights trained on preset {preset!r} with {name}={value!r}: it has "
                f"{now.get(name)!r} in this version of mlsky; train them again, or take the "
                "version that they come from"
            )
    return preset
