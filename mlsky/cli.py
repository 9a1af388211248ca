"""The command line: ``mlsky simulate | plot | weights | data | tables | train | validate``.

Only click is imported at the top, so that ``mlsky --help`` is quick. A wrong argument gives
one line on stderr and exit status 2; Ctrl-C gives 130; neither leaves a file behind.
"""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from mlsky._version import __version__
from mlsky.errors import MlskyError

__all__ = ["cli", "main"]

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_TERMINATED = 128 + signal.SIGTERM


class ManyValues(click.Command):
    """A command whose options with ``multiple=True`` take every value up to the next option.

    ``--freqs 93 145 225``, ``--freqs 93,145,225`` and ``--freqs 93 --freqs 145`` all work.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["mlsky.arguments"] = list(args)
        greedy = {
            name
            for option in self.params
            if isinstance(option, click.Option) and option.multiple
            for name in option.opts
        }
        merged: list[str] = []
        rest = list(args)
        while rest:
            merged.append(rest.pop(0))
            if merged[-1] in greedy:
                values = []
                while rest and not _is_option(rest[0]):
                    values.append(rest.pop(0))
                if values:
                    merged.append(",".join(values))
        return super().parse_args(ctx, merged)


def _is_option(token: str) -> bool:
    """True for ``--out`` and ``-h``; False for values, negative numbers among them."""
    if not token.startswith("-") or token == "-":
        return False
    with contextlib.suppress(ValueError):
        float(token)
        return False
    return True


def _split(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]):
    """Every value of a repeated, spaced or comma-separated option."""
    return [part for value in values for part in value.replace(",", " ").split()]


def _numbers(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> list[float]:
    numbers = []
    for part in _split(ctx, option, values):
        try:
            numbers.append(float(part))
        except ValueError:
            raise click.BadParameter(
                f"{part!r} is no number; give GHz, for example --freqs 93 145 225"
            ) from None
    return numbers


def _pairs(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """``FIELD=VALUE`` of a repeated or spaced option."""
    found = {}
    for part in _split(ctx, option, values):
        name, equals, value = part.partition("=")
        if not (name and equals and value):
            raise click.BadParameter(f"{part!r}: must be FIELD=VALUE, for example cib=143")
        found[name] = value
    return found


def _number_pairs(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict:
    """``FIELD=NUMBER`` of a repeated or spaced option."""
    try:
        return {name: float(x) for name, x in _pairs(ctx, option, values).items()}
    except ValueError as error:
        raise click.BadParameter(f"{error}; must be FIELD=NUMBER") from None


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mlsky")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Correlated, non-Gaussian mock microwave skies by the hundred."""
    ctx.meta["mlsky.debug"] = debug


@cli.command(cls=ManyValues)
@click.option(
    "--freqs", required=True, multiple=True, callback=_numbers, metavar="GHZ...", help="Bands."
)
@click.option("--nside", type=int, help="HEALPix resolution, a power of two.")
@click.option("--car", type=float, metavar="ARCMIN", help="Full-sky CAR map (Fejer-1) instead.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--cmb-seed", type=int, help="Seed of the unlensed CMB alone.  [default: seed]")
@click.option(
    "--components", multiple=True, callback=_split, metavar="NAME...", help="[default: all]"
)
@click.option("--stokes", default="TQU", show_default=True)
@click.option("--unit", default="uK_CMB", show_default=True)
@click.option("--flux-cut-mjy", type=float, help="Leave brighter sources out (at 148 GHz).")
@click.option("--cosmology", default="planck2018", show_default=True)
@click.option("--weights", default="default", show_default=True, help="See mlsky weights list.")
@click.option(
    "--kappa",
    type=click.Path(path_type=Path),
    help="Gaussian kappa: HEALPix map or alm in FITS, or an array in .npy.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--overwrite", is_flag=True, help="Replace the output file.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help=".h5 (everything) or .fits."
)
@click.pass_context
def simulate(ctx: click.Context, /, out: Path, overwrite: bool, **options) -> None:
    """Make one sky and write it."""
    from mlsky import outputs

    outputs.check(out, overwrite)
    begin = time.monotonic()
    arguments = _simulate_arguments(**options)

    from mlsky import sky as chain

    with _progress_bar() as progress:
        sky = chain.simulate(**arguments, progress=progress)
        sky.meta["command"] = shlex.join(["mlsky", "simulate", *ctx.meta["mlsky.arguments"]])
        progress(f"writing {out.name}", 1.0)
        sky.write(out, overwrite=overwrite)
    click.echo(_summary(sky, out, time.monotonic() - begin))


def _simulate_arguments(
    *, car: float | None, components: list[str], kappa: Path | None, **options
) -> dict:
    """Options of the command line as arguments of `mlsky.simulate`."""
    if car is not None:
        options["geometry"] = _car_geometry(car)
    if kappa is not None:
        options["kappa"] = _read_kappa(kappa)
    return {**options, "components": components or None}


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
    """A kappa map (RING) or alm from FITS, or either from .npy."""
    import numpy as np

    if not path.is_file():
        raise ValueError(f"--kappa {path}: no such file")
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        import healpy
        from astropy.io import fits

        columns = fits.getheader(path, 1)
        if str(columns.get("TTYPE1", "")).strip().lower() == "index":
            return healpy.read_alm(path)
        return healpy.read_map(path, dtype=np.float64)
    except (OSError, ValueError, IndexError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"--kappa {path}: cannot be read ({reason}); must be a HEALPix map or alm in FITS, "
            "or an array in .npy"
        ) from None


@contextlib.contextmanager
def _progress_bar() -> Iterator:
    """A progress function that draws a bar on stderr, named after the stage under way."""
    from tqdm import tqdm

    with tqdm(
        total=100.0, file=sys.stderr, bar_format="{desc:<24} {percentage:3.0f}% |{bar}| {elapsed}"
    ) as bar:

        def progress(stage: str, fraction: float) -> None:
            bar.set_description_str(stage, refresh=False)
            bar.n = 100 * fraction
            bar.refresh()

        yield progress


def _summary(sky, path: Path, seconds: float) -> str:
    import numpy as np

    middle = int(np.argmin(np.abs(sky.freqs_ghz - 150)))
    lines = [f"{path}: {path.stat().st_size / 1e6:.0f} MB in {seconds:.0f} s, {sky!r}"]
    rms = [f"{name} {sky.band(middle, name)[0].std(dtype=np.float64):.3g}" for name in sky]
    what = sky.stokes[0]
    lines.append(f"rms of {what} at {sky.freqs_ghz[middle]:g} GHz, {sky.unit}: {', '.join(rms)}")
    if sky.catalog is not None:
        held = int(np.count_nonzero(sky.catalog["in_map"]))
        lines.append(f"sources above 1 mJy at 148 GHz: {len(sky.catalog)}, in the maps: {held}")
    return "\n".join(lines)


@cli.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="[default: PATH with .png]")
@click.option("--freq", type=float, metavar="GHZ", help="Band shown.  [default: nearest to 150]")
@click.option("--overwrite", is_flag=True, help="Replace the picture.")
def plot(path: Path, out: Path | None, freq: float | None, overwrite: bool) -> None:
    """Draw a sky: the whole of it, a 5 x 5 degree zoom of each component, spectra."""
    from mlsky import outputs, plotting

    out = path.with_suffix(".png") if out is None else out
    outputs.check(out, overwrite, plotting.SUFFIXES)

    from mlsky.sky import Sky

    plotting.save(Sky.read(path), out, freq_ghz=freq, overwrite=overwrite)
    click.echo(out)


@cli.group()
def weights() -> None:
    """The networks: which there are, what they are worth, where they are."""


@weights.command("list")
def weights_list() -> None:
    """Every entry of the registry, one a line; * marks the default."""
    from mlsky import registry

    for name in registry.names():
        entry = registry.describe(name)
        pixels = ", ".join(f"{item['pixel_arcmin']:g}'" for item in entry["files"])
        mark = "*" if entry["default"] else " "
        click.echo(f"{mark} {name:<16} {entry['version']:<4} {entry['kind']:<10} {pixels}")


@weights.command("show")
@click.argument("name", default="default")
def weights_show(name: str) -> None:
    """Files, licence, citation, recipe, data and scores of NAME (or NAME@v1)."""
    import yaml

    from mlsky import registry

    click.echo(yaml.safe_dump(registry.describe(name), sort_keys=False, width=100).rstrip())


@weights.command("fetch")
@click.argument("name", default="default")
def weights_fetch(name: str) -> None:
    """Make sure that the files of NAME are on this machine, and say where."""
    from mlsky import registry

    for path in registry.fetch(name):
        click.echo(path)


@weights.command("verify")
@click.argument("name", required=False)
def weights_verify(name: str | None) -> None:
    """Check the sha256 of every file on this machine; of all entries by default."""
    from mlsky import registry

    for found in registry.verify(name):
        state = "good" if found.paths else "not here yet, to be fetched"
        click.echo(f"{found.name} {found.version} {found.file}: {state}")


@cli.group()
def data() -> None:
    """Sets that networks are trained and validated on."""


@data.command("paint")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="HDF5 file.")
@click.option("--regions", type=int, default=40, show_default=True)
@click.option("--seed", type=int, required=True, help="Another one for each set: no shared sky.")
@click.option("--pixel-arcmin", type=float, default=0.5, show_default=True)
@click.option("--pixels", type=int, default=512, show_default=True, help="Along a side.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
def data_paint(
    out: Path, regions: int, seed: int, pixel_arcmin: float, pixels: int, device: str
) -> None:
    """Paint regions of correlated sky from haloes; a stopped run goes on where it was."""
    from mlsky.training import data, loop

    with _to_be_gone_on_with():
        data.paint(out, regions, seed, pixel_arcmin, pixels, str(loop.pick_device(device)))
    click.echo(f"{out}: {regions} regions, {out.stat().st_size / 1e6:.0f} MB")


@data.command("check")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder for pictures (PNG).")
@click.option("--json", "table", type=click.Path(path_type=Path), help="Write the figures here.")
@click.option("--tables", type=click.Path(path_type=Path), help="Painted from.  [default: shipped]")
@click.option("--regions", type=int, help="Use so many.  [default: all]")
@click.option("--overwrite", is_flag=True, help="Replace pictures and JSON file.")
def data_check(
    path: Path, out: Path | None, table: Path | None, overwrite: bool, **options: object
) -> None:
    """Compare a painted set with its analytic model and with ACT DR6."""
    from mlsky import outputs

    if table is not None:
        outputs.check(table, overwrite, (".json",))

    from mlsky.statistics import drawing, truth

    if out is not None:
        drawing.check_folder(out, overwrite)
    figures = truth.check(path, **options)
    for line in truth.lines(figures):
        click.echo(line)
    if table is not None:
        _write_json(table, figures)
    if out is not None:
        for picture in drawing.draw(figures, truth.region(path), out):
            click.echo(picture)


@data.command("cut", cls=ManyValues)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="HDF5 file.")
@click.option("--maps", multiple=True, callback=_pairs, metavar="FIELD=FILE...")
@click.option("--catalogues", multiple=True, callback=_pairs, metavar="FIELD=FILE...")
@click.option("--units", multiple=True, callback=_pairs, metavar="FIELD=UNIT...")
@click.option("--freqs", multiple=True, callback=_number_pairs, metavar="FIELD=GHZ...")
@click.option("--scale", multiple=True, callback=_number_pairs, metavar="FIELD=NUMBER...")
@click.option("--patches", type=int, required=True)
@click.option("--seed", type=int, required=True, help="Of the places of the patches.")
@click.option("--part", default="train", show_default=True, help="train, validation or test.")
@click.option("--recipe", help="Ask for the fields of this recipe; cut its pixels and size.")
@click.option("--pixel-arcmin", type=float, help="[default: of the recipe, or 0.5]")
@click.option("--size", type=int, help="Pixels along a side.  [default: of the recipe, or 128]")
@click.option("--method", default="harmonic", show_default=True, help="harmonic or cubic.")
@click.option("--lmax", type=int, help="Of harmonic.  [default: what maps and pixels carry]")
@click.option("--flux-cut-mjy", type=float, default=7.0, show_default=True, help="inf: no cut.")
@click.option("--find/--no-find", default=True, help="Find sources of maps without catalogue.")
@click.option("--find-mjy", type=float, help="Faintest source to find.  [default: 5 sigma]")
@click.option("--windows/--no-windows", default=True, help="Replace pixel windows of SZ maps.")
@click.option("--octant", is_flag=True, help="The sky is one octant eight times over.")
def data_cut(
    out: Path, recipe: str | None, freqs: dict, flux_cut_mjy: float, **options: object
) -> None:
    """Cut patches out of full-sky maps of any simulation; a stopped run goes on where it was."""
    from mlsky.training.recipes import recipe as recipe_of

    chosen = None if recipe is None else recipe_of(recipe)
    for name, default in (("pixel_arcmin", 0.5), ("size", 128)):
        if options[name] is None:
            options[name] = default if chosen is None else getattr(chosen, name)
    options["require"] = () if chosen is None else (*chosen.inputs, *chosen.outputs)
    options["flux_cut_mjy"] = None if flux_cut_mjy == float("inf") else flux_cut_mjy

    from mlsky.datasets import maps

    with _to_be_gone_on_with():
        maps.cut(out, nu_ghz=freqs, **options)
    click.echo(f"{out}: {options['patches']} patches, {out.stat().st_size / 1e6:.0f} MB")


@cli.group()
def tables() -> None:
    """What the painter needs to know of a cosmology."""


@tables.command("build")
@click.option("--out", required=True, type=click.Path(path_type=Path), help=".npz file.")
@click.option("--cosmology", default="planck2018", show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace the file.")
def tables_build(out: Path, cosmology: str, overwrite: bool) -> None:
    """Compute the painter's tables for a cosmology, in about half a minute."""
    from mlsky import outputs

    outputs.check(out, overwrite, (".npz",))

    from mlsky.datasets import tables as painter_tables

    painter_tables.save(out, painter_tables.build_for(cosmology))
    click.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {cosmology}")


def _list_recipes(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from mlsky.training.recipes import RECIPES

    for name, r in RECIPES.items():
        what = f"{', '.join(r.inputs) or 'noise'} -> {', '.join(r.outputs)}"
        click.echo(f"{name:<16} {r.generator:<20} {r.pixel_arcmin:g}'  {what}")
    ctx.exit()


@cli.command()
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_recipes,
    help="List the recipes and exit.",
)
@click.option("--recipe", required=True, help="Name of a recipe.")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Training set.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Run folder.")
@click.option(
    "--target", type=click.Path(path_type=Path), help="Truth unpaired with --data (vaegan)."
)
@click.option("--minutes", type=float, help="Length of the whole run; or give --steps.")
@click.option("--steps", type=int, help="Length of the whole run, reproducible to the bit.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--seed", type=int, default=0, show_default=True, help="Weights, crops and noise.")
def train(
    recipe: str,
    data: Path,
    out: Path,
    target: Path | None,
    minutes: float | None,
    steps: int | None,
    device: str,
    seed: int,
) -> None:
    """Train one recipe, or the whole chain of the paper (han2021, han2021-w16: three runs of
    this length each); goes on with the run in the folder if there is one."""
    from mlsky.training import chain, loop, recipes

    length = {"minutes": minutes, "steps": steps, "device": device, "seed": seed}
    if recipe in chain.CHAINS:
        with _to_be_gone_on_with():
            runs = chain.han2021(data, out, suffix=chain.CHAINS[recipe], **length)
        click.echo(f"{out}: {', '.join(runs)} trained")
        return
    chosen = recipes.recipe(recipe)
    with _to_be_gone_on_with():
        run = loop.train(chosen, data, out, target=target, **length)
    click.echo(f"{out}: {run.step} steps in {run.seconds:.0f} s")


@contextlib.contextmanager
def _to_be_gone_on_with() -> Iterator[None]:
    """Of commands that keep what they have done when they are interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        raise click.Abort("interrupted; the same command goes on from what was saved") from None


@cli.command()
@click.option("--weights", default="default", show_default=True, help="Name, or a file.")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Held-out set.")
@click.option("--regions", type=int, help="Use so many.  [default: all]")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the networks' noise.")
@click.option("--json", "table", type=click.Path(path_type=Path), help="Write the figures here.")
@click.option("--overwrite", is_flag=True, help="Replace the JSON file.")
def validate(
    weights: str, data: Path, regions: int | None, seed: int, table: Path | None, overwrite: bool
) -> None:
    """Compare generated with true fields: power, correlations, pixels; one figure a line."""
    from mlsky import outputs

    if table is not None:
        outputs.check(table, overwrite, (".json",))

    from mlsky.statistics import scores
    from mlsky.training.data import fields_of

    pixel_arcmin = float(fields_of(data, scores.FIELDS)[1]["pixel_arcmin"])
    opened = _weights_of_pixel(weights, pixel_arcmin)
    figures = scores.score(opened, data, regions, seed)
    if table is not None:
        _write_json(table, {"weights": opened.sha256, **figures})
    click.echo(
        f"{opened.path.name}, sha256 {opened.sha256[:12]}: {figures['regions']} regions, "
        f"{figures['square_degrees']} square degrees of {pixel_arcmin:g}' pixels"
    )
    for line in _figure_lines(figures):
        click.echo(line)


def _weights_of_pixel(name: str, pixel_arcmin: float):
    """A file, or that file of a registry entry whose pixels are those of the set."""
    from mlsky import registry
    from mlsky.networks.weights import open_weights

    if name.endswith(".safetensors"):
        return open_weights(name)
    files = registry.describe(name)["files"]
    for file, path in zip(files, registry.fetch(name), strict=True):
        if file["pixel_arcmin"] == pixel_arcmin:
            return open_weights(path, sha256=file["sha256"])
    have = ", ".join(f"{file['pixel_arcmin']:g}'" for file in files)
    raise ValueError(f"--weights {name} are of {have}: the set has pixels of {pixel_arcmin:g}'")


def _figure_lines(figures: dict) -> Iterator[str]:
    bands = [f"l {lo}-{hi}" for lo, hi in figures["ell"]]
    for field, row in figures["power"].items():
        for band, ratio, error in zip(bands, row["ratio"], row["error"], strict=True):
            yield f"power        {field:<14} {band:<12} ratio {ratio:<10g} +- {error:g}"
    for pair, row in figures["correlation"].items():
        for band, true, made in zip(bands, row["true"], row["generated"], strict=True):
            yield f"correlation  {pair:<14} {band:<12} true {true:<11g} generated {made:g}"
    for field, rows in figures["pixels"].items():
        for name, row in rows.items():
            true, made = row["true"], row["generated"]
            yield f"pixels       {field:<14} {name:<12} true {true:<11g} generated {made:g}"


def _write_json(path: Path, values: dict) -> None:
    import json

    from mlsky import outputs

    with outputs.beside(path) as part:
        part.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    debug = "--debug" in (sys.argv[1:] if arguments is None else arguments)
    try:
        with _stop_on_sigterm():
            cli.main(args=arguments, prog_name="mlsky", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt) as error:
        return _fail(str(error) or "interrupted, nothing was kept", EXIT_INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help(), err=True)
        return EXIT_BAD_INPUT
    except click.ClickException as error:
        return _fail(error.format_message(), EXIT_BAD_INPUT)
    except (ValueError, MlskyError) as error:
        if debug:
            raise
        return _fail(str(error), EXIT_BAD_INPUT)
    return 0


def _fail(message: str, status: int) -> int:
    click.echo(f"mlsky: error: {' '.join(message.split())}", err=True)
    return status


@contextlib.contextmanager
def _stop_on_sigterm() -> Iterator[None]:
    """Let a SIGTERM, as from a batch system, unwind like Ctrl-C, so that nothing is left."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number, frame):
        raise SystemExit(EXIT_TERMINATED)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
