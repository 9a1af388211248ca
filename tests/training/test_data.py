"""Training sets: crops with the sky's symmetries."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import torch
from stub_painter import CountingPainter, StubPainter

from mlsky import seeds
from mlsky.io.sets import attributes_of
from mlsky.training.data import Crops, Painted, painted

N = 16


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


def test_the_regions_of_validation_are_not_trained_on(tmp_path):
    """Neither as a set of an earlier version nor painted as training goes."""
    path = _write(tmp_path / "a.h5", kappa=_ramp(24))
    for seed, source, kept in (
        (seeds.VALIDATION, "painted", False),
        (seeds.VALIDATION + 1, "painted", True),
        (seeds.VALIDATION, "cut", True),  # the seed of its places: another sky
    ):
        with h5py.File(path, "a") as file:
            header = {"cosmology": "planck2018"} if source == "painted" else {"maps": "agora"}
            file.attrs.update(seed=seed, source=json.dumps(header))
        if kept:
            assert Crops(path, ("kappa",), N).patches == 1
        else:
            with pytest.raises(ValueError, match=r"a\.h5: painted with seed 4, on whose regions"):
                Crops(path, ("kappa",), N)
    with pytest.raises(ValueError, match="seed=4: mlsky validate paints its regions with it"):
        Painted(StubPainter(N), ("kappa",), N, seed=seeds.VALIDATION)


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


@pytest.mark.parametrize(
    ("symmetries", "images", "signs"),
    [((), 1, {1}), (("flips",), 4, {1}), (("turns",), 2, {1}), (("flips", "ksz_sign"), 4, {1, -1})],
)
def test_fewer_symmetries(tmp_path, symmetries, images, signs):
    ramp = _ramp(16)  # of the size of a crop: not rolled
    path = _write(tmp_path / "a.h5", kappa=ramp, ksz=ramp)
    crops = Crops(path, ("kappa", "ksz"), 16, symmetries=symmetries)
    kappa, ksz = crops.batch(0, 64).unbind(1)
    assert len({k.numpy().tobytes() for k in kappa}) == images
    assert set((ksz / kappa).flatten().tolist()) == signs


def test_unknown_symmetries(tmp_path):
    path = _write(tmp_path / "a.h5", kappa=_ramp(16))
    with pytest.raises(ValueError, match=r"symmetries: mirror unknown; known are flips, turns"):
        Crops(path, ("kappa",), 16, symmetries=("mirror", "flips"))


def test_bad_sets(tmp_path):
    good = _write(tmp_path / "a.h5", kappa=_ramp(16))
    with pytest.raises(ValueError, match=r"a.h5: lacks ksz, tsz; a training set has"):
        attributes_of(good, ("kappa", "ksz", "tsz"))
    with pytest.raises(ValueError, match=r"regions of 16 pixels, crops of 32"):
        Crops(good, ("kappa",), 32)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["kappa"] = _ramp(16)
    with pytest.raises(ValueError, match="lacks the attribute pixel_arcmin"):
        attributes_of(tmp_path / "b.h5", ("kappa",))
    (tmp_path / "c.h5").write_text("junk")
    for name in ("c.h5", "none.h5"):
        with pytest.raises(ValueError, match=f"{name}: cannot be read as HDF5"):
            attributes_of(tmp_path / name, ("kappa",))
    for bad in (np.nan, np.inf):
        values = _ramp(16)
        values[0, 3, 3] = bad
        with pytest.raises(ValueError, match="kappa holds NaN or infinity; mend it first"):
            Crops(_write(tmp_path / "d.h5", kappa=values), ("kappa",), 16)


def test_no_painted_pixel_comes_twice():
    painter = CountingPainter(64)
    source = Painted(painter, ("kappa", "ksz"), 16, seed=3, regions=2)
    whole_groups = [source.batch(step, 8) for step in range(3 * 4)]  # 2 x 16 patches a group
    source.close()
    pixels = torch.cat(whole_groups)[:, 0].flatten().numpy()
    np.testing.assert_array_equal(np.sort(pixels), np.arange(6 * 64**2) + 1)
    # batches mix the regions of a group, and tiles are not where they were painted
    assert all(len({int(x - 1) // 64**2 for x in b[:, 0, 0, 0]}) == 2 for b in whole_groups)
    assert any(np.ptp(p.numpy()) > 16 * 64 for p in whole_groups[0][:, 0])


def test_painted_patches_are_turned_and_signed():
    source = Painted(CountingPainter(64), ("kappa", "ksz", "tsz"), 16, seed=3, regions=1)
    kappa, ksz, tsz = torch.cat([source.batch(i, 16) for i in range(4)]).unbind(1)
    source.close()
    assert torch.equal(tsz, kappa)
    sign = (ksz / kappa).flatten(1)
    assert (sign == sign[:, :1]).all()
    assert 16 < (sign[:, 0] > 0).sum() < 48
    steps = {(int(p[0, 1] - p[0, 0]) % 64, int(p[1, 0] - p[0, 0]) % 64) for p in kappa[:, 8:, 8:]}
    assert len(steps) > 3


def test_painted_patches_depend_on_seed_and_number_alone():
    names = ("kappa", "kappa_in", "cib")
    a, b, c = (Painted(StubPainter(32), names, 16, seed=s, regions=2) for s in (5, 5, 6))
    b.batch(0, 4)
    far = a.batch(7, 4)  # also if begun in the middle, or across groups of 8 patches
    assert far.dtype == torch.float32
    assert torch.equal(far, b.batch(7, 4))
    assert torch.equal(a.batch(1, 6)[2:6], a.batch(2, 4))
    assert torch.equal(a.batch(0, 4), b.batch(0, 4))
    assert not torch.equal(a.batch(0, 4), c.batch(0, 4))
    assert a.sample().shape == (2, 3, 32, 32)
    for source in (a, b, c):
        source.close()


def test_painted_groups_are_forgotten_and_the_next_is_painted_ahead():
    painter = StubPainter(32)
    source = Painted(painter, ("kappa",), 16, regions=2)
    for step in range(40):
        source.batch(step, 4)
        assert set(source._groups) <= {step // 2, step // 2 + 1}
    source.close()
    # each region once, in order, one group ahead of what was asked for
    assert painter.painted == list(range(len(painter.painted)))
    assert 40 <= len(painter.painted) <= 42


def test_what_a_painter_thread_raises_is_raised():
    painter = StubPainter(32)
    painter.region = lambda seed, index: 1 / 0
    source = Painted(painter, ("kappa",), 16)
    with pytest.raises(ZeroDivisionError):
        source.batch(0, 1)
    source.close()


def test_the_painter_itself():
    source = painted(5, ("kappa", "kappa_in", "tsz"), n=128, size=64, regions=1)
    batch = source.batch(0, 4)
    source.close()
    assert source.attrs == {"pixel_arcmin": 0.5, "seed": 5}
    assert batch.shape == (4, 3, 64, 64)
    assert torch.isfinite(batch).all()
    kappa, start, tsz = batch.unbind(1)
    assert torch.corrcoef(torch.stack([kappa.flatten(), start.flatten()]))[0, 1] > 0.3
    assert (tsz <= 0).all()


def test_bad_painted():
    with pytest.raises(ValueError, match="field 'y': must be one of kappa, "):
        Painted(StubPainter(32), ("y",), 16)
    with pytest.raises(ValueError, match="regions of 32 pixels, patches of 64 asked for"):
        Painted(StubPainter(32), ("kappa",), 64)
    with pytest.raises(ValueError, match="regions=0: must be at least 1"):
        Painted(StubPainter(32), ("kappa",), 16, regions=0)
    with pytest.raises(ValueError, match="seed=-1"):
        Painted(StubPainter(32), ("kappa",), 16, seed=-1)
