"""Clients of a sky: each runs in miniature on a Gaussian sky, and its parts do what they say."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

import mlsky
from mlsky import Sky
from mlsky.frequency.tsz import uk_per_y
from mlsky.io.layers import Layer
from mlsky.sphere.geometry import geometry

pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[1]
CLIENTS = ROOT / "examples" / "clients"
SIDE_DEG, PIXEL_ARCMIN = 8, 4.0
EDGES = (60, 500, 1000, 1700, 2500)
#: What makes a client small, by the names of its constants.
SMALL: dict[str, dict] = {
    "ilc": {"EDGES": EDGES},
    "clusters": {"EDGES": EDGES},
    "covariance": {"EDGES": EDGES, "SQUARES": 2, "SIDE_DEG": 4, "PIXEL_ARCMIN": PIXEL_ARCMIN},
    "lensing": {"HIGHEST": 2000, "EDGES": (100, 400, 800), "GAUSSIAN_FIELDS": 1},
}
LARGEST = 250_000  # bytes of a picture
#: A true statement fails once in ten thousand.
SIGMAS = 4
#: Weights solve their constraints to this, double precision and a condition number of 1e6.
EXACT = 1e-8
#: The estimator on a map that is lensed to first order, 12 patches, against the kappa that lensed
#: it: 1 % is the scatter of the cross spectrum.
NORMALISATION = 0.04


@pytest.fixture
def client(monkeypatch):
    """Loads a client as a script of its folder is loaded, made small."""
    monkeypatch.syspath_prepend(str(CLIENTS))

    def load(name: str):
        for one in ("flat", "ilc", name):
            module = importlib.import_module(one)
            for constant, value in SMALL.get(one, {}).items():
                monkeypatch.setattr(module, constant, value)
        return module

    yield load
    for path in CLIENTS.glob("*.py"):
        sys.modules.pop(path.stem, None)


def gaussian_sky(patch, freqs, seed: int = 0) -> Sky:
    """White foregrounds, a kappa, and a list of clusters."""
    pixels = geometry(shape_wcs=patch)
    rng = np.random.default_rng(seed)
    weights = {
        "cmb": np.ones(len(freqs)),
        "tsz": 1e-6 * np.asarray(uk_per_y(np.array(freqs, float))),
        "cib": (np.array(freqs) / 150.0) ** 2,
        "radio": (np.array(freqs) / 150.0) ** -2,
    }
    n = 40
    clusters = Table(
        {
            "ra": rng.uniform(-2, 2, n) % 360,
            "dec": rng.uniform(-2, 2, n),
            "z": rng.uniform(0.1, 1, n),
            "m500c": 10 ** rng.uniform(14, 15, n),
            "y500": 10 ** rng.uniform(-4.4, -2.3, n),
            "theta500": np.full(n, 3.0),
        }
    )
    layers = {}
    for name, of in weights.items():
        field = 3 * np.abs(rng.standard_normal((1, 1, *pixels.shape)))
        if name == "tsz":  # far above the noise
            place = pixels.wcs.wcs_world2pix(clusters["ra"], clusters["dec"], 0)
            column, row = np.rint(place).astype(int)
            ny, nx = pixels.shape
            held = (row >= 0) & (row < ny) & (column >= 0) & (column < nx)
            field[0, 0, row[held], column[held]] += 1000
        layers[name] = [Layer(field.astype(np.float32), of[:, None].astype(float))]
    return Sky(
        freqs_ghz=freqs,
        geometry=pixels,
        stokes="T",
        unit="uK_CMB",
        components=layers,
        kappa=(0.05 * rng.standard_normal(pixels.shape)).astype(np.float32),
        clusters=clusters,
        meta={"weights": {"pixel_arcmin": 1.0}, "seed": seed},
    )


@pytest.fixture
def sky_file(client, tmp_path):
    """A Gaussian sky on disk, at the bands of the clients."""
    flat, ilc = client("flat"), client("ilc")
    path = tmp_path / "sky.h5"
    gaussian_sky(flat.patch(SIDE_DEG, PIXEL_ARCMIN), ilc.FREQS).write(path)
    return path


def test_covariance_runs(client, tmp_path, capsys, monkeypatch):
    covariance = client("covariance")
    paths = [tmp_path / f"sky_{seed}.h5" for seed in range(3)]
    for seed, path in enumerate(paths):
        gaussian_sky(covariance.strip(), [covariance.NU_GHZ], seed).write(path)
    asked = {}
    monkeypatch.setattr(mlsky, "ensemble", lambda *args, **kwargs: asked.update(kwargs) or paths)
    found = covariance.main(str(tmp_path / "out.png"), 3, str(tmp_path))
    assert (tmp_path / "out.png").stat().st_size > 5000
    assert "6 small skies of 4 degrees, 3 seeds" in capsys.readouterr().out
    assert asked["geometry"][0] == (60, 120)
    n = len(covariance.FIELDS) * (len(EDGES) - 1)
    assert found["skies"]["correlation"].shape == found["gaussian"]["correlation"].shape == (n, n)


def test_covariance_of_gaussian_band_powers(client):
    """Chi-square band powers have the Gaussian variance, and no correlation."""
    covariance = client("covariance")
    counts = np.array([20, 200])
    rng = np.random.default_rng(1)
    samples = rng.chisquare(counts, (400, 10, 2)) / counts
    found = covariance.connected(samples, counts)
    assert (np.abs(found["ratio"] - 1) < SIGMAS * found["ratio_error"]).all()
    assert abs(found["correlation"][0, 1]) < SIGMAS * found["correlation_error"][0, 1]
    assert found["correlation_error"][0, 1] == pytest.approx(1 / np.sqrt(4000), rel=0.2)
    value, error = covariance.neighbours(samples)
    assert abs(value) < SIGMAS * error


def test_gaussian_fields_have_the_power_and_cross_power(client):
    flat_module, covariance = client("flat"), client("covariance")
    flat = flat_module.Flat(*flat_module.patch(8, PIXEL_ARCMIN))
    correlation = np.array([[1, -0.5, 0.2], [-0.5, 1, 0], [0.2, 0, 1]])
    correlation *= np.outer([1, 10, 0.1], [1, 10, 0.1])
    given = correlation[..., None] / flat.mean(lambda ell: ell, EDGES) ** 2
    drawn = covariance.gaussian(flat, given, 40, np.random.default_rng(1))
    expected = correlation[..., None] * flat.mean(lambda ell: ell**-2, EDGES)
    error = drawn.std(0, ddof=1) / np.sqrt(len(drawn))
    # power is constant, no power law, in the outer halves of the first and the last band
    assert (np.abs(drawn.mean(0) - expected) < SIGMAS * error)[..., 1:-1].all()


@pytest.mark.parametrize("name", ["ilc", "clusters", "lensing"])
def test_clients_run(client, name, sky_file, tmp_path, capsys, monkeypatch):
    module = client(name)
    if name == "ilc":
        white = {f"{c} x {c}": 1e-6 for c in ("cib", "tsz", "radio")}
        monkeypatch.setattr(
            module,
            "foreground_spectra",
            lambda ell, a, b, c, **_: {k: v + 0 * ell for k, v in white.items()},
        )
        monkeypatch.setattr(module, "PIXEL_ARCMIN", PIXEL_ARCMIN)
    if name == "lensing":
        monkeypatch.setattr(module, "lensed_power", lambda lmax: 1.0 / (1 + np.arange(lmax + 1.0)))
    module.main(str(tmp_path / "out.png"), str(sky_file))
    assert (tmp_path / "out.png").stat().st_size > 5000
    printed = capsys.readouterr().out
    assert printed
    if name == "clusters":
        assert int(printed.split()[0]) > 20


def test_weights_keep_and_remove(client):
    """Unit response to what is kept, none to what is removed, and the least variance of all."""
    ilc = client("ilc")
    rng = np.random.default_rng(1)
    root = rng.standard_normal((5, 5))
    cov = root @ root.T + np.eye(5)
    kept, removed = rng.standard_normal((2, 5))
    w = ilc.weights(cov, kept, [removed])
    np.testing.assert_allclose([w @ kept, w @ removed], [1, 0], atol=EXACT)
    null = np.linalg.svd(np.stack([kept, removed]))[2][2:]
    np.testing.assert_allclose(null @ cov @ w, 0, atol=EXACT)


def test_deprojection_leaves_nothing_of_a_cib_of_one_colour(client):
    ilc = client("ilc")
    nu = np.array([98.0, 150.0, 220.0, 353.0, 545.0])
    sed = ilc.response("cib", nu)
    w = ilc.weights(np.diag(1.0 + nu), ilc.response("cmb", nu), [sed])[None]
    left = ilc.expected(w, ilc.one_colour(np.ones((1, 5, 5)), nu))
    assert left[0] < EXACT


def test_quadratic_estimator_finds_kappa(client):
    """On T + grad T . grad phi the estimator is unbiased, with its own normalisation."""
    flat_module, lensing = client("flat"), client("lensing")
    shape, wcs = flat_module.patch(10, PIXEL_ARCMIN)
    flat = flat_module.Flat(shape, wcs)
    ell = np.maximum(flat.ell, 60)
    cl = 1e3 * ell**-3.0 * np.exp(-((ell / 1500) ** 2))
    estimator = lensing.Quadratic(flat, cl, cl + 1e-9)
    cross, auto = 0.0, 0.0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        t = flat.gaussian(cl, rng)
        kappa = flat.gaussian(np.where(ell < 1000, 1e-7 * ell**-0.5, 0), rng)
        phi = np.where(flat.ell > 0, 2 * kappa / ell**2, 0)
        moved = flat.map(t) + sum(
            flat.map(1j * v * t) * flat.map(1j * v * phi) for v in (flat.ly, flat.lx)
        )
        found = estimator(flat.modes(moved, window=False))
        edges = (100, 500)
        cross = cross + flat.power(found, kappa, edges)
        auto = auto + flat.power(kappa, kappa, edges)
    assert cross / auto == pytest.approx(1, abs=NORMALISATION)


@pytest.mark.parametrize("path", sorted(CLIENTS.glob("*.py")), ids=lambda path: path.stem)
def test_every_client_has_a_page_with_a_picture(path):
    if path.stem == "flat":
        return
    folder = ROOT / "docs" / "clients"
    page = (folder / f"{path.stem}.rst").read_text(encoding="utf-8")
    assert f"python examples/clients/{path.name}" in page
    assert path.stem in (folder / "index.rst").read_text(encoding="utf-8")
    pictures = re.findall(r"^\.\. image:: (\S+)$", page, re.MULTILINE)
    assert pictures
    assert all((folder / p).resolve().stat().st_size < LARGEST for p in pictures)


NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_with_their_output(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert any("image/jpeg" in output.get("data", {}) for output in outputs)
    assert path.stat().st_size < LARGEST + 50_000
    assert path.stem in (path.parent / "index.rst").read_text(encoding="utf-8")
