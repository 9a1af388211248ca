"""Training sets: crops with the sky's symmetries."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from mlsky.training.data import Crops, fields_of

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
