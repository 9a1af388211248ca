"""Weight files whose networks and headers do not fit together are refused before any work."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from fakes import NARROW, coarse_rest, coarse_weights

from mlsky.errors import RegistryError
from mlsky.networks import default
from mlsky.networks.consistency import check_sky
from mlsky.networks.han2021 import PIXGAN, VAEGAN
from mlsky.networks.normaliser import Normaliser
from mlsky.networks.weights import network_header, open_weights, pack, save


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Whole files of the default family, of networks that are given clusters, of the paper."""
    folder = tmp_path_factory.mktemp("weights")
    fields = ("kappa", "ksz", "tsz", "cib", "radio")
    normaliser = Normaliser(fields, (None,) * 5, (0.0,) * 5, (1.0,) * 5)
    networks = {"pixgan": PIXGAN(width=1), "vaegan": VAEGAN(width=1)}
    entries = {name: network_header(module) for name, module in networks.items()}
    head = {"networks": entries, "normaliser": normaliser.to_dict(), "pixel_arcmin": 0.5}
    save(folder / "paper.safetensors", pack(networks), head)
    return {
        "all": open_weights(coarse_weights(folder / "all.safetensors")),
        "rest": open_weights(coarse_rest(folder / "rest.safetensors")),
        "paper": open_weights(folder / "paper.safetensors"),
    }


def test_whole_files_pass(opened):
    for weights in opened.values():
        check_sky(weights)


def of_kind(name, kind):
    return lambda h, n: h["networks"][name].update(architecture=kind)


def attribute(network, **values):
    return lambda h, n: [setattr(n[network], key, value) for key, value in values.items()]


def without(channel):
    def edit(head, networks):
        old = head["normaliser"]
        keep = [i for i, name in enumerate(old["channels"]) if name != channel]
        head["normaliser"] = {key: [values[i] for i in keep] for key, values in old.items()}

    return edit


GAINS = {"velocity_gains": [1.0] * 9}


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        (
            "all",
            of_kind("paint", "default:PointSources"),
            "network 'paint' is default:PointSources: must be",
        ),
        ("paper", of_kind("vaegan", "han2021:Critic"), "'vaegan' is han2021:Critic: must be"),
        ("all", without("tsz"), "its normaliser has kappa, ksz, cib, radio: must have kappa, ksz"),
        ("rest", without("cib_353"), "its normaliser has .*: must have .*cib_353"),
        ("rest", without("objects_tsz"), "its normaliser has .*: must have .*objects_tsz"),
        ("paper", without("radio"), "its normaliser has .*: must have .*radio"),
        ("all", lambda h, n: h.update(calibration=GAINS), "velocity_gains has 9 numbers: must be"),
        ("all", attribute("paint", kernel_widths=(1e9,)), "levels of noise and widths of kernels"),
        ("all", attribute("paint", kernel_widths=(0.6, 50.0, 1.2)), "the last kernel the widest"),
        ("all", attribute("paint", kernel_widths=(-1.0,)), "must be positive"),
        ("all", attribute("paint", kernel_widths=([1.0],)), "must be positive"),
        ("all", attribute("paint", velocity_levels=12), "a stride of at most 256"),
        ("rest", attribute("paint", objects=1), "take 2 and 1 maps of objects: must be both 0 or"),
        (
            "rest",
            attribute("paint", cib_templates=2),
            "paints 2 maps of the CIB: must be cib, ",
        ),
        ("rest", attribute("paint", cib_std=torch.ones(2)), "must be as many as templates"),
        ("rest", lambda h, n: h.update(part="all", mass_cut=None), "must give their mass_cut"),
        (
            "rest",
            lambda h, n: h.update(cib_templates=None),
            "paints 3 maps of the CIB: must",
        ),
        ("rest", lambda h, n: h["cib_templates"].update(preset="none"), "preset='none'"),
        ("rest", lambda h, n: h["cib_templates"].update(ghz=[148, 1, 2]), "at .* GHz: those of pr"),
        (
            "paper",
            lambda h, n: (h.update(overlap=20), n.update(pixgan=PIXGAN(width=1, noise=1))),
            "overlap=20 of tiles with noise: must be 0 or 64",
        ),
        ("paper", lambda h, n: n["pixgan"].kwargs.update(outputs=3), r"have \(1, 3, 5\) fields"),
    ],
)
def test_what_does_not_fit(opened, file, edit, message):
    weights = opened[file]
    header, networks = copy.deepcopy(weights.header), copy.deepcopy(weights.networks)
    edit(header, networks)
    with pytest.raises((RegistryError, ValueError), match=message) as caught:
        check_sky(dataclasses.replace(weights, header=header, networks=networks))
    assert "\n" not in str(caught.value)


def test_clusters_may_be_left_out_unseen(opened, tmp_path):
    """Networks that paint the rest and are not given the maps of clusters make a sky."""
    networks = {
        "convergence": default.Convergence(**NARROW),
        "paint": default.Paint(-0.26, 0.29, **NARROW, velocity_levels=3),
        "point_sources": default.PointSources(width=4),
    }
    weights = opened["all"]
    header = {**weights.header, "part": "rest", "mass_cut": 1e14}
    check_sky(dataclasses.replace(weights, header=header, networks=networks))
