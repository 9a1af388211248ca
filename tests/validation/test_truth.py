"""mlsky.validation.truth and .drawing: sets whose spectra, counts and moments are known."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from analytic_set import CIB_220, CUT_MJY, OBJECTS, PIXEL_ARCMIN, REGIONS, N, write
from halo_cases import shipped
from scipy import integrate, stats

from mlsky.frequency import bands
from mlsky.haloes.galaxies import SOURCE_COLUMNS
from mlsky.plotting import truth_figures
from mlsky.sources import counts
from mlsky.theory.halo_model import infrared_sed
from mlsky.validation import observed, truth, truth_text

#: Deviation of a band in its own errors: of 64 one reaches it by chance in 300 runs.
SIGMAS = 4.5


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write(tmp_path_factory.mktemp("truth") / "set.h5")


@pytest.fixture(scope="module")
def figures(path):
    return truth.check(path, progress=False)


@pytest.mark.parametrize("name", truth.SPECTRA)
def test_a_set_of_the_analytic_spectra_has_ratios_of_one(figures, name):
    row = figures["spectra"][name]
    ratio, error = np.array(row["ratio"]), np.array(row["error"])
    assert np.all(np.abs(ratio - 1) < SIGMAS * error), (ratio, error)
    assert np.all(error[2:] < 0.25)
    assert row["accurate"] is True
    assert row["measured"] == pytest.approx(ratio * row["analytic"], rel=1e-3)


def test_objects_and_the_rest_are_compared_with_their_own_spectra(figures, tmp_path):
    path = write(tmp_path / "apart.h5", apart=True)
    found = truth.check(path, progress=False)
    assert figures["apart"] is None
    assert figures["templates"] is None
    for name, row in figures["spectra"].items():  # everything else is of the whole
        for key in ("measured", "ratio"):
            assert found["spectra"][name][key] == pytest.approx(row[key], rel=1e-3)
    table = found["apart"]
    assert table["mass_cut"] == 1e14
    t = shipped()
    heavy = np.where(t["z"][:, None] < 0.2, 13.0, 14.0) < t["log10_mass"]
    number = t["number"][heavy].sum() * np.radians(1) ** 2
    assert table["number"]["model"] == pytest.approx(number, rel=1e-3)
    area = found["square_degrees"]
    assert table["number"]["painted"] == pytest.approx(20 * REGIONS / area, rel=1e-3)
    model = observed.Model(t)
    ell = np.array([2700.0, 3000.0, 3300.0])  # the spectra hardly bend in this band
    band = found["ell"].index([2500, 3500])
    for name in ("kappa x kappa", "tsz x cib", "radio x radio"):
        measured = figures["spectra"][name]["measured"][band]
        for part, fraction in (("objects", OBJECTS**2), ("rest", (1 - OBJECTS) ** 2)):
            row = table[part][name]
            assert row["measured"][band] == pytest.approx(fraction * measured, rel=1e-3)
            law = model.spectra(ell, 148.0, part=part)[name].mean()
            assert row["analytic"][band] == pytest.approx(law, rel=0.03)
            assert row["accurate"] is False
        orders = ("objects", "rest"), ("rest", "objects")
        law = sum(model.spectra(ell, 148.0, part=order)[name].mean() for order in orders)
        whole = figures["spectra"][name]["analytic"][band]
        missed = (2 * OBJECTS * (1 - OBJECTS) * measured - law) / whole
        assert table["cross"][name]["difference"][band] == pytest.approx(missed, abs=0.01)
    text = "\n".join(truth_text.lines(found))
    assert "objects above 1e+14 Msun" in text
    assert "painted / analytic, rest" in text
    assert "painted less analytic" in text
    parts = truth.region_apart(path, 1)
    assert parts.sum(0) == pytest.approx(truth.region(path, 1), abs=1e-4)
    drawn = truth_figures.draw(
        found, truth.region(path), tmp_path / "pictures", truth.region_apart(path)
    )
    assert drawn[-1].name == truth_figures.OBJECTS_PICTURE
    assert drawn[-1].read_bytes().startswith(b"\x89PNG")


def test_what_is_not_of_the_model_is_told(path, tmp_path):
    other = tmp_path / "other.h5"
    other.write_bytes(path.read_bytes())
    with h5py.File(other, "a") as file:
        file["cib"][:] = 1.1 * file["cib"][:]  # 21 % of power
    found = truth.check(other, progress=False)["spectra"]
    assert [k for k, row in found.items() if not row["accurate"]][:2] == [
        "cib x cib",
        "kappa x cib",
    ]
    assert found["kappa x kappa"]["accurate"]


def test_bands_reach_to_the_nyquist_multipole(figures):
    assert figures["ell"][0] == [200, 500]
    assert figures["ell"][-1] == [4500, 5200]
    assert figures["regions"] == REGIONS
    assert figures["square_degrees"] == pytest.approx(REGIONS * (N / 30) ** 2, rel=1e-3)


def test_powers_at_3000(figures):
    """Beside ACT DR6 at each of its frequencies."""
    from mlsky.validation.act_dr6 import D3000 as act

    table = figures["d3000"]
    assert list(table) == ["93", "150", "220", "280"]
    for name in ("ksz", "tsz", "radio", "cib"):
        row = table["150"][name]
        assert row["act_dr6"] == pytest.approx(act[150][name], rel=0.01)
        assert row["ratio"] == pytest.approx(row["model"] / row["act_dr6"], rel=1e-3)
        assert row["reached"] == (abs(row["ratio"] - 1) <= 0.1)
    for rows in table.values():
        both = rows["cib clustered"]["model"] + rows["cib poisson"]["model"]
        assert both == pytest.approx(rows["cib"]["model"], rel=1e-3)
        assert rows["cib clustered"]["reached"]
        assert rows["cib poisson"]["reached"]
        # kSZ and tSZ of the set are those of the model
        for name in ("ksz", "tsz"):
            assert abs(rows[name]["painted"] - rows[name]["model"]) < SIGMAS * rows[name]["error"]
    # of CIB and radio the set has 220 GHz alone
    assert table["150"]["cib"]["painted"] is None
    row = table["220"]["cib"]
    assert row["painted"] == pytest.approx(row["model"], rel=0.15)
    assert table["220"]["tsz"]["reached"] is None  # there is none to speak of


def test_further_frequencies(figures, path):
    spectra = figures["frequencies"]["spectra"]
    assert list(spectra) == ["cib_220", "radio_220"]
    band = figures["ell"].index([2500, 3500])
    measured = figures["spectra"]["cib x cib"]["measured"][band]
    assert spectra["cib_220"]["measured"][band] == pytest.approx(CIB_220**2 * measured, rel=1e-3)
    model = observed.Model(shipped())
    cl = model.spectra([3000.0], 220.0, components="cib")["cib x cib"][0]
    assert spectra["cib_220"]["analytic"][band] == pytest.approx(cl, rel=0.03)


def test_tsz_beside_act(figures):
    rows = figures["tsz_shape"]
    assert list(rows) == ["1000", "2000", "3000", "5000", "8000"]
    assert all(row["reached"] for row in rows.values())
    assert rows["3000"]["shape"] == 1
    assert rows["8000"]["painted"] is None  # beyond these pixels
    row = rows["3000"]
    assert abs(row["painted"] - row["model"]) < SIGMAS * row["error"]


def test_kappa_beside_camb(figures):
    row = figures["kappa_camb"]
    assert row["reached"]
    assert all(abs(x - 1) < 0.01 for x in row["model"].values())
    ratios = figures["spectra"]["kappa x kappa"]["ratio"]
    for (name, painted), ratio in zip(row["painted"].items(), ratios, strict=True):
        assert painted["ratio"] == pytest.approx(ratio, rel=0.01), name


def test_sources_beside_published_counts(figures, path):
    with h5py.File(path) as file:
        flux = file["sources"][:, SOURCE_COLUMNS.index("flux_mjy")]
    area = figures["square_degrees"]
    rows = figures["sources"]["radio"]
    for low in (1, 5, 15):
        row = rows[f"{low} mJy"]
        number = (flux >= low).sum()
        assert row["painted"] == pytest.approx(number / area, rel=1e-3)
        assert row["error"] == pytest.approx(np.sqrt(number) / area, rel=1e-3)
        exact = integrate.quad(counts.radio_counts, low * 1e-3, 2.0, points=[0.03, 0.2])[0]
        assert row["model"] == pytest.approx(exact * np.radians(1) ** 2, rel=2e-3)
        assert row["reached"]
        assert row["tucci"] < row["model"] < row["lagache"]
    assert rows["0.1 mJy"]["painted"] is None  # fainter than the list
    dsfg = figures["sources"]["dsfg"]
    assert list(dsfg) == ["143", "217"]
    assert dsfg["143"]["5 mJy"]["painted"] == 0  # none in this set
    assert dsfg["217"]["2 mJy"]["painted"] is None
    assert all(abs(row["dex"]) < 0.3 for rows in dsfg.values() for row in rows.values())


def test_kappa_and_ksz_have_nothing_in_common(figures):
    value, error = (np.array(figures["correlation"][k]) for k in ("value", "error"))
    assert np.all(np.abs(value) < SIGMAS * error)
    whole = figures["correlation"]["all"]
    assert abs(whole["value"]) < SIGMAS * whole["error"]
    assert whole["error"] < error[1:].min() * 1.2
    assert whole["reached"] == (abs(whole["value"]) <= truth.NO_SIGN)


def test_rms_of_ksz_by_kappa(figures, path):
    with h5py.File(path) as file:
        kappa, ksz = file["kappa"][:].astype(float), file["ksz"][:].astype(float)
    inside = (kappa >= kappa[0].std()) & (kappa < 2 * kappa[0].std())
    row = next(r for r in figures["ksz_rms"] if r["from"] == 1.0)
    assert row["pixels"] == inside.sum()
    assert row["rms"] == pytest.approx(np.sqrt((ksz[inside] ** 2).mean()), rel=1e-3)
    assert sum(r["pixels"] for r in figures["ksz_rms"]) == kappa.size


def test_a_region_that_rules_the_set_is_named(path, tmp_path):
    other = tmp_path / "other.h5"
    other.write_bytes(path.read_bytes())
    with h5py.File(other, "a") as file:
        file["tsz"][1] = 10 * file["tsz"][1]
        lowest, variance = file["tsz"][1].min(), file["tsz"][:3].var((1, 2))
    found = truth.check(other, regions=3, progress=False)["heaviest"]
    assert found["region"] == 1
    assert found["deepest"] == pytest.approx(lowest, rel=1e-3)
    assert found["fraction"] == pytest.approx(variance[1] / variance.sum(), rel=1e-3)


def test_counts(figures, path):
    with h5py.File(path) as file:
        radio, cib = file["radio"][:], file["cib"][:]
    mjy = 1e3 * float(bands.jy_per_sr_per_uk(148.0)) * np.radians(PIXEL_ARCMIN / 60) ** 2
    area = radio.size * (PIXEL_ARCMIN / 60) ** 2
    for key, low in zip(figures["counts"]["radio"], truth.COUNTS_MJY, strict=True):
        assert key == f"{low:g} mJy"
        row = figures["counts"]["radio"][key]
        assert row["pixels"] == pytest.approx((radio * mjy >= low).sum() / area, rel=1e-3)
        exact = integrate.quad(counts.radio_counts, low * 1e-3, CUT_MJY * 1e-3)[0]
        assert row["sources"] == pytest.approx(exact * np.radians(1) ** 2, rel=1e-3)
    excess = (cib - np.median(cib, (1, 2), keepdims=True)) * mjy
    row = figures["counts"]["dsfg"]["1 mJy"]
    assert row["pixels"] == pytest.approx((excess >= 1).sum() / area, rel=1e-3)


def test_counts_of_dsfgs_of_one_kind_of_halo():
    scatter, uk = 1.25, 2.0e-3
    t = {
        "header": {**shipped()["header"]},
        "scatter": scatter,
        "uk_per_jy_sr": uk,
        "z": np.array([1.0]),
        "number": np.array([[10.0]]),
        "central_uk_sr": np.array([[1e-3 * uk]]),
        "satellite_number": np.array([3.0]),
        "satellite_uk_sr": np.array([[2e-3 * uk]]),
        "satellite_inverse": np.zeros((1, 4), int),
    }
    model = observed.Model(t)
    for nu, colour, spread in ((148.0, 1.0, 0.0), (220.0, None, 0.2 * np.log(220 / 148))):
        if colour is None:
            z, par = t["z"], model.parameters
            colour = float((infrared_sed(nu, z, par) / infrared_sed(148.0, z, par))[0])
        width = np.hypot(scatter, spread)
        for low, value in zip((1e-3, 5e-3), model.dsfg_above([1.0, 5.0], nu), strict=True):
            exact = 0.0
            for number, mean in ((10.0, 1e-3), (30.0, 2e-3)):
                law = stats.lognorm(width, scale=colour * mean * np.exp(-(width**2) / 2))
                exact += number * law.sf(low)
            assert value == pytest.approx(exact * np.radians(1) ** 2, rel=1e-6)


def test_one_region_has_no_errors(path):
    one = truth.check(path, regions=1, progress=False)
    assert one["regions"] == 1
    for row in one["spectra"].values():
        assert set(row["error"]) == {None}
        assert row["accurate"] is None
    assert json.loads(json.dumps(one, allow_nan=False)) == one
    assert any("+-" not in line and "1.0" in line for line in truth_text.lines(one))


def test_lines(figures):
    text = "\n".join(truth_text.lines(figures))
    assert "rare clusters" in text
    assert "ACT DR6" in text
    for name in truth.SPECTRA:
        assert name in text
    row = figures["spectra"]["kappa x kappa"]
    first = f"{row['ratio'][0]:.3f} +- {row['error'][0]:.3f}"
    assert any(line.startswith("200-500") and first in line for line in truth_text.lines(figures))


def test_other_sets_are_refused(path, tmp_path):
    def fails(message, **options):
        with pytest.raises(ValueError, match=message):
            truth.check(write(tmp_path / "bad.h5", 1, **options), progress=False)

    header = shipped()["header"]
    other = {**header, "cosmology": {**header["cosmology"], "h": 0.7}}
    fails("other tables than the shipped tables .cosmology differ", source=json.dumps(other))
    fails("format, parameters differ", source=json.dumps({**header, "format": 1, "parameters": {}}))
    fails("does not say from which tables", source='{"kind": "maps"}')
    fails("does not say from which tables", source="maps of a friend")
    fails("lacks radio", leave_out=("radio",))
    with pytest.raises(ValueError, match="regions=0"):
        truth.check(path, regions=0)
    with pytest.raises(ValueError, match="cannot be read"):
        truth.check(tmp_path / "none.h5")


def test_pictures(figures, path, tmp_path):
    folder = tmp_path / "pictures"
    truth_figures.check_folder(folder, False)
    paths = truth_figures.draw(figures, truth.region(path), folder)
    assert sorted(p.name for p in folder.iterdir()) == sorted(truth_figures.PICTURES)
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in paths)
    with pytest.raises(ValueError, match=r"spectra.png: exists.*--overwrite"):
        truth_figures.check_folder(folder, False)
    assert truth.region_apart(path) is None
    truth_figures.check_folder(folder, True)
    with pytest.raises(ValueError, match="is a file"):
        truth_figures.check_folder(path, True)
    with pytest.raises(ValueError, match="does not exist"):
        truth_figures.check_folder(tmp_path / "none" / "pictures", False)


def test_one_region_can_be_drawn(path, tmp_path):
    one = truth.check(path, regions=1, progress=False)
    assert len(truth_figures.draw(one, truth.region(path), tmp_path)) == len(truth_figures.PICTURES)
