"""Power of the foregrounds as ACT DR6 measured it (Louis et al. 2025, arXiv:2503.14452)."""

from __future__ import annotations

__all__ = ["CUT_GHZ", "CUT_MJY", "D3000", "PARTS"]

#: Sources above this flux (mJy) at this frequency (GHz) were masked.
CUT_MJY, CUT_GHZ = 15.0, 150.0

#: D_l at l = 3000 (uK_CMB^2) of the best fit by frequency (GHz): the CIB in its parts.
PARTS = {
    93: {"tsz": 9.52, "ksz": 0.987, "cib clustered": 0.451, "cib poisson": 0.905, "radio": 20.7},
    150: {"tsz": 3.50, "ksz": 0.987, "cib clustered": 3.81, "cib poisson": 7.65, "radio": 2.89},
    220: {"tsz": 0.006, "ksz": 0.987, "cib clustered": 33.3, "cib poisson": 67.0, "radio": 1.10},
    280: {"tsz": 3.87, "ksz": 0.987, "cib clustered": 190.0, "cib poisson": 383.0, "radio": 0.968},
}


def _whole(row: dict[str, float]) -> dict[str, float]:
    """A row of `PARTS` with the CIB as one."""
    cib = row["cib clustered"] + row["cib poisson"]
    return {**{n: v for n, v in row.items() if not n.startswith("cib")}, "cib": cib}


#: The same with the CIB as one, at more frequencies.
D3000 = {nu: _whole(row) for nu, row in PARTS.items()} | {
    98: {"tsz": 8.98, "ksz": 0.987, "cib": 1.679, "radio": 16.3},
    145: {"tsz": 3.98, "ksz": 0.987, "cib": 9.69, "radio": 3.25},
    217: {"ksz": 0.987, "cib": 91.8, "radio": 1.12},
    225: {"tsz": 0.05, "ksz": 0.987, "cib": 116.3, "radio": 1.07},
}
