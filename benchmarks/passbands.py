"""The table of named bands, `data/tables/passbands.json`, from the files that experiments publish.

    python benchmarks/passbands.py --act AdvACT_Passbands.h5 --hfi HFI_RIMO_R4.00.fits \
        --spt spt3g_bandpass_95GHz.txt spt3g_bandpass_150GHz.txt spt3g_bandpass_220GHz.txt

AdvACT_Passbands.h5 is on LAMBDA (ACT DR6.02 passbands), HFI_RIMO_R4.00.fits in the Planck Legacy
Archive, the files of SPT-3G on LAMBDA (Sobrin et al. 2022); the package pspipe_utils carries all.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import h5py
import numpy as np
from astropy.io import fits

ACT = (
    "ACT DR6.02 passbands (LAMBDA), mean_band within integration_bounds; a response to a "
    "Rayleigh-Jeans source, as that page says"
)
SPT = (
    "SPT-3G bandpasses (LAMBDA; Sobrin et al. 2022, arXiv:2106.11202), response with etendue, as "
    "that page says"
)
HFI = "Planck HFI RIMO R4.00, averaged over bins; response to intensity as in arXiv:1303.5070"
LFI = (
    "centre and bandwidth of the table of LFI in the Planck Legacy Archive (Planck 2018 results "
    "II, arXiv:1807.06206)"
)
SO = (
    "edges of simonsobs_instrument_parameters_2020.06 of mapsims 2.7 (from sotodlib); MFF optics "
    "tubes for f090 and f150"
)

#: Centre and bandwidth (GHz), and lower and upper edge.
LFI_BANDS = {"030": (28.4, 9.89), "044": (44.1, 10.72), "070": (70.4, 14.90)}
SO_BANDS = {
    "f030": (21.7, 29.7),
    "f040": (30.9, 46.9),
    "f090": (79.0, 105.0),
    "f150": (130.0, 165.0),
    "f230": (196.7, 254.7),
    "f290": (258.4, 312.4),
}
ACT_BANDS = ("pa4_f150", "pa4_f220", "pa5_f090", "pa5_f150", "pa6_f090", "pa6_f150")

#: HFI's bands have hundreds of points: they are averaged over so many bins, above this fraction of
#: the largest response.
BINS, CUT = 64, 1e-3
#: GHz per 1/cm.
PER_CM = 29.9792458


def entry(nu, weights, convention: str, source: str) -> dict:
    weights = np.maximum(weights, 0)
    weights = weights / weights.max()
    return {
        "nu_ghz": np.round(nu, 4).tolist(),
        "weights": np.round(weights, 5).tolist(),
        "convention": convention,
        "source": source,
    }


def of_act(path: Path) -> dict:
    found = {}
    with h5py.File(path) as file:
        for name in ACT_BANDS:
            group = file[name.replace("pa", "PA")]
            nu, band = group["frequencies"][()], group["mean_band"][()]
            low, high = group["integration_bounds"][()]
            inside = (nu >= low) & (nu <= high)
            found[f"act_dr6/{name}"] = entry(nu[inside], band[inside], "rj", ACT)
    return found


def of_spt(paths: list[Path]) -> dict:
    found = {}
    for name, path in zip(("095", "150", "220"), paths, strict=True):
        nu, band = np.loadtxt(path, unpack=True)
        kept = band > CUT * band.max()
        found[f"spt3g/{name}"] = entry(nu[kept], band[kept], "power", SPT)
    return found


def of_hfi(path: Path) -> dict:
    found = {}
    with fits.open(path) as file:
        for name in ("100", "143", "217", "353", "545", "857"):
            table = file[f"BANDPASS_F{name}"].data
            nu, band = table["WAVENUMBER"] * PER_CM, table["TRANSMISSION"]
            low, high = nu[band > CUT * band.max()][[0, -1]]
            # means of bins, by the integral up to their edges
            below = np.append(0, np.cumsum(0.5 * (band[1:] + band[:-1]) * np.diff(nu)))
            edges = np.linspace(low, high, BINS + 1)
            mean = np.diff(np.interp(edges, nu, below)) / np.diff(edges)
            found[f"planck/{name}"] = entry((edges[1:] + edges[:-1]) / 2, mean, "power", HFI)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--act", type=Path, required=True)
    parser.add_argument("--hfi", type=Path, required=True)
    parser.add_argument("--spt", type=Path, nargs=3, required=True)
    parser.add_argument("--out", type=Path, default=Path("data/tables/passbands.json"))
    options = parser.parse_args()
    table = of_act(options.act)
    for telescope in ("so_lat", "so_sat"):
        for name, edges in SO_BANDS.items():
            table[f"{telescope}/{name}"] = {"edges_ghz": edges, "source": SO}
    for name, (centre, width) in LFI_BANDS.items():
        edges = [round(centre + sign * width / 2, 4) for sign in (-1, 1)]
        table[f"planck/{name}"] = {"edges_ghz": edges, "source": LFI}
    table |= of_hfi(options.hfi) | of_spt(options.spt)
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(table[name])}" for name in table)
    options.out.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
