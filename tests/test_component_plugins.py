"""Components of other packages: the example in examples/plugin, installed, and broken ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import fakes
import numpy as np
import pytest
from pixell import enmap, utils

import mlsky
from mlsky import cli, component_plugins
from mlsky.errors import MlskyError
from mlsky.frequency import passbands

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin"
NSIDE = 16
ROUNDING = 1e-5


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder into which pip installs the example, offline."""
    import shutil

    folder = tmp_path_factory.mktemp("site")
    source = folder / "source"
    shutil.copytree(EXAMPLE, source)
    target = folder / "packages"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--target", str(target), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return target


@pytest.fixture
def dust(installed, monkeypatch):
    monkeypatch.syspath_prepend(str(installed))
    return fakes.install(monkeypatch)


@pytest.fixture
def broken(monkeypatch, tmp_path):
    """Register a module of the given text as component "dust"."""

    def register(text: str) -> None:
        (tmp_path / "broken_plugin.py").write_text(text)
        info = tmp_path / "broken-0.3.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 0.3\n")
        (info / "entry_points.txt").write_text("[mlsky.components]\ndust = broken_plugin:Dust\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        sys.modules.pop("broken_plugin", None)

    yield register
    sys.modules.pop("broken_plugin", None)


def test_the_example_takes_part(dust, tmp_path, capsys):
    assert component_plugins.names() == ("dust",)
    bands = [353, "so_lat/f150"]
    sky = mlsky.simulate(bands, NSIDE, 1, components=["tsz", "dust"], pixel_window=False)
    assert sky.keys() == ("tsz", "dust")
    assert sky.meta["plugins"] == {"dust": "mlsky-galaxy 0.1"}
    # 100 uK at the poles, where declination is 27 and right ascension 193 degrees
    import healpy

    pole = healpy.ang2pix(NSIDE, 192.86, 27.13, lonlat=True)
    assert sky["dust"][0, 0, pole] == pytest.approx(100, rel=0.02)
    assert sky["dust"][:, 1:].std() == 0
    # bands and units
    (plugin,) = component_plugins.load(["dust"])
    mean = plugin.at_bands(sky.bands, 1)[:, 0]
    ratio = sky["dust"][1, 0] / sky["dust"][0, 0]
    np.testing.assert_allclose(ratio, mean[1] / mean[0], rtol=ROUNDING)
    other = mlsky.simulate(bands, NSIDE, 1, components="dust", unit="MJy/sr", pixel_window=False)
    factor = passbands.convert(sky.bands, "uK_CMB", "MJy/sr")
    np.testing.assert_allclose(
        other.total[:, 0], factor[:, None] * sky["dust"][:, 0], rtol=10 * ROUNDING
    )
    # files, in memory and on the way; averages over pixels; beams
    filed = mlsky.simulate(bands, NSIDE, 1, components=["tsz", "dust"], out=tmp_path / "a.h5")
    again = mlsky.simulate(bands, NSIDE, 1, components=["tsz", "dust"])
    np.testing.assert_array_equal(filed["dust"], again["dust"])
    assert 0 < (again["dust"] - sky["dust"]).std() < 0.2 * sky["dust"].std()
    out = tmp_path / "b.h5"
    beamed = mlsky.simulate(bands, NSIDE, 1, components=["tsz", "dust"], beam=300, out=out)
    expected = again.smooth(300, "dust")["dust"]
    np.testing.assert_allclose(beamed["dust"], expected, atol=ROUNDING * expected.std())
    # the command line
    out = str(tmp_path / "c.h5")
    given = ["simulate", "--freqs", "353", "--nside", "16", "--components", "dust", "--out", out]
    assert cli.main(given) == 0
    assert "dust" in capsys.readouterr().out


def test_nothing_is_imported_unless_asked_for(dust):
    sys.modules.pop("mlsky_galaxy", None)
    sky = mlsky.simulate(150, NSIDE, 1)
    assert "dust" not in sky
    assert "mlsky_galaxy" not in sys.modules
    with pytest.raises(ValueError, match=r"component 'dusty': must be one of cmb.*radio, dust"):
        mlsky.simulate(150, NSIDE, 1, components=["dusty"])


GOOD = """
import numpy as np
class Dust:
    stokes = "T"
    def templates(self, geometry, seed):
        return np.zeros((1, 1, *geometry.shape), np.float32)
    def weights(self, nu_ghz):
        return np.ones((len(nu_ghz), 1))
"""


def test_part_of_the_sky_is_that_of_the_whole(broken, monkeypatch):
    """Up to the edges, where the pixel window needs what lies beyond."""
    fakes.install(monkeypatch)
    waves = "theta, phi = geometry.angles()\n        return (np.sin(12 * theta) * np.cos(9 * phi))"
    made = "return np.zeros((1, 1, *geometry.shape), np.float32)"
    broken(GOOD.replace(made, f"{waves}.reshape(1, 1, *geometry.shape)"))
    shape, wcs = enmap.fullsky_geometry(4 * utils.degree)
    rows, columns = slice(10, 30), slice(20, 60)
    part = enmap.slice_geometry(shape, wcs, (rows, columns))
    for window in (True, False):
        given = {"seed": 1, "components": "dust", "stokes": "T", "pixel_window": window}
        whole = mlsky.simulate(150, geometry=(shape, wcs), **given)["dust"]
        cut = mlsky.simulate(150, geometry=part, **given)["dust"]
        np.testing.assert_allclose(cut, whole[..., rows, columns], atol=ROUNDING)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise RuntimeError('no data')", "broken: RuntimeError: no data"),
        ("import not_there", "broken: ModuleNotFoundError: No module named 'not_there'"),
        ("x = 1", "broken: AttributeError"),
        ("class Dust: pass", "broken: TypeError: it has no stokes"),
        (GOOD.replace('"T"', '"I"'), "its stokes are 'I'"),
    ],
)
def test_a_broken_plugin_warns_with_its_name(broken, monkeypatch, text, message):
    fakes.install(monkeypatch)
    broken(text)
    assert mlsky.simulate(150, NSIDE, 1).keys() == ("cmb", "tsz", "ksz", "cib", "radio")
    with (
        pytest.warns(
            RuntimeWarning, match=rf"'dust' of broken 0.3 \(broken_plugin:Dust\).*{message}"
        ),
        pytest.raises(ValueError, match=message) as caught,
    ):
        mlsky.simulate(150, NSIDE, 1, components=["tsz", "dust"])
    assert "\n" not in str(caught.value)


ZEROS, ONES = "return np.zeros((1, 1, *geometry.shape), np.float32)", "np.ones((len(nu_ghz), 1))"

#: What a plugin may do wrong after it is loaded: replacements in `GOOD`, and the error.
WRONG = {
    "other Stokes": (ZEROS, "return np.zeros((1, 3, *geometry.shape))", "must be"),
    "other pixels": (ZEROS, "return np.zeros((1, 1, 5))", "its templates have shape"),
    "no templates": (ZEROS, "return np.zeros((0, 1, *geometry.shape))", "have shape"),
    "nothing": (ZEROS, "pass", "its templates have shape"),
    "integers": (ZEROS, "return np.zeros((1, 1, *geometry.shape), int)", "type int"),
    "ragged": (ZEROS, "return [[1.0], [2.0, 3.0]]", "its templates are .*must be one array"),
    "NaN": (ZEROS, f"{ZEROS} * np.nan", "not finite everywhere"),
    "too large": (ZEROS, "return np.full((1, 1, *geometry.shape), 1e300)", "not finite everywhere"),
    "masked": (ZEROS, f"{ZEROS.replace('zeros', 'ma.masked_all')}", "not finite everywhere"),
    "a unit": (
        ZEROS,
        "from astropy import units\n        " + ZEROS + " * units.K",
        "have the unit 'K'; must be plain numbers in uK_CMB",
    ),
    "raises": (ZEROS, "raise OSError('disk\\nfull')", "templates raised OSError: disk full"),
    "weights raise": (f"return {ONES}", "raise KeyError('x')", "weights raised KeyError: 'x'"),
    "three axes": (ONES, "np.ones((1, len(nu_ghz), 1))", "its weights have shape"),
    "two of one": (ONES, "np.ones((len(nu_ghz), 2))", r"shape \(2, 2\).*numbers \(2, 1\)"),
    "weights NaN": (ONES, "np.full((len(nu_ghz), 1), np.nan)", "must be finite numbers"),
    "weights text": (ONES, "[['one']] * len(nu_ghz)", "type <U3"),
    "weights complex": (ONES, f"1j * {ONES}", "type complex128"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_a_plugin_gives_is_checked_before_anything_is_made(
    broken, monkeypatch, tmp_path, wrong
):
    record = fakes.install(monkeypatch)
    good, bad, message = WRONG[wrong]
    assert good in GOOD
    broken(GOOD.replace(good, bad))
    folder = tmp_path / "skies"
    folder.mkdir()
    for out in (None, folder / "a.h5"):
        with pytest.raises(MlskyError, match=message) as caught:
            mlsky.simulate([93, 150], NSIDE, 1, components=["tsz", "dust"], out=out)
        assert "component 'dust' of broken 0.3" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not list(folder.iterdir())
    assert not record.generate


def test_units_that_are_those_of_the_templates(broken, monkeypatch):
    fakes.install(monkeypatch)
    unit = "units.def_unit('uK_CMB')"
    given = "from astropy import units\n        return " + ZEROS.removeprefix("return ")
    broken(GOOD.replace(ZEROS, f"{given.replace('zeros', 'ones')} * {unit}"))
    sky = mlsky.simulate([93, 150], NSIDE, 1, components=["dust"], pixel_window=False)
    np.testing.assert_allclose(sky["dust"][:, 0], 1, rtol=ROUNDING)


def test_a_plugin_that_fails_after_painting_loses_nothing(broken, monkeypatch, tmp_path):
    fakes.install(monkeypatch)
    often = "self.asked = getattr(self, 'asked', 0) + 1\n        if self.asked > 1: raise OSError"
    broken(GOOD.replace(f"return {ONES}", f"{often}\n        return {ONES}"))
    asked = {"components": ["tsz", "dust"], "out": tmp_path / "a.h5"}
    with pytest.raises(MlskyError, match="weights raised OSError"):
        mlsky.simulate(150, NSIDE, 1, **asked)
    assert (tmp_path / "a.h5.partial").is_dir()
