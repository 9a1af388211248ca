"""mlsky beside other packages, and without those that it can do without."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from mlsky.theory import spectra

#: The shipped spectra are of one version of CAMB; others differ by its accuracy.
VERSIONS = 2e-3

#: Hides packages from the interpreter, as if they were not installed.
HIDE = """
import importlib.metadata, importlib.util, sys
hidden = {hidden!r}
class Hider:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hider())
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name in hidden else real(name, *a)
"""


def run(hidden: list[str], code: str) -> str:
    command = [sys.executable, "-c", HIDE.format(hidden=hidden) + code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout


def test_shipped_spectra_are_those_of_camb(monkeypatch, tmp_path):
    monkeypatch.setenv("MLSKY_CACHE_DIR", str(tmp_path))  # that of the session has the shipped ones
    shipped = spectra._shipped.__wrapped__(spectra.parse("planck2018"))
    found = spectra.cmb_spectra(3000)
    for name, cl in shipped.items():
        scale = np.sqrt(found["tt" if "t" in name else "ee"] * found["kk"])
        scale = {"te": np.sqrt(found["tt"] * found["ee"]), "tk": scale, "ek": scale}.get(
            name, np.abs(found[name])
        )
        off = np.abs(cl[2:3001] - found[name][2:])
        assert (off < VERSIONS * scale[2:]).all(), name


def test_without_camb():
    out = run(
        ["camb"],
        """
import mlsky
from mlsky.theory import spectra, parse
cl = spectra.cmb_spectra(100)["tt"]
print(cl[2] > 100)
for given in ({"h": 0.7}, {"sigma8": 0.8}):
    try:
        spectra.kappa_spectrum(100, given)
    except mlsky.MissingDependencyError as error:
        print(error)
""",
    ).splitlines()
    assert out[0] == "True"
    assert len(out) == 3
    assert all("camb is needed for" in line and "pip install camb" in line for line in out[1:])


@pytest.mark.parametrize(
    ("package", "code", "line"),
    [
        ("pysm3", "import mlsky.plugins.pysm", "pip install 'mlsky[pysm]'"),
        ("pyccl", "mlsky.theory.spectra.kappa_spectrum(9, source='ccl')", "pip install"),
        ("pyccl", "import mlsky.plugins.tracers", "pip install"),
        (
            "matplotlib",
            "from mlsky.plotting import sky_maps; sky_maps.save(None, 'a.png')",
            "pip install 'mlsky[plot]'",
        ),
    ],
)
def test_without_an_extra(package, code, line, tmp_path, monkeypatch):
    """Importing mlsky works; where the package is needed, one line says how to get it."""
    monkeypatch.chdir(tmp_path)
    text = f"""
import mlsky, mlsky.theory.spectra
try:
    {code}
except mlsky.MissingDependencyError as error:
    print(error)
"""
    (told,) = run([package], text).splitlines()
    assert line in told


@pytest.mark.parametrize("order", ["torch, healpy", "healpy, torch"])
def test_either_order_of_imports(order):
    code = f"import {order}\nimport mlsky\nfrom mlsky.networks import weights\nprint(1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
