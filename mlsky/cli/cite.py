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
    """Print what to cite for WHAT, and why: a sky file, or a name of weights (default)."""
    from mlsky import registry

    rows: list[tuple[str, str]] = []
    if Path(what).suffix.lower() in (".h5", ".hdf5", ".fits"):
        from mlsky.sky import Sky

        sky = Sky.read(what, lazy=True)
        name = sky.meta.get("weights", {}).get("name", "default")
        if sky.geometry.kind == "healpix":
            rows.append(HEALPIX)
        for component, package in sky.meta.get("plugins", {}).items():
            rows.append((package, f"the component {component}"))
    else:
        name = what
    found = [(entry["key"], entry["why"]) for entry in registry.cite(name)]
    for key, why in (*found, *SOFTWARE, *rows):
        click.echo(f"{key:<22} {why}")
