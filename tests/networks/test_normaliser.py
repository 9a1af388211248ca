"""Normaliser: eqs 5.2 and 5.3 by hand, exact inverse, derivative, fit, dict form."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from han2021_normaliser import HAN2021

from mlsky.networks.normaliser import Normaliser

# log1p/expm1 and one multiply-add in float64, |x''| up to about 40.
TOLERANCE_64 = 1e-12
# float32 keeps 6e-8 of x'' and x'; |x'| up to 9 here, error of x relative to |x| + s.
TOLERANCE_32 = 2e-6


def fields(dtype=np.float64, n=3):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((n, 5, 16, 16)) * np.array([0.08, 2.3, 10, 50, 20])[:, None, None]
    x[:, 2] = -np.abs(x[:, 2])
    x[:, 3:] = np.abs(x[:, 3:]) ** 2 * (rng.random((n, 2, 16, 16)) < 0.3)
    return x.astype(dtype)


def test_forward_is_equations_5_2_and_5_3():
    x = fields()
    y = HAN2021.forward(x)
    want = np.sign(x[:, 3]) * np.log(np.abs(x[:, 3]) / 17.1340107 + 1)
    np.testing.assert_allclose(
        y[:, 3], (want - 0.6045004) / 0.3485478, rtol=TOLERANCE_64, atol=TOLERANCE_64
    )
    np.testing.assert_allclose(y[:, 0], x[:, 0] / 0.0805742, rtol=TOLERANCE_64)
    assert (y[:, 2][x[:, 2] < 0] < 0.6293921 / 0.2863591).all()


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize(("dtype", "rtol"), [("float64", TOLERANCE_64), ("float32", TOLERANCE_32)])
def test_inverse_is_exact(kind, dtype, rtol):
    x = fields(dtype)
    given = torch.from_numpy(x) if kind == "torch" else x
    back = HAN2021.inverse(HAN2021.forward(given))
    assert type(back) is type(given)
    assert back.dtype == given.dtype
    scale = np.array([s or 0.0 for s in HAN2021.scale])[:, None, None]
    assert np.all(np.abs(np.asarray(back) - x) <= rtol * (np.abs(x) + scale))


def test_numpy_and_torch_agree():
    x = fields()
    np.testing.assert_allclose(
        HAN2021.forward(torch.from_numpy(x)).numpy(), HAN2021.forward(x), rtol=TOLERANCE_64
    )


def test_single_patch_and_half_precision():
    x = fields(np.float32)[0]
    np.testing.assert_array_equal(HAN2021.forward(x), HAN2021.forward(x[None])[0])
    assert HAN2021.forward(torch.from_numpy(x).bfloat16()).dtype == torch.float32


def test_derivative_at_an_empty_pixel():
    # d x''/d x at x = 0 is 1/(s d), from either side; autograd of sign(x) log|x| says 0.
    x = torch.zeros(1, 5, 1, 1, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(HAN2021.forward(x).sum(), x)
    want = [1 / ((s or 1) * d) for s, d in zip(HAN2021.scale, HAN2021.std, strict=True)]
    np.testing.assert_allclose(gradient[0, :, 0, 0], want, rtol=TOLERANCE_64)
    y = 2 * torch.randn(1, 5, 2, 2, generator=torch.Generator().manual_seed(1)).double()
    assert torch.autograd.gradcheck(HAN2021.inverse, y.requires_grad_(True))


def test_large_network_values_keep_finite_gradients():
    x = torch.full((1, 5, 1, 1), -60.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(HAN2021.inverse(x).sum(), x)
    assert torch.isfinite(gradient).all()


def test_fit_gives_unit_variance_over_the_pixels_it_used():
    x = fields()
    n = Normaliser.fit(x, HAN2021.channels, log=("tsz", "cib", "radio"))
    y = n.forward(x)
    assert n.mean[:2] == (0.0, 0.0)
    assert n.scale[:2] == (None, None)
    for index in range(5):
        used = y[:, index][x[:, index] != 0] if index > 1 else y[:, index]
        assert used.std() == pytest.approx(1, rel=1e-10)
        if index > 1:
            assert used.mean() == pytest.approx(0, abs=1e-10)
            assert n.scale[index] == pytest.approx(x[:, index].std(), rel=TOLERANCE_64)
    again = Normaliser.fit(torch.from_numpy(x), HAN2021.channels, log=("tsz", "cib", "radio"))
    assert again == n


def test_select_and_dict_form():
    part = HAN2021.select(["radio", "kappa"])
    x = fields()
    np.testing.assert_array_equal(part.forward(x[:, [4, 0]]), HAN2021.forward(x)[:, [4, 0]])
    assert Normaliser.from_dict(json.loads(json.dumps(HAN2021.to_dict()))) == HAN2021
    assert Normaliser(("a",), (0,), (0,), (1,)).scale == (None,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((("a", "a"), (None, None), (0, 0), (1, 1)), "different names"),
        ((("a",), (None, 1.0), (0,), (1,)), "one per channel"),
        ((("a",), (-1.0,), (0,), (1,)), "scale=-1.0 of a"),
        ((("a",), (None,), (float("nan"),), (1,)), "mean=nan of a"),
        ((("a",), (None,), (0,), (0,)), "std=0.0 of a"),
    ],
)
def test_numbers_that_cannot_be_inverted(arguments, message):
    with pytest.raises(ValueError, match=message):
        Normaliser(*arguments)


def test_numbers_of_some_channels_are_replaced():
    other = HAN2021.with_constants([("radio", 0.1, 0.0, 0.8)])
    assert other.select(["radio"]) == Normaliser(("radio",), (0.1,), (0.0,), (0.8,))
    rest = HAN2021.channels[:-1]
    assert other.select(rest) == HAN2021.select(rest)
    assert HAN2021.with_constants(()) == HAN2021
    with pytest.raises(ValueError, match=r"channel 'dust': must be one of kappa"):
        HAN2021.with_constants([("dust", 1.0, 0.0, 1.0)])


def test_wrong_fields():
    with pytest.raises(ValueError, match=r"must be \(\.\.\., 5, H, W\)"):
        HAN2021.forward(np.zeros((2, 4, 8, 8)))
    with pytest.raises(ValueError, match=r"'dust'.*kappa"):
        HAN2021.select(["dust"])
    with pytest.raises(ValueError, match="'a' is constant"):
        Normaliser.fit(np.ones((1, 1, 4, 4)), ["a"])
    with pytest.raises(ValueError, match="'a' holds NaN"):
        Normaliser.fit(np.full((1, 1, 4, 4), np.nan), ["a"])
    with pytest.raises(ValueError, match="'b': must be one of a"):
        Normaliser.fit(np.ones((1, 1, 4, 4)), ["a"], log=["b"])
    with pytest.raises(ValueError, match="normaliser="):
        Normaliser.from_dict({"channels": ["a"]})
