"""Fit the CIB templates of every preset and write data/tables/cib_templates.json.

    python benchmarks/fit_cib_templates.py [preset ...]

Prints what the fit reaches against the spectra of the halo model; two minutes.
"""

import json
import sys
from pathlib import Path

import numpy as np

from mlsky.frequency.cib_templates import FILE
from mlsky.theory import cib_templates, halo_model, presets
from mlsky.theory.cosmology import parse
from mlsky.theory.parameters import DEFAULT

BANDS_GHZ = np.array([20, 27, 39, 93, 145, 225, 280, 353, 545, 857, 900], float)
PATH = Path(__file__).parents[1] / "data" / "tables" / FILE


def errors(law, truth, nu) -> dict[str, float]:
    """Largest errors of r, power, r(kappa) and r(tSZ), over bands and multipoles."""
    at = np.searchsorted(nu, law.templates_ghz)
    weights = law.weights(nu) / law.mean(nu)[:, None] * law.mean(law.templates_ghz)
    noise = law.noise_weights(nu) / law.mean(nu)[:, None]
    full = truth.total
    made = np.einsum("ik,jm,kml->ijl", weights, weights, full[np.ix_(at, at)])
    made += (noise @ noise.T)[..., None]
    roots = [np.sqrt(np.einsum("iil->il", c)) for c in (full, made)]
    r_true, r = (c / (s[:, None] * s) for c, s in zip((full, made), roots, strict=True))
    wrong = np.abs(r - r_true).max(-1)
    power = np.abs(roots[1] ** 2 / roots[0] ** 2 - 1).max(-1)

    def worst(low, high):
        return np.ix_(*2 * [np.flatnonzero((nu >= low) & (nu <= high))])

    out = {
        "r 93-353": wrong[worst(93, 353)].max(),
        "r 93-857": wrong[worst(93, 857)].max(),
        "r 27-857": wrong[worst(27, 857)].max(),
        "power 93-353": power[(nu >= 93) & (nu <= 353)].max(),
        "power 27-900": power[nu >= 27].max(),
    }
    for name in ("kappa", "tsz"):
        c = getattr(truth, name)
        gone = np.abs(weights @ c[at] / roots[1] - c / roots[0])
        out[f"r({name}) 27-900"] = gone[nu >= 27].max()
    return out


def main() -> None:
    table = json.loads(PATH.read_text()) if PATH.exists() else {}
    for preset in sys.argv[1:] or presets.names():
        model = halo_model.for_cosmology(parse(DEFAULT), presets.parameters(preset))
        law = cib_templates.fit_model(model)
        rounded = {k: _round(v) for k, v in law.to_dict().items()}
        table[preset] = rounded
        nu = np.union1d(BANDS_GHZ, law.templates_ghz)
        truth = cib_templates.spectra(model, nu, (law.flux_cut_mjy * 1e-3, 148.0))
        told = ", ".join(f"{k} {v:.4f}" for k, v in errors(law, truth, nu).items())
        print(f"{preset}: {told}", flush=True)
    PATH.write_text(json.dumps(table, indent=1) + "\n")


def _round(value):
    """Seven significant digits."""
    if isinstance(value, list):
        return [_round(v) for v in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
