"""``mlsky cite``: what to cite for a sky, or for weights, and why."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["cite"]

#: Software that makes parts of every sky: ADS bibcode and why.
SOFTWARE = (
    ("2000ApJ...538..473L", "CAMB: spectra of the CMB and of kappa"),
    ("2023A&A...678A.165R", "lensing of the CMB, by ducc and the method of lenspyx"),
)
HEALPIX = ("2005ApJ...622..759G", "HEALPix pixels")


@click.command()
@click.argument("what", default="default")
def cite(what: str) -> None:
    """Print what to cite for WHAT, and why: a file of a sky or of weights, or a name of weights."""
    from mlsky import registry
    from mlsky.io import fetch

    rows: list[tuple[str, str]] = []
    suffix = Path(what).suffix.lower()
    if suffix in (".h5", ".hdf5", ".fits"):
        from mlsky.sky import Sky

        sky = Sky.read(what, lazy=True)
        weights = sky.meta.get("weights", {})
        found = _of_weights(weights.get("name", "default"), weights.get("sha256", ""))
        if sky.geometry.kind == "healpix":
            rows.append(HEALPIX)
        for component, package in sky.meta.get("plugins", {}).items():
            rows.append((package, f"the component {component}"))
    elif suffix == ".safetensors":
        from mlsky.networks.weights import read_header

        read_header(what)  # errors of a file that is no weight file
        found = _of_weights(what, fetch.sha256_of(Path(what)))
    else:
        found = _references(registry.cite(what))
    for key, why in (*found, *SOFTWARE, *rows):
        click.echo(f"{key:<22} {why}")


def _of_weights(name: str, sha256: str) -> list[tuple[str, str]]:
    """References of weights of a name and a hash; the hash counts, as names get new versions."""
    from mlsky import registry
    from mlsky.errors import RegistryError

    known = registry.of_file(sha256)
    try:
        return _references(registry.cite(known or name))
    except RegistryError:
        told = f"weights that the registry does not have (sha256 {sha256[:16]})"
        return [(Path(name).name, f"{told}: cite what their authors ask for")]


def _references(entries: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(entry["key"], entry["why"]) for entry in entries]
