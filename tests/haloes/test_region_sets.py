"""mlsky.haloes.region_sets: sets of regions, what stops them early, and going on."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from halo_cases import shipped

from mlsky import seeds
from mlsky.haloes import galaxies, region
from mlsky.haloes import painter as halos
from mlsky.haloes import region_sets as painted
from mlsky.io import sets

N = 16
COLUMNS = len(galaxies.SOURCE_COLUMNS)


class TinyPainter:
    """The painter's face, with numbers that depend on (seed, index) alone."""

    stop_at: int | None = None
    painted: list[int]

    def __init__(
        self, pixel_arcmin, n, tables, device="cpu", freqs=(), catalogue_mjy=1.0, objects=None
    ):
        self.n, self.t, self.freqs, self.mass_cut = n, tables, freqs, objects

    def region(self, seed, index):
        if index == type(self).stop_at:
            raise KeyboardInterrupt
        type(self).painted.append(index)
        rng = seeds.generator(seed, "truth", index)

        def normal(*shape):
            return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))

        n = self.n
        made = region.Region(
            maps=normal(6, n, n),
            sources=normal(int(rng.integers(5)) if index else 0, COLUMNS),
            cib=normal(len(self.freqs), n, n),
            radio=normal(len(self.freqs), n, n),
        )
        if self.mass_cut is not None:
            made.objects = region.Objects(
                maps=normal(5, n, n),
                rows=normal(int(rng.integers(5)) if index != 2 else 0, 5),
                members=torch.arange(len(made.sources), dtype=torch.int32) - 1,
                cib=normal(len(self.freqs), n, n),
                radio=normal(len(self.freqs), n, n),
            )
        return made

    def gaussian_kappa(self, kappa_g):
        return kappa_g / 2


@pytest.fixture
def painter(monkeypatch):
    monkeypatch.setattr(painted, "Painter", TinyPainter)
    monkeypatch.setattr(TinyPainter, "stop_at", None)
    monkeypatch.setattr(TinyPainter, "painted", [], raising=False)
    return TinyPainter


def _paint(path, **options):
    start = {"regions": 4, "seed": 3, "n": N, "progress": False, "freqs": (93, 220.5)}
    painted.paint(path, **{**start, **options})


def _read(path):
    with h5py.File(path) as file:
        return {k: file[k][:] for k in file}, dict(file.attrs)


def _sources_of(file, index):
    """Rows of one region."""
    ends = file["sources_end"]
    return file["sources"][int(ends[index - 1]) if index else 0 : int(ends[index])]


def test_an_interrupted_set_goes_on_to_the_same_bits(painter, tmp_path):
    whole, stopped = tmp_path / "whole.h5", tmp_path / "stopped.h5"
    _paint(whole)
    painter.stop_at = 2
    with pytest.raises(KeyboardInterrupt):
        _paint(stopped)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["stopped.h5.part", "whole.h5"]
    # killed between its sources and its end, a region leaves rows that nothing points to
    with h5py.File(tmp_path / "stopped.h5.part", "a") as file:
        file["sources"].resize(len(file["sources"]) + 7, 0)
    painter.stop_at, painter.painted[:] = None, []
    _paint(stopped)
    assert painter.painted == [2, 3]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["stopped.h5", "whole.h5"]
    assert sets.verify(whole) == sets.verify(stopped) == "as it was written"
    (a, attrs), (b, _) = _read(whole), _read(stopped)
    bands = ("cib_93", "cib_220.5", "radio_93", "radio_220.5")
    assert set(a) == {*painted.FIELDS, *bands, "sources", "sources_end"}
    for name in a:
        if not name.startswith("sources"):
            assert a[name].shape == (4, N, N)
            assert a[name].dtype == np.float32
        np.testing.assert_array_equal(a[name], b[name])
    np.testing.assert_array_equal(a["kappa_in"], a["kappa_g"] / 2)
    assert (attrs["pixel_arcmin"], attrs["seed"], attrs["done"]) == (0.5, 3, 4)
    assert attrs["freqs"].tolist() == [93.0, 220.5]
    assert attrs["catalogue_mjy"] == 1.0
    assert json.loads(attrs["source"]) == shipped()["header"]


def test_each_region_has_its_rows_of_the_catalogue(painter, tmp_path):
    _paint(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["sources"].attrs["columns"].astype(str).tolist() == list(
            galaxies.SOURCE_COLUMNS
        )
        assert file["sources"].dtype == np.float32
        assert len(file["sources"]) == file["sources_end"][-1] > 0
        again = TinyPainter(0.5, N, shipped(), freqs=(93, 220.5))
        for i in range(4):
            region = again.region(3, i)
            np.testing.assert_array_equal(_sources_of(file, i), region.sources.numpy())
            np.testing.assert_array_equal(file["cib_220.5"][i], region.cib[1].numpy())
            np.testing.assert_array_equal(file["radio_93"][i], region.radio[0].numpy())


def test_objects_have_maps_and_a_list_of_their_own(painter, tmp_path):
    whole, stopped = tmp_path / "whole.h5", tmp_path / "stopped.h5"
    _paint(whole, objects=1e14)
    painter.stop_at = 3
    with pytest.raises(KeyboardInterrupt):
        _paint(stopped, objects=1e14)
    # killed before its end, a region leaves rows that nothing points to
    with h5py.File(tmp_path / "stopped.h5.part", "a") as file:
        for name in ("sources", "sources_object", "objects"):
            file[name].resize(len(file[name]) + 7, 0)
    painter.stop_at = None
    _paint(stopped, objects=1e14)
    (a, attrs), (b, _) = _read(whole), _read(stopped)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    assert attrs["mass_cut"] == 1e14
    plain = painted.map_names((93, 220.5))
    maps = painted.map_names((93, 220.5), 1e14)
    extra = [f"objects_{name}" for name in region.OBJECT_FIELDS]
    extra += [f"objects_{f}_{nu}" for nu in ("93", "220.5") for f in ("cib", "radio")]
    assert maps == plain + extra
    tables = {"sources", "sources_end", "sources_object", "objects", "objects_end"}
    assert set(a) == {*maps, *tables}
    again = TinyPainter(0.5, N, shipped(), freqs=(93, 220.5), objects=1e14)
    with h5py.File(whole) as file:
        assert file["objects"].attrs["columns"].astype(str).tolist() == list(region.OBJECT_COLUMNS)
        for i in range(4):
            made = again.region(3, i)
            np.testing.assert_array_equal(file["tsz"][i], made.maps[3].numpy())
            np.testing.assert_array_equal(file["objects_tsz"][i], made.objects.maps[2].numpy())
            np.testing.assert_array_equal(file["objects_cib_93"][i], made.objects.cib[0].numpy())
            radio = made.objects.radio[1].numpy()
            np.testing.assert_array_equal(file["objects_radio_220.5"][i], radio)
            for name, rows in (("objects", made.objects.rows), ("sources", made.sources)):
                ends = [0, *file[f"{name}_end"]]
                np.testing.assert_array_equal(file[name][ends[i] : ends[i + 1]], rows.numpy())
            ends = [0, *file["sources_end"]]
            members = file["sources_object"][ends[i] : ends[i + 1]]
            np.testing.assert_array_equal(members, made.objects.members.numpy())


def test_what_needs_whole_maps_refuses_sets_without_objects(painter, tmp_path):
    from mlsky.io.sets import attributes_of, fields_of

    _paint(tmp_path / "a.h5", objects=1e14)
    with pytest.raises(ValueError, match=r"a.h5: its maps are without haloes above 1e\+14 Msun"):
        attributes_of(tmp_path / "a.h5", ("kappa", "tsz"))
    with fields_of(tmp_path / "a.h5", ("kappa", "tsz"), apart=True) as (_, attributes):
        assert attributes["mass_cut"] == 1e14


@pytest.mark.parametrize(
    "change",
    [
        {"objects": 1e14},
        {"seed": 5},
        {"regions": 5},
        {"pixel_arcmin": 2.0},
        {"n": 32},
        {"freqs": (93,)},
        {"catalogue_mjy": 2.0},
        {"tables": {"header": {"cosmology": "another"}}},
    ],
)
def test_a_part_of_another_set_is_refused(painter, tmp_path, change):
    painter.stop_at = 1
    with pytest.raises(KeyboardInterrupt):
        _paint(tmp_path / "a.h5")
    before = (tmp_path / "a.h5.part").read_bytes()
    painter.stop_at = None
    with pytest.raises(ValueError, match=r"a.h5.part: was begun with other settings"):
        _paint(tmp_path / "a.h5", **change)
    assert (tmp_path / "a.h5.part").read_bytes() == before
    assert painter.painted == [0]


def test_a_part_that_was_barely_begun(painter, tmp_path):
    with h5py.File(tmp_path / "a.h5.part", "w") as file:
        file.create_dataset("kappa", (1, 2, 2), "f4")
    _paint(tmp_path / "a.h5")
    assert _read(tmp_path / "a.h5")[0]["kappa"].shape == (4, N, N)


def test_bad_arguments(painter, tmp_path):
    (tmp_path / "a.h5").write_text("precious")
    with pytest.raises(ValueError, match=r"a.h5: exists already"):
        _paint(tmp_path / "a.h5")
    assert (tmp_path / "a.h5").read_text() == "precious"
    (tmp_path / "old.npz").write_text("junk")
    for message, change in (
        ("regions=0", {"regions": 0}),
        ("regions=2.5", {"regions": 2.5}),
        ("seed=-1", {"seed": -1}),
        ("seed=4: mlsky validate paints its regions with it", {"seed": seeds.VALIDATION}),
        (r"freqs=\[93.0, 93.0\]: each may occur only once", {"freqs": (93, 93)}),
        ("freqs holds 950 GHz: outside", {"freqs": (950,)}),
        ("freqs holds 10 GHz: outside", {"freqs": (93, 10)}),
        ("objects=0: must be a mass M200m in Msun from", {"objects": 0}),
        ("objects=1e.18: must be a mass", {"objects": 1e18}),
        (r"none.npz: no such file of painter tables", {"tables": tmp_path / "none.npz"}),
        (r"old.npz: not a file of painter tables", {"tables": tmp_path / "old.npz"}),
    ):
        with pytest.raises(ValueError, match=message):
            _paint(tmp_path / "b.h5", **change)
    with pytest.raises(ValueError, match="does not exist"):
        _paint(tmp_path / "none" / "b.h5")
    (tmp_path / "c.h5.part").write_text("junk")
    with pytest.raises(ValueError, match=r"c.h5.part: cannot be resumed"):
        _paint(tmp_path / "c.h5")
    assert painter.painted == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "c.h5.part", "old.npz"]


def test_too_little_disk_is_told_before_any_work(painter, tmp_path, monkeypatch):
    room = SimpleNamespace(free=int(0.5 * 2**30))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: room)
    # 11 maps of 512 x 512 float32 in each of 100 regions are 1.07 GiB
    with pytest.raises(ValueError, match=r"1\.\d\d GiB needed and 0.50 GiB free; make room"):
        _paint(tmp_path / "a.h5", regions=100, n=512)
    assert not list(tmp_path.iterdir())
    _paint(tmp_path / "a.h5")  # a small one fits


def test_what_is_asked_of_the_disk_is_what_is_written(tmp_path):
    painted.paint(tmp_path / "a.h5", 2, 5, 2.0, 64, freqs=(220,), progress=False)
    size = (tmp_path / "a.h5").stat().st_size
    need = painted._size(2, 64, 2.0, painted.map_names((220,)), 1.0) * 1.01 + 2**20
    assert size < need
    painted.paint(tmp_path / "b.h5", 2, 5, 2.0, 64, objects=2e12, progress=False)
    per_deg2 = painted._per_square_degree(shipped(), 2e12)
    need = painted._size(2, 64, 2.0, painted.map_names((), 2e12), 1.0, per_deg2) * 1.01 + 2**20
    with h5py.File(tmp_path / "b.h5") as file:
        assert len(file["objects"]) > 10_000  # what the rows need counts
    assert (tmp_path / "b.h5").stat().st_size < need
    with h5py.File(tmp_path / "a.h5") as file:
        region = halos.Painter(2.0, 64, shipped(), freqs=(220,)).region(5, 1)
        np.testing.assert_array_equal(file["cib"][1], region.maps[4].numpy())
        np.testing.assert_array_equal(file["cib_220"][1], region.cib[0].numpy())
        rows = _sources_of(file, 1)
        np.testing.assert_array_equal(rows, region.sources.numpy())
        # less than what is kept room for, of either kind
        assert 0 < len(rows) < painted.SOURCES_PER_DEG2 * (64 / 30) ** 2
