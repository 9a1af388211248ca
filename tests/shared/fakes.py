"""Quick stand-ins for the slow stages, so that the chain itself can be tested in milliseconds.

They keep the signatures and shapes of the real stages, and every number comes from `mlsky.seeds`,
but no network runs and nothing is physical. `coarse_weights` is another way: a real, untrained
weight file of 20' pixels, with which a real sky takes some ten seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import torch
from pixell import enmap

import mlsky
from mlsky import seeds
from mlsky.frequency import cib_templates
from mlsky.networks import default
from mlsky.networks.normaliser import Normaliser
from mlsky.networks.weights import network_header, pack, save
from mlsky.sources import catalogue
from mlsky.sphere import pixel_window
from mlsky.sphere.multipoles import truncate

#: Band limit of the fake networks; small, so that a drawn kappa costs nothing.
KAPPA_LMAX = 47


#: Coarse pixels, so that the whole sky is a second's work.
PIXEL_ARCMIN = 20.0
NARROW = {"widths": (4, 4, 4), "noise": (1, 1, 1)}
PER_PIXEL = 0.5  # radio sources per chart pixel
DSFG_PER_SR = 300.0


@dataclass(frozen=True)
class FakeWeights:
    sha256: str = "0" * 64
    pixel_arcmin: float = 2.0
    header: dict = field(default_factory=dict)
    mass_cut: float | None = None


@dataclass
class Recorder:
    """What the fake stages were asked for."""

    kappa_alm: list = field(default_factory=list)
    correlated: list = field(default_factory=list)
    generate: list = field(default_factory=list)
    lens: list = field(default_factory=list)


def normal(seed: int, tile: int, shape) -> np.ndarray:
    return seeds.generator(seed, "truth", tile).standard_normal(shape).astype(np.float32)


def sources(seed: int):
    """400 sources over the sky, a fifth of them DSFGs, 0.3 to 300 mJy."""
    rng = seeds.generator(seed, "point_sources")
    n = 400
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    flux_mjy = 10 ** rng.uniform(-0.5, 2.5, n)
    kind = np.where(np.arange(n) % 5 == 0, "dsfg", "radio")
    return catalogue.make(ra, dec, flux_mjy, kind, seed)


def patch(rows: int):
    """(shape, wcs) of a CAR map of pixels of one degree, 12 columns wide."""
    whole = enmap.fullsky_geometry(np.radians(1), variant="fejer1")
    return enmap.slice_geometry(*whole, (slice(85, 85 + rows), slice(170, 182)))


def templates(seed: int, shape, law) -> np.ndarray:
    """Maps of the templates and of the remainder's noise, (n, *shape)."""
    return np.abs(normal(seed, 4, (law.n_templates + law.n_noise, *shape)))


def install(monkeypatch, header: dict | None = None) -> Recorder:
    """Put the fakes in place of foregrounds, spectra, Gaussian fields and lensing.

    `header` is that of the weights.
    """
    from mlsky import painting, sphere, theory

    record = Recorder()

    def select(weights, geometry):
        if weights != "default":
            raise mlsky.RegistryError(f"weights={weights!r}: must be one of default")
        return FakeWeights(header=header or {})

    def generate(
        kappa_alm, geometry, *, weights, seed, components, progress, store, averaged=False, **_
    ):
        record.kappa_alm.append(kappa_alm)
        record.generate.append(tuple(components))
        for step in (0.0, 0.5, 1.0):
            progress("networks", step)
        shape = geometry.shape
        maps = {
            "tsz": -np.abs(normal(seed, 1, shape)),
            "ksz": normal(seed, 2, shape),
            "cib": np.abs(normal(seed, 3, shape)),
        }
        law = cib_templates.of_header(weights.header)
        if law is not None:
            maps["cib"] = templates(seed, shape, law)
        kept = {name: store.array(name, maps[name].shape) for name in maps if name in components}
        if store.done(0) is None:  # finished charts are not painted again
            for name, values in kept.items():
                values[...] = maps[name]
            store.mark(0, {})
        kappa = store.array("kappa", shape)
        kappa[...] = 0.1 * normal(seed, 0, shape)
        if averaged:
            low = truncate(kappa_alm, min(geometry.lmax, KAPPA_LMAX))
            kappa[...] = pixel_window.of_alm(low, geometry)
        return SimpleNamespace(kappa_alm=kappa_alm, maps=kept, catalogue=sources(seed), kappa=kappa)

    def draw_alm(cl, seed, field="kappa"):
        size = len(cl) * (len(cl) + 1) // 2
        return normal(seed, 7, (size, 2)).astype(np.float64).view(np.complex128)[:, 0]

    def draw_cmb(cls, seed, kappa=None, *, polarised=True):
        record.correlated.append(kappa)
        return np.stack([draw_alm(cls["tt"], seed + 10 * i) for i in range(3 if polarised else 1)])

    def lens_pieces(cmb_alm, kappa_alm, geometry):
        record.lens.append(kappa_alm)
        maps = normal(5, 9, (3, *geometry.shape))[: len(cmb_alm)]
        maps = 100 * cmb_alm[0, :1].real.astype(np.float32) * maps
        yield np.arange(geometry.npix), maps.reshape(len(cmb_alm), -1)

    foregrounds = SimpleNamespace(
        select=select,
        kappa_lmax=lambda weights: KAPPA_LMAX,
        generate=generate,
        made_with=lambda weights, device: {"precision": "none"},
    )
    spectra = SimpleNamespace(
        kappa_spectrum=lambda lmax, cosmology=None: np.ones(lmax + 1),
        cmb_spectra=lambda lmax, cosmology=None: dict.fromkeys(
            ("tt", "ee", "bb", "te"), np.ones(lmax + 1)
        ),
    )
    gaussian = SimpleNamespace(
        draw_alm=draw_alm,
        map_to_alm=lambda values, geometry, lmax: np.full(
            (lmax + 1) * (lmax + 2) // 2, np.ravel(values)[0], np.complex128
        ),
    )
    monkeypatch.setattr(painting, "foregrounds", foregrounds, raising=False)
    # what another cosmology changes takes two halo models; networks follow it in tests of response
    monkeypatch.setattr("mlsky.theory.response.check", lambda cosmology, header, fields: None)
    monkeypatch.setattr("mlsky.theory.response.response", lambda cosmology, header, fields: None)
    monkeypatch.setattr(theory, "spectra", spectra, raising=False)
    monkeypatch.setattr(sphere, "gaussian", gaussian, raising=False)
    monkeypatch.setattr(sphere, "cmb", SimpleNamespace(draw_cmb=draw_cmb), raising=False)
    monkeypatch.setattr(sphere, "lensing", SimpleNamespace(pieces=lens_pieces), raising=False)
    return record


#: Frequencies of the CIB that networks of the rest paint, and how its templates are mixed.
TEMPLATES = {"ghz": [148, 353, 857], "preset": "act-dr6"}
MIX = [[1.0, 0.5], [0.9, 0.8], [0.8, 1.1]]


def rest_normaliser() -> Normaliser:
    """Means and widths of the maps of networks that are given clusters."""
    return Normaliser(
        (
            "kappa",
            *("objects_kappa", "objects_tsz"),
            *("ksz", "tsz"),
            *("cib", "cib_353", "cib_857"),
            "radio",
        ),
        (None, None, 3.4, None, 0.6, 16.4, 340.0, 450e3, 6.9),
        (0.0, 0.0, -0.15, 0.0, -0.6, 0.75, 0.75, 0.7, 1.4),
        (0.1, 0.03, 0.3, 2.5, 0.36, 0.32, 0.32, 0.3, 0.84),
    )


def coarse_rest(path, **header):
    """The same for networks that are given the maps of clusters and paint three templates."""
    rest = {"part": "rest", "mass_cut": 1e14, "cib_templates": TEMPLATES}
    colours = {"cib_mix": MIX, "cib_mean": [0.75, 0.75, 0.7], "cib_std": [0.32, 0.32, 0.3]}
    return _save_coarse(
        path,
        {
            "convergence": default.Convergence(**NARROW, objects=2, seed=1),
            "paint": default.Paint(
                *(-0.6, 0.36), **NARROW, velocity_levels=3, objects=2, **colours, seed=2
            ),
        },
        rest_normaliser(),
        **{**rest, **header},
    )


def coarse_normaliser() -> Normaliser:
    """Means and widths of the coarse networks' maps."""
    return Normaliser(
        ("kappa", "ksz", "tsz", "cib", "radio"),
        (None, None, 3.4, 16.4, 6.9),
        (0.0, 0.0, -0.26, 0.75, 1.4),
        (0.1, 2.5, 0.29, 0.32, 0.84),
    )


def coarse_weights(path, constant_rate=True, **header):
    """An untrained file of the default family with small networks."""
    networks = {
        "convergence": default.Convergence(**NARROW, seed=1),
        "paint": default.Paint(-0.26, 0.29, **NARROW, velocity_levels=3, seed=2),
    }
    return _save_coarse(path, networks, coarse_normaliser(), constant_rate, **header)


def _save_coarse(path, networks, normaliser, constant_rate=True, **header):
    networks["point_sources"] = default.PointSources(np.log(PER_PIXEL), width=4, seed=3)
    if constant_rate:
        torch.nn.init.zeros_(networks["point_sources"].head.weight)
    entries = {n: network_header(m) for n, m in networks.items()}
    save(
        path,
        pack(networks),
        {
            "networks": entries,
            "normaliser": normaliser.to_dict(),
            "pixel_arcmin": PIXEL_ARCMIN,
            "sources": {
                "dsfg": {"per_sr": DSFG_PER_SR, "flux_mjy": [7.0, 9.0, 20.0], "mean_cib_uk": 20.0}
            },
            **header,
        },
    )
    return path


def small_blobs(monkeypatch):
    """The recipe blobs-1 in miniature; the set of one blob has its size meanwhile."""
    from mlsky.toys import blobs
    from mlsky.training import recipes

    monkeypatch.setitem(blobs.BLOBS, 1, blobs.Blobs(1, size=32))
    return replace(
        recipes.recipe("blobs-1"),
        size=32,
        batch=2,
        generator_options={"size": 32, "nodes": 16, "latent": 4, "width": 2, "contrast": 9.0},
        critic_options={"channels": 1, "size": 32, "width": 2},
    )
