"""Components of mapsims: its contract, and its own runner where it is installed.

mapsims 2.6.0 and 2.7 pin versions that do not go with ours, and import ``so_models_v3``, which is
on no index. `run` calls classes as ``mapsims.runner`` does, and `test_mapsims_itself` runs the real
one where it can be imported, with an empty module in the place of the noise models.
"""

from __future__ import annotations

import importlib
import sys
import tomllib
import types
import weakref

import fakes
import numpy as np
import pysm3
import pytest
from astropy.table import QTable
from pixell import enmap
from pysm3 import units as u

import mlsky
from mlsky import seeds, sphere
from mlsky.plugins import skies
from mlsky.plugins.mapsims import Extragalactic
from mlsky.sphere import gaussian

NSIDE = 16
NPIX = 12 * NSIDE**2
ARCMIN = 360.0
LMAX = 2 * NSIDE

#: float32 maps, and sums of two of them.
ROUNDING = 1e-5

CHANNELS = (
    {"tag": "LAT_f090", "band": "f090", "center_frequency": 92.0, "nu": [85, 92, 99]},
    {"tag": "LAT_f150", "band": "f150", "center_frequency": 147.5, "nu": [147.5]},
)
BEAM = 9 * u.deg

CONFIG = """
tag = "test"
unit = "uK_CMB"
channels = "all"
num = 3
nside = {nside}
modeling_nside = {nside}
lmax_over_nside = 2
output_reference_frame = "C"
output_folder = "{folder}"
instrument_parameters = "{folder}/instrument.tbl"
{more}

[{section}.extragalactic]
class = "{name}"
seed = 1
components = ["tsz", "cib"]
"""


@pytest.fixture(autouse=True)
def record(monkeypatch):
    monkeypatch.setattr(skies, "_SKIES", weakref.WeakValueDictionary())  # none of other tests
    installed = fakes.install(monkeypatch)
    # beams take the real transforms
    fake = types.SimpleNamespace(**{**vars(gaussian), "draw_alm": sphere.gaussian.draw_alm})
    monkeypatch.setattr(sphere, "gaussian", fake)
    return installed


def channels():
    """As mapsims gives them."""
    return [
        types.SimpleNamespace(
            tag=one["tag"],
            tube="LAT",
            beam=BEAM,
            center_frequency=one["center_frequency"] * u.GHz,
            bandpass=(one["nu"] * u.GHz, np.ones(len(one["nu"])) * u.one),
        )
        for one in CHANNELS
    ]


def expected(**pixels):
    """The sky of `simulate` with the beam: seed 1, num 3."""
    bands = [mlsky.Band(one["nu"]) for one in CHANNELS]
    seed = seeds.realisation(1, 3)
    return mlsky.simulate(bands, seed=seed, components=["tsz", "cib"], **pixels)


def accepts(function, name):
    if not hasattr(function, "__code__"):
        function = function.__init__
    return name in function.__code__.co_varnames


def run(config, chans, shape, wcs=None):
    """What ``mapsims.runner`` does with ``other_components``."""
    options = dict(config["other_components"]["extragalactic"])
    module, name = options.pop("class").rsplit(".", 1)
    made = getattr(importlib.import_module(module), name)
    if accepts(made, "instrument_parameters"):
        options["instrument_parameters"] = config["instrument_parameters"]
    if accepts(made, "num") and "num" not in options:
        options["num"] = config["num"]
    if accepts(made, "shape"):
        options["shape"], options["wcs"] = (None, None) if wcs is None else (shape, wcs)
    component = made(nside=config["modeling_nside"], **options)
    call = {"tube": chans[0].tube, "output_units": config["unit"]}
    if accepts(component.simulate, "ch"):
        del call["tube"]
        call["ch"] = chans
    if accepts(component.simulate, "nsplits"):
        call["nsplits"] = config.get("nsplits", 1)
    if accepts(component.simulate, "seed"):
        call["seed"] = config["num"]
    output = np.zeros((len(chans), 1, 3, *shape))
    output += component.simulate(**call).reshape(output.shape)
    return output[:, 0]


def config_of(tmp_path, section, name, more=""):
    return CONFIG.format(nside=NSIDE, folder=tmp_path, section=section, name=name, more=more)


def test_healpix(record, tmp_path):
    text = config_of(tmp_path, "other_components", "mlsky.plugins.mapsims.Extragalactic")
    out = run(tomllib.loads(text), channels(), (NPIX,))
    sky = expected(nside=NSIDE)
    np.testing.assert_allclose(out, sky.smooth(BEAM).total, rtol=ROUNDING, atol=ROUNDING)
    one_by_one = Extragalactic(NSIDE, 1, num=3, components=["tsz", "cib"])
    for band, channel in enumerate(channels()):
        (maps,) = one_by_one.simulate(channel)
        np.testing.assert_allclose(maps[0], out[band], rtol=ROUNDING, atol=ROUNDING)
    # each component that is alive, and `expected`, made one realisation for all channels
    assert len(record.generate) == 3


def test_car(tmp_path):
    """On its own pixels: nothing is resampled."""
    text = config_of(tmp_path, "other_components", "mlsky.plugins.mapsims.Extragalactic")
    shape, wcs = enmap.fullsky_geometry(res=np.radians(ARCMIN / 60), variant="fejer1")
    out = run(tomllib.loads(text), channels(), shape, wcs)
    sky = expected(geometry=(shape, wcs))
    np.testing.assert_allclose(out, sky.smooth(BEAM).total, rtol=ROUNDING, atol=ROUNDING)


def test_beams_and_units_of_channels():
    component = Extragalactic(NSIDE, components="cib")
    (channel, _) = channels()
    ell = np.arange(200)
    channel.custom_beam = np.exp(-ell * (ell + 1) * 0.002)
    channel.bandpass = None
    (maps,) = component.simulate([channel], "MJy/sr")
    sky = mlsky.simulate(92, NSIDE, 0, components="cib", unit="MJy/sr")
    smooth = sky.smooth(channel.custom_beam).total[0]
    np.testing.assert_allclose(maps[0], smooth, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"nside": None}, ValueError, "nside=None: must be that of the maps; give modeling_nside"),
        ({"nside": 100}, ValueError, "nside=100: must be a power of two"),
        ({"freqs": 93}, TypeError, "unexpected argument 'freqs'; may be components"),
        ({"seed": -1}, ValueError, "seed=-1"),
        ({"flux_cut": [(15, 150)]}, ValueError, "must be one cut for all channels"),
        ({"beam": 600.0}, TypeError, "unexpected argument 'beam'; may be components"),
    ],
)
def test_bad_input_when_made(arguments, error, message):
    with pytest.raises(error, match=message):
        Extragalactic(**{"nside": NSIDE, **arguments})


def test_samples_have_the_beams_of_the_channels():
    """Sources have samples but with a beam; which one is known when maps are asked for."""
    sky = expected(nside=NSIDE, pixel_window=False, beam=BEAM)
    made = Extragalactic(
        NSIDE, seed=1, num=3, components=["tsz", "cib"], pixel_window=False
    ).simulate(channels())
    np.testing.assert_allclose(made[:, 0], sky.total, rtol=ROUNDING, atol=ROUNDING)


def test_bad_input_of_a_run():
    component = Extragalactic(NSIDE)
    with pytest.raises(ValueError, match="unit"):
        component.simulate(channels(), "furlong")
    (channel, _) = channels()
    channel.beam = np.nan * u.arcmin
    with pytest.raises(ValueError, match="beam"):
        component.simulate([channel])
    channel.beam, channel.bandpass = BEAM, ([5000] * u.GHz, [1.0])
    with pytest.raises(ValueError, match="5000 GHz"):
        component.simulate([channel])


def write_instrument(folder):
    rows = {name: [one[name] for one in CHANNELS] for name in ("tag", "band")}
    table = QTable({"telescope": ["LAT"] * 2, **rows})
    table["center_frequency"] = [one["center_frequency"] for one in CHANNELS] * u.GHz
    table["fwhm"] = u.Quantity([BEAM] * 2).to(u.arcmin)
    table["nside"] = [NSIDE] * 2
    table["car_resol"] = [ARCMIN] * 2 * u.arcmin
    table["bandpass_file"] = [f"bandpass_{one['band']}.tbl" for one in CHANNELS]
    table.write(folder / "instrument.tbl", format="ascii.ipac")
    for one, name in zip(CHANNELS, table["bandpass_file"], strict=True):
        band = QTable({"bandpass_frequency": one["nu"] * u.GHz})
        band["bandpass_weight"] = np.ones(len(one["nu"]))
        band.write(folder / name, format="ascii.ipac")


@pytest.fixture
def mapsims(monkeypatch):
    """The real package, with an empty module for so_models_v3 if that is not there."""
    if importlib.util.find_spec("mapsims") is None:
        pytest.skip("mapsims is not installed")
    if importlib.util.find_spec("so_models_v3") is None:
        noise = types.ModuleType("so_models_v3")
        noise.SO_Noise_Calculator_Public_v3_1_1 = types.ModuleType("noise")
        monkeypatch.setitem(sys.modules, "so_models_v3", noise)
    monkeypatch.setenv("DISABLE_MPI", "1")
    return importlib.import_module("mapsims.runner")


@pytest.mark.parametrize("car", [False, True])
def test_mapsims_itself(mapsims, tmp_path, car):
    """Native CAR and HEALPix through ``other_components``."""
    write_instrument(tmp_path)
    text = config_of(
        tmp_path,
        "other_components",
        "mlsky.plugins.mapsims.Extragalactic",
        "car = true\nhealpix = false" if car else "",
    )
    (tmp_path / "run.toml").write_text(text)
    simulator = mapsims.from_config(str(tmp_path / "run.toml"))
    if car:  # 2.6 reads it from the file and does not pass it on
        simulator.healpix, simulator.pixelizations = False, ["car"]
    pixels = {"nside": NSIDE}
    if car:
        res = np.radians(ARCMIN / 60)
        pixels = {"geometry": enmap.fullsky_geometry(res=res, variant="fejer1")}
    sky = expected(**pixels).smooth(BEAM).total
    for (_, maps), one in zip(sorted(simulator.execute().items()), sky, strict=True):
        np.testing.assert_allclose(maps, one, rtol=ROUNDING, atol=ROUNDING)


def test_mapsims_itself_through_pysm(mapsims, tmp_path):
    write_instrument(tmp_path)
    text = config_of(tmp_path, "pysm_components", "mlsky.plugins.pysm.Extragalactic")
    (tmp_path / "run.toml").write_text(text)
    import healpy

    out = mapsims.from_config(str(tmp_path / "run.toml")).execute()
    for (_, maps), plain in zip(sorted(out.items()), expected(nside=NSIDE).total, strict=True):
        one = pysm3.apply_smoothing_and_coord_transform(
            plain << u.uK_CMB, fwhm=BEAM, lmax=LMAX, rot=healpy.Rotator(coord=("G", "C"))
        )
        np.testing.assert_allclose(maps, one.value, atol=ROUNDING * np.abs(one.value).max())
