"""mlsky.validation.truth_templates: bands of a painted set made from others of it."""

from __future__ import annotations

import numpy as np
import pytest

from mlsky.frequency import cib_templates
from mlsky.haloes import region_sets
from mlsky.validation import truth, truth_text
from mlsky.validation.truth_templates import Templates

PRESET = "act-dr6"
#: White noise on 65,000 pixels.
NOISE = 0.02


def test_which_sets_have_templates():
    found = Templates.of((93.0, 353.0, 857.0), PRESET)
    assert found.bands_ghz == (93.0,)
    assert found.names == ["made_93"]
    assert Templates.of((93.0, 353.0), PRESET) is None
    assert Templates.of((353.0, 857.0), PRESET) is None  # nothing to make
    assert Templates.of((93.0, 353.0, 857.0), "another") is None


def test_bands_are_weights_of_the_templates_and_a_white_remainder():
    found = Templates.of((220.0, 353.0, 857.0), PRESET)
    law = cib_templates.load(PRESET)
    rng = np.random.default_rng(1)
    names = ["cib" if nu == 148 else f"cib_{nu:g}" for nu in law.templates_ghz]
    maps = {name: law.mean_uk * (1 + 0.1 * rng.random((256, 256))) for name in names}
    (made,) = found.make(maps, 3, 1e-6)
    weights = law.weights(np.array([220.0]))[0]
    rest = made - sum(w * maps[name] for w, name in zip(weights, names, strict=True))
    # the amplitude follows the first template
    variance = (law.noise_weights(np.array([220.0]))[0] ** 2).sum() / 1e-6
    white = rest / np.sqrt(maps[names[0]] / law.mean_uk)
    assert white.var() == pytest.approx(variance, rel=NOISE)
    assert np.array_equal(made, found.make(maps, 3, 1e-6)[0])
    assert not np.array_equal(made, found.make(maps, 4, 1e-6)[0])


def test_templates_of_a_painted_set(tmp_path):
    path = tmp_path / "set.h5"
    region_sets.paint(path, 3, 5, 2.0, 128, freqs=(93, 225, 353, 857), objects=1e14, progress=False)
    figures = truth.check(path, progress=False)
    table = figures["templates"]
    assert list(table["power"]) == ["93", "225"]
    assert table["ell"] == [band for band in figures["ell"] if band[1] <= 8000]
    for ratios in table["power"].values():
        assert np.abs(np.array(ratios) - 1).max() < 0.01
    assert list(table["r"]) == ["93 x 225"]
    assert table["r"]["93 x 225"] < 0.002
    assert table["reached"] is True
    text = "\n".join(truth_text.lines(figures))
    assert "CIB made of its templates at 148, 353, 857 GHz" in text
    assert "objects above 1e+14 Msun" in text
