"""Pictures of the steps of the paper's chain."""

from __future__ import annotations

import numpy as np
import pytest

from mlsky.plotting import chain_figures


def test_colours_are_those_of_the_truth():
    rng = np.random.default_rng(0)
    patches = {name: rng.normal(0, s, (5, 16, 16)) for name, s in (("truth", 1), ("chain", 3))}
    drawing = chain_figures.figure(patches, 0.5)
    panels = np.reshape(drawing.axes, (2, 5))
    assert [row[0].get_ylabel() for row in panels] == ["truth", "chain"]
    for j, (above, below) in enumerate(panels.T):
        limits = above.images[0].get_clim()
        assert limits == below.images[0].get_clim()
        assert limits == pytest.approx(np.quantile(patches["truth"][j], (0.002, 0.998)))
        assert above.images[0].get_extent() == [0, 8, 0, 8]
        assert f"{patches['chain'][j].max():.3g}" in below.get_title()


@pytest.mark.parametrize("shapes", [[], [(4, 8, 8)], [(5, 8, 8), (5, 4, 4)], [(5, 8)]])
def test_patches_that_cannot_be_drawn(shapes):
    with pytest.raises(ValueError, match=r"must be \(5, n, n\), all of one size"):
        chain_figures.figure({str(i): np.zeros(s) for i, s in enumerate(shapes)}, 0.5)
