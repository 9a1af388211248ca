"""Write data/tables/spectra_planck2018.npz, the spectra for machines without CAMB.

python benchmarks/default_spectra.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mlsky.theory import spectra

PATH = Path(__file__).parents[1] / "data" / "tables" / spectra.TABLE


def main() -> None:
    lmax = spectra.LMAX
    found = spectra.cmb_spectra(lmax)
    del found["bb"]  # zero
    np.savez_compressed(PATH, **found)
    print(f"{PATH.name}: {PATH.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
