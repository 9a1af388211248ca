"""``mlsky simulate`` and ``mlsky plot``."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import click

from mlsky.cli.config import dump, with_config
from mlsky.cli.options import InPlaceOf, ManyValues, bands, beams, progress_bar, resumable, split
from mlsky.signature import DEFAULTS, Arguments

__all__ = ["plot", "read_options", "simulate", "with_options"]


class Monopole(click.types.BoolParamType):
    """A truth value; in files also names of the maps that keep their mean."""

    def convert(self, value, param: click.Parameter | None, ctx: click.Context | None):
        many = value if isinstance(value, list) else [value]
        if isinstance(value, bool) or all(isinstance(name, str) for name in many):
            return value  # `mlsky.simulate` knows the names
        self.fail(f'{value!r}: must be true, false, or names as ["cib"]', param, ctx)

    @staticmethod
    def text(value: bool | str | list) -> bool | str | list:
        """The value as it is written in a file."""
        return value


#: Command line options of the arguments of `mlsky.simulate`. The name of an option is that of the
#: argument, or "flag"; the default is that of the argument.
OPTIONS = {
    "freqs": {
        "required": True,
        "multiple": True,
        "callback": bands,
        "metavar": "BAND...",
        "help": "Bands: GHz, or names such as so_lat/f150 (docs/bands).",
    },
    "nside": {
        "cls": InPlaceOf,
        "other": "geometry",
        "type": int,
        "help": "HEALPix resolution, a power of two.",
    },
    "geometry": {
        "flag": "--car",
        "cls": InPlaceOf,
        "other": "nside",
        "type": float,
        "metavar": "ARCMIN",
        "help": "Full-sky CAR map (Fejer-1) instead.",
    },
    "seed": {"type": int},
    "cmb_seed": {"type": int, "help": "Seed of the unlensed CMB alone.  [default: seed]"},
    "components": {
        "multiple": True,
        "callback": split,
        "metavar": "NAME...",
        "help": "[default: all]",
    },
    "stokes": {},
    "unit": {},
    "flux_cut_mjy": {
        "cls": InPlaceOf,
        "other": "flux_cut",
        "type": float,
        "help": "Leave brighter sources out (at 148 GHz).",
    },
    "flux_cut": {
        "cls": InPlaceOf,
        "other": "flux_cut_mjy",
        "nargs": 2,
        "type": (float, str),
        "metavar": "MJY BAND",
        "help": "Leave sources out that are brighter in a band: 15 150, or 7 spt3g/150.",
    },
    "beam": {
        "multiple": True,
        "callback": beams,
        "metavar": "ARCMIN...",
        "help": "FWHM of the beam: one for all bands, or one for each.",
    },
    "pixel_window": {
        "flag": "--pixel-window/--no-pixel-window",
        "help": "Averages over pixels, or samples at their centres (needs --beam).",
    },
    "tsz_temperature_kev": {
        "type": float,
        "help": "Electron temperature: tSZ with corrections for it.",
    },
    "monopole": {
        "flag": "--monopole/--no-monopole",
        "type": Monopole(),
        "help": "Whether the CIB keeps its mean over the sky.",
    },
    "cosmology": {},
    "weights": {"help": "See mlsky weights list."},
    "kappa": {
        "type": click.Path(path_type=Path),
        "help": "Full-sky kappa: HEALPix or CAR map or alm in FITS, or HEALPix map or alm in .npy.",
    },
    "kappa_kind": {
        "type": click.Choice(["gaussian", "nonlinear"]),
        "help": "nonlinear: as of an N-body simulation.",
    },
    "fill_kappa": {"is_flag": True, "help": "Draw a Gaussian sky in holes of that map."},
    "haloes": {
        "type": click.Path(path_type=Path),
        "help": "Clusters in place of drawn ones: a table (FITS, ECSV, HDF5) with units, or a list "
        "that mlsky clusters wrote.",
    },
    "device": {"help": "auto, cpu, cuda or cuda:N."},
    "overwrite": {"is_flag": True, "help": "Replace the output file."},
    "check_resources": {
        "flag": "--check-resources/--no-check-resources",
        "help": "Whether to refuse a sky that memory or disk are estimated not to suffice for.",
    },
    "out": {
        "required": True,
        "type": click.Path(path_type=Path),
        "help": ".h5 (everything) or .fits.",
    },
}


def with_options(function, without: tuple[str, ...] = ()):
    """Give a command the options of `OPTIONS`, with the defaults of `mlsky.simulate`.

    Parameters
    ----------
    without
        Arguments that the command sets itself.
    """
    for name, settings in reversed(OPTIONS.items()):
        if name in without:
            continue
        settings = dict(settings)
        flag = settings.pop("flag", "--" + name.replace("_", "-"))
        default = DEFAULTS[name]
        if not settings.get("required") and default is not None:
            settings |= {"default": default, "show_default": not isinstance(default, bool)}
        function = click.option(flag, name, **settings)(function)
    return function


@click.command(cls=ManyValues)
@with_config
@with_options
@click.pass_context
def simulate(ctx: click.Context, /, *, dump_config: bool, **options) -> None:
    """Make one sky and write its maps as they are finished.

    Unfinished work is kept in the folder OUT.partial; repeat the command to resume it.
    """
    if dump_config:
        click.echo(dump(ctx))
        return
    from mlsky.io import skies

    out = options["out"]
    skies.check(out, options["overwrite"])
    begin = time.monotonic()
    read_options(options)

    import dataclasses

    from mlsky import request, simulation

    with resumable(), progress_bar() as progress:
        checked = request.check(Arguments(**options, progress=progress))
        command = shlex.join(["mlsky", "simulate", *ctx.meta["mlsky.arguments"]])
        sky = simulation.run(dataclasses.replace(checked, command=command))
    click.echo(_summary(sky, out, time.monotonic() - begin))


def _car_geometry(res_arcmin: float):
    """Full-sky Fejer-1 geometry, (shape, wcs)."""
    rows = 180 * 60 / res_arcmin if res_arcmin > 0 else 0.0
    if not 1 <= rows <= 43200 or abs(rows - round(rows)) > 1e-6:
        raise ValueError(
            f"--car {res_arcmin:g}: must be arcmin that divide 180 degrees, "
            "from 0.25 up, for example --car 2"
        )
    import numpy as np
    from pixell import enmap

    return enmap.fullsky_geometry(res=np.radians(res_arcmin / 60), variant="fejer1")


def _read_kappa(path: Path):
    """A kappa map (RING or CAR) or alm from FITS, or RING map or alm from .npy."""
    if not path.is_file():
        raise ValueError(f"--kappa {path}: no such file")
    if path.suffix == ".npy":
        import numpy as np

        from mlsky import arguments

        with arguments.reading(f"--kappa {path}", "a .npy file of a map or of alm"):
            return np.load(path, allow_pickle=False)
    from mlsky.sphere import fitsmaps

    found = fitsmaps.read_fits("--kappa", path)
    if found.unit.lower() not in ("", "1", "dimensionless", "unitless", "none"):
        raise ValueError(
            f"--kappa {path}: its unit is {found.unit!r}; must be the dimensionless convergence, "
            "L(L+1)/2 times the lensing potential"
        )
    return found.values if found.wcs is None else (found.values, found.wcs)


def _read_haloes(path: Path):
    """A table of haloes in any format that astropy knows by its suffix."""
    from astropy.table import Table

    from mlsky import arguments

    if not path.is_file():
        raise ValueError(f"--haloes {path}: no such file")
    must = "a FITS, ECSV or HDF5 table with columns ra, dec, z, m200m and their units"
    with arguments.reading(f"--haloes {path}", must):
        with path.open("rb") as file:
            # mlsky clusters writes them as .csv, which says more of their format
            ecsv = file.read(7) == b"# %ECSV"
        return Table.read(path, format="ascii.ecsv" if ecsv else None)


def read_options(options: dict) -> None:
    """Convert the options of the command line to arguments of `mlsky.simulate`, in place."""
    if (options["nside"] is None) == (options["geometry"] is None):
        raise click.UsageError(
            "pixels: give one of --nside N (HEALPix, for example --nside 1024) and --car ARCMIN"
        )
    options["components"] = options["components"] or None
    if options["flux_cut"] is not None:
        mjy, where = options["flux_cut"]
        options["flux_cut"] = (mjy, bands(None, None, (where,)))
    for name, read in READERS.items():
        if options[name] is not None:
            options[name] = read(options[name])


#: Arguments that are given as files.
READERS = {"geometry": _car_geometry, "kappa": _read_kappa, "haloes": _read_haloes}


def _summary(sky, path: Path, seconds: float) -> str:
    import numpy as np

    from mlsky.io.layers import TOTAL

    middle = int(np.argmin(np.abs(sky.freqs_ghz - 150)))
    lines = [f"{path}: {path.stat().st_size / 1e6:.0f} MB in {seconds:.0f} s, {sky!r}"]
    rms = [
        f"{name} {sky.band(middle, name)[0].std(dtype=np.float64):.3g}"
        for name in sky.keys() or (TOTAL,)  # FITS files hold the total alone
    ]
    what = sky.stokes[0]
    lines.append(f"rms of {what} at {sky.freqs_ghz[middle]:.4g} GHz, {sky.unit}: {', '.join(rms)}")
    if sky.catalog is not None:
        held = int(np.count_nonzero(sky.catalog["in_map"]))
        lines.append(f"sources above 1 mJy at 148 GHz: {len(sky.catalog)}, in the maps: {held}")
    if sky.clusters is not None:
        lines.append(f"clusters: {len(sky.clusters)}, listed by mlsky clusters {path}")
    return "\n".join(lines)


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="[default: PATH with .png]")
@click.option("--freq", type=float, metavar="GHZ", help="Band shown.  [default: nearest to 150]")
@click.option("--overwrite", is_flag=True, help="Replace the picture.")
def plot(path: Path, out: Path | None, freq: float | None, overwrite: bool) -> None:
    """Draw a sky: the whole of it, a 5 x 5 degree zoom of each component, spectra."""
    from mlsky.io import skies
    from mlsky.plotting import sky_maps

    out = path.with_suffix(".png") if out is None else out
    skies.check(out, overwrite, sky_maps.SUFFIXES)

    from mlsky.sky import Sky

    sky_maps.save(Sky.read(path), out, freq_ghz=freq, overwrite=overwrite)
    click.echo(out)
