"""mlsky.frequency.cib_templates and their fit, against the spectra of the halo model."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from halo_cases import model, shipped

from mlsky import seeds
from mlsky.frequency import bands, cib_templates
from mlsky.haloes.painter import Painter
from mlsky.theory import cib_templates as fits
from mlsky.theory import foregrounds

#: Bands of the requirement, the templates among them; none but these and 20, 900 is fitted.
NU = np.array([27, 39, 93, 145, 148, 225, 280, 353, 545, 857, 900], float)
#: What issue and docs/decisions/0007 ask for.
R_NEAR, R_FAR, POWER_NEAR, POWER_FAR, R_CROSS = 0.002, 0.01, 0.01, 0.03, 0.01
#: Seven digits are kept, and cubic splines in ln nu between 14 nodes follow the mean.
MEAN = 2e-4
#: At 1000 GHz, beyond the fit: of r with any band from 93 GHz, and of the power.
TAIL = 0.02


@functools.cache
def truth() -> fits.Spectra:
    return fits.spectra(model(), NU, (7e-3, 148.0))


@functools.cache
def made() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spectra (sr) of templates and noise over the means, weights over the means, the law."""
    law = cib_templates.load()
    at = np.searchsorted(NU, law.templates_ghz)
    weights = law.weights(NU) / law.mean(NU)[:, None] * law.mean(law.templates_ghz)
    cl = np.einsum("ik,jm,kml->ijl", weights, weights, truth().total[np.ix_(at, at)])
    scale = law.mean(NU)
    noise = law.remainder_covariance(NU[:, None], NU) / (scale[:, None] * scale)
    return cl + noise[..., None], weights, at


def _correlation(cl):
    root = np.sqrt(np.einsum("iil->il", cl))
    return cl / (root[:, None] * root), root


def _error_of_r(low, high):
    chosen = np.flatnonzero((low <= NU) & (high >= NU))
    r_made, r_true = (_correlation(c)[0] for c in (made()[0], truth().total))
    return np.abs(r_made - r_true)[np.ix_(chosen, chosen)].max()


def test_correlations_of_bands():
    assert _error_of_r(93, 353) < R_NEAR
    assert _error_of_r(93, 857) < R_FAR


def test_without_the_remainder_bands_are_too_coherent():
    law = cib_templates.load()
    share = law.remainder_covariance(NU, NU) / law.mean(NU) ** 2 / np.diag(truth().shot)
    assert 0.02 < share[0] < 0.1  # at 27 GHz galaxies differ
    assert (share[(NU >= 93) & (NU <= 353)] < 0.01).all()


def test_power_of_bands():
    ratio = np.einsum("iil->il", made()[0]) / np.einsum("iil->il", truth().total)
    assert np.abs(ratio - 1)[(NU >= 93) & (NU <= 353)].max() < POWER_NEAR
    assert np.abs(ratio - 1).max() < POWER_FAR


@pytest.mark.parametrize("name", ["kappa", "tsz"])
def test_correlation_with_kappa_and_tsz(name):
    cl, weights, at = made()
    cross = getattr(truth(), name)
    of_made = weights @ cross[at] / _correlation(cl)[1]
    of_truth = cross / _correlation(truth().total)[1]
    assert np.abs(of_made - of_truth).max() < R_CROSS


def test_mean_of_every_band():
    law = cib_templates.load()
    from mlsky.frequency.bands import jy_per_sr_per_uk

    mean = truth().mean / jy_per_sr_per_uk(NU)
    np.testing.assert_allclose(law.mean(NU), mean, rtol=MEAN)
    np.testing.assert_allclose(law.weights(NU) @ law.mean(law.templates_ghz), mean, rtol=MEAN)


def test_spectra_are_those_of_the_analytic_model():
    ell = np.array([500.0, 3000.0])
    cl = foregrounds.foreground_spectra(ell, 225.0, 545.0, ("cib",))["cib x cib"]
    i, j = np.searchsorted(NU, (225.0, 545.0))
    chosen = (model().ell >= fits.ELL_RANGE[0]) & (model().ell <= fits.ELL_RANGE[1])
    at = model().ell[chosen][np.linspace(0, chosen.sum() - 1, fits.N_ELL).round().astype(int)]
    uk = np.prod([foregrounds._uk_per_jy_sr(nu) for nu in (225.0, 545.0)])
    ours = truth().total[i, j] * truth().mean[i] * truth().mean[j] * uk
    ours = np.exp(np.interp(np.log(ell), np.log(at), np.log(ours)))
    np.testing.assert_allclose(ours, cl, rtol=0.02)  # straight lines between 12 multipoles


@pytest.mark.parametrize("preset", ["act-dr6", "spt-3g-d1", "planck", "agora"])
def test_templates_are_themselves(preset):
    law = cib_templates.load(preset)
    np.testing.assert_allclose(law.weights(law.templates_ghz), np.eye(3), atol=1e-12)
    np.testing.assert_allclose(law.noise_weights(law.templates_ghz), 0, atol=1e-20)


def test_presets_differ():
    act, planck = (cib_templates.load(p) for p in ("act-dr6", "planck"))
    assert np.abs(planck.colour(545.0) / act.colour(545.0) - 1) > 0.02


def test_remainder_is_a_covariance():
    law = cib_templates.load()
    nu = np.geomspace(20, 900, 50)
    covariance = law.remainder_covariance(nu[:, None], nu) / np.outer(law.mean(nu), law.mean(nu))
    value = np.linalg.eigvalsh(covariance)
    assert value[0] > -1e-12 * value[-1]
    np.testing.assert_array_equal(
        law.remainder_covariance(93.0, 225.0), law.remainder_covariance(225.0, 93.0)
    )


def test_shapes_and_round_trip():
    law = cib_templates.load()
    assert law.weights(93.0).shape == (3,)
    assert law.weights([[93.0, 145.0]]).shape == (1, 2, 3)
    assert law.noise_weights([93.0, 145.0]).shape == (2, law.n_noise)
    again = cib_templates.CibTemplates.from_dict(law.to_dict())
    np.testing.assert_array_equal(again.weights(225.0), law.weights(225.0))


def test_tails_of_bands_above_900_ghz():
    """At 1000 GHz, where no node lies: the mean, the power, and correlations with bands."""
    law, nu = cib_templates.load(), np.array([93, 148, 353, 545, 857, 1000], float)
    found = fits.spectra(model(), nu, (7e-3, 148.0))
    at = np.searchsorted(nu, law.templates_ghz)
    share = law.weights(nu) / law.mean(nu)[:, None] * law.mean(law.templates_ghz)
    noise = law.noise_weights(nu) / law.mean(nu)[:, None]
    made = np.einsum("ik,jm,kml->ijl", share, share, found.total[np.ix_(at, at)])
    made += (noise @ noise.T)[..., None]
    roots = [np.sqrt(np.einsum("iil->il", c)) for c in (found.total, made)]
    r_true, r = (c / (s[-1] * s) for c, s in zip((found.total[-1], made[-1]), roots, strict=True))
    assert np.abs(r - r_true).max() < TAIL
    assert np.abs(roots[1][-1] ** 2 / roots[0][-1] ** 2 - 1).max() < TAIL
    expected = found.mean[-1] / found.mean[1]
    to_uk = bands.jy_per_sr_per_uk(148.0) / bands.jy_per_sr_per_uk(1000.0)
    assert law.colour(1000.0) == pytest.approx(expected * to_uk, rel=1e-3)
    # continued without a step
    low, high = law.weights(np.array([900 - 1e-6, 900 + 1e-6]))
    np.testing.assert_allclose(low, high, rtol=1e-6)


@pytest.mark.parametrize("nu", [19.0, 1151.0, -1.0, np.nan, [93.0, 1e4]])
def test_out_of_range(nu):
    with pytest.raises(ValueError, match="CIB templates hold from 20 to 1150 GHz"):
        cib_templates.load().weights(nu)


def test_unknown_preset():
    with pytest.raises(ValueError, match="preset='s10': CIB templates are fitted for act-dr6"):
        cib_templates.load("s10")


@pytest.mark.parametrize("templates", [[353.0, 857.0], [148.0, 1000.0], [10.0, 148.0]])
def test_templates_that_cannot_be(templates):
    with pytest.raises(ValueError, match="148 among them"):
        fits.fit_model(model(), templates_ghz=templates)


def test_templates_of_a_weight_file():
    assert cib_templates.of_header({}) is None
    law = cib_templates.of_header({"cib_templates": {"ghz": [148, 353, 857], "preset": "planck"}})
    np.testing.assert_array_equal(law.share, cib_templates.load("planck").share)
    with pytest.raises(ValueError, match=r"templates at \[148, 545\] GHz"):
        cib_templates.of_header({"cib_templates": {"ghz": [148, 545], "preset": "planck"}})
    assert cib_templates.map_names(law.templates_ghz) == ("cib", "cib_353", "cib_857")


def test_against_galaxies_painted_at_the_band():
    """On four regions: one sky, so its own scatter does not count, but the remainder's does."""
    law, nu = cib_templates.load(), np.array([93.0, 225.0, 353.0, 545.0, 857.0])
    n = 128
    painter = Painter(2.0, n, shipped(), freqs=nu)
    k = 2 * np.pi * np.fft.fftfreq(n, painter.pixel)
    ell = np.hypot(k[:, None], k[None, : n // 2 + 1])
    inside = (ell > 300) & (ell < 5000)
    painted, made = 0, 0
    for index in range(4):
        region = painter.region(3, index)
        cib = region.cib.double().numpy()
        templates = np.stack([region.maps[4].double().numpy(), cib[2], cib[4]])
        noise = seeds.generator(3, "cib_remainder", index).standard_normal((law.n_noise, n, n))
        noise *= np.sqrt(np.maximum(templates[0], 0) / law.mean_uk) / painter.pixel
        ours = np.tensordot(law.weights(nu), templates, 1)
        ours += np.tensordot(law.noise_weights(nu), noise, 1)
        assert np.abs(ours.mean((1, 2)) / cib.mean((1, 2)) - 1).max() < 2e-3
        first, second = (np.fft.rfft2(m)[:, inside] for m in (cib, ours))
        painted = painted + (first @ first.conj().T).real
        made = made + (second @ second.conj().T).real
    r = [_correlation(c[..., None])[0][..., 0] for c in (painted, made)]
    near = nu <= 353
    assert np.abs(r[1] - r[0])[np.ix_(near, near)].max() < R_NEAR
    assert np.abs(r[1] - r[0]).max() < R_FAR
    ratio = np.diag(made) / np.diag(painted)
    assert np.abs(ratio - 1)[near].max() < POWER_NEAR
    assert np.abs(ratio - 1).max() < POWER_FAR
