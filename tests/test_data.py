"""Training sets: painting that can be interrupted, and crops with the sky's symmetries."""

from __future__ import annotations

import json
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch

from mlsky import seeds
from mlsky.training import data
from mlsky.training.data import Crops, fields_of, paint

N = 16


class TinyPainter:
    """The painter's face, with numbers that depend on (seed, index) alone."""

    stop_at: int | None = None
    painted: list[int]

    def __init__(self, pixel_arcmin, n, device="cpu"):
        self.n, self.t = n, {"header": {"cosmology": "test"}}

    def region(self, seed, index):
        if index == type(self).stop_at:
            raise KeyboardInterrupt
        type(self).painted.append(index)
        rng = seeds.generator(seed, "truth", index)
        return SimpleNamespace(
            maps=torch.from_numpy(rng.standard_normal((6, self.n, self.n)).astype(np.float32))
        )

    def gaussian_start(self, kappa_g):
        return kappa_g / 2


@pytest.fixture
def painter(monkeypatch):
    monkeypatch.setattr("mlsky.datasets.halos.Painter", TinyPainter)
    monkeypatch.setattr(TinyPainter, "stop_at", None)
    monkeypatch.setattr(TinyPainter, "painted", [], raising=False)
    return TinyPainter


def _paint(path, **options):
    paint(path, **{"regions": 4, "seed": 3, "n": N, "progress": False, **options})


def _read(path):
    with h5py.File(path) as file:
        return {k: file[k][:] for k in file}, dict(file.attrs)


def test_an_interrupted_set_goes_on_to_the_same_bits(painter, tmp_path):
    whole, stopped = tmp_path / "whole.h5", tmp_path / "stopped.h5"
    _paint(whole)
    painter.stop_at = 2
    with pytest.raises(KeyboardInterrupt):
        _paint(stopped)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["stopped.h5.part", "whole.h5"]
    painter.stop_at, painter.painted[:] = None, []
    _paint(stopped)
    assert painter.painted == [2, 3]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["stopped.h5", "whole.h5"]
    (a, attrs), (b, _) = _read(whole), _read(stopped)
    assert set(a) == set(data.FIELDS)
    for name in a:
        assert a[name].shape == (4, N, N)
        assert a[name].dtype == np.float32
        np.testing.assert_array_equal(a[name], b[name])
    np.testing.assert_array_equal(a["kappa_in"], a["kappa_g"] / 2)
    assert (attrs["pixel_arcmin"], attrs["seed"], attrs["done"]) == (0.5, 3, 4)
    assert json.loads(attrs["source"]) == {"cosmology": "test"}


@pytest.mark.parametrize("change", [{"seed": 4}, {"regions": 5}, {"pixel_arcmin": 2.0}, {"n": 32}])
def test_a_part_of_another_set_is_refused(painter, tmp_path, change):
    painter.stop_at = 1
    with pytest.raises(KeyboardInterrupt):
        _paint(tmp_path / "a.h5")
    before = (tmp_path / "a.h5.part").read_bytes()
    painter.stop_at = None
    with pytest.raises(ValueError, match=r"a.h5.part: was begun with other settings"):
        _paint(tmp_path / "a.h5", **change)
    assert (tmp_path / "a.h5.part").read_bytes() == before


def test_a_part_that_was_barely_begun(painter, tmp_path):
    with h5py.File(tmp_path / "a.h5.part", "w") as file:
        file.create_dataset("kappa", (1, 2, 2), "f4")
    _paint(tmp_path / "a.h5")
    assert _read(tmp_path / "a.h5")[0]["kappa"].shape == (4, N, N)


def test_bad_arguments_of_paint(painter, tmp_path):
    (tmp_path / "a.h5").write_text("precious")
    with pytest.raises(ValueError, match=r"a.h5: exists already"):
        _paint(tmp_path / "a.h5")
    assert (tmp_path / "a.h5").read_text() == "precious"
    with pytest.raises(ValueError, match="regions=0"):
        _paint(tmp_path / "b.h5", regions=0)
    with pytest.raises(ValueError, match="seed=-1"):
        _paint(tmp_path / "b.h5", seed=-1)
    with pytest.raises(ValueError, match="does not exist"):
        _paint(tmp_path / "none" / "b.h5")
    (tmp_path / "c.h5.part").write_text("junk")
    with pytest.raises(ValueError, match=r"c.h5.part: cannot be gone on with"):
        _paint(tmp_path / "c.h5")
    assert painter.painted == []


def _write(path, pixel_arcmin=0.5, **fields):
    with h5py.File(path, "w") as file:
        file.attrs["pixel_arcmin"] = pixel_arcmin
        for name, values in fields.items():
            file[name] = values
    return path


def _ramp(n, regions=1):
    """Numbers that half precision holds exactly and that tell every pixel (n <= 32)."""
    return np.arange(regions * n * n, dtype=np.float32).reshape(regions, n, n) + 1


def _d4(x):
    return [np.rot90(y, k) for y in (x, x.T) for k in range(4)]


def _is_one_of(crop, candidates):
    return any(np.array_equal(crop, c) for c in candidates)


def test_crops_of_a_periodic_region_are_rolled_turned_and_flipped(tmp_path):
    n, size = 24, 16
    ramp = _ramp(n)
    crops = Crops(_write(tmp_path / "a.h5", kappa=ramp), ("kappa",), size, seed=1)
    allowed = {
        turned.tobytes()
        for y in range(n)
        for x in range(n)
        for turned in _d4(np.roll(ramp[0], (-y, -x), (0, 1))[:size, :size])
    }
    batch = crops.batch(0, 64)
    assert batch.shape == (64, 1, size, size)
    assert batch.dtype == torch.float32
    seen = {np.ascontiguousarray(b[0]).tobytes() for b in batch.numpy()}
    assert len(seen) > 50
    assert seen <= allowed
    # across the edge, too: an unbroken ramp is what most patches would be otherwise
    jumps = np.abs(np.diff(batch.numpy()[:, 0], axis=1)).max((1, 2))
    assert (jumps > 3 * n).any()


def test_patches_of_the_size_of_a_crop_are_not_rolled(tmp_path):
    """They are independent: their edges do not meet."""
    n = 16
    ramp = _ramp(n, 3)
    crops = Crops(_write(tmp_path / "a.h5", kappa=ramp), ("kappa",), n)
    allowed = [turned for patch in ramp for turned in _d4(patch)]
    batch = crops.batch(0, 100).numpy()[:, 0]
    assert all(_is_one_of(crop, allowed) for crop in batch)
    assert len({crop.tobytes() for crop in batch}) == 24  # three patches, eight ways


def test_a_batch_is_always_the_same(tmp_path):
    path = _write(tmp_path / "a.h5", kappa=_ramp(24))
    a, b = (Crops(path, ("kappa",), 16, seed=5) for _ in "ab")
    b.batch(0, 4)
    assert torch.equal(a.batch(7, 4), b.batch(7, 4))
    assert torch.equal(a.batch(7, 2), b.batch(7, 4)[:2])
    assert not torch.equal(a.batch(7, 4), a.batch(8, 4))
    assert not torch.equal(a.batch(7, 4), Crops(path, ("kappa",), 16, seed=6).batch(7, 4))


def test_fields_stay_aligned_and_only_the_sign_of_ksz_is_drawn(tmp_path):
    ramp = _ramp(24)
    path = _write(tmp_path / "a.h5", kappa=ramp, ksz=ramp, tsz=-ramp)
    kappa, ksz, tsz = Crops(path, ("kappa", "ksz", "tsz"), 16).batch(0, 100).unbind(1)
    assert torch.equal(tsz, -kappa)
    sign = (ksz / kappa).flatten(1)
    assert (sign == sign[:, :1]).all()
    assert (sign.abs() == 1).all()
    assert 30 < (sign[:, 0] > 0).sum() < 70


def test_bad_sets(tmp_path):
    good = _write(tmp_path / "a.h5", kappa=_ramp(16))
    with pytest.raises(ValueError, match=r"a.h5: lacks ksz, tsz; a training set has"):
        fields_of(good, ("kappa", "ksz", "tsz"))
    with pytest.raises(ValueError, match=r"regions of 16 pixels, crops of 32"):
        Crops(good, ("kappa",), 32)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["kappa"] = _ramp(16)
    with pytest.raises(ValueError, match="lacks the attribute pixel_arcmin"):
        fields_of(tmp_path / "b.h5", ("kappa",))
    (tmp_path / "c.h5").write_text("junk")
    for name in ("c.h5", "none.h5"):
        with pytest.raises(ValueError, match=f"{name}: cannot be read as HDF5"):
            fields_of(tmp_path / name, ("kappa",))
    for bad in (np.nan, np.inf, 7e4):
        values = _ramp(16)
        values[0, 3, 3] = bad
        with pytest.raises(ValueError, match="holds NaN, infinity or values beyond 65504"):
            Crops(_write(tmp_path / "d.h5", kappa=values), ("kappa",), 16)
