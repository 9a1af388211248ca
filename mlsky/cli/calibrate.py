"""``mlsky calibrate``."""

from __future__ import annotations

from pathlib import Path

import click

from mlsky.cli.options import progress_bar

__all__ = ["calibrate"]


@click.command()
@click.argument("weights", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="File to write.  [default: WEIGHTS itself]"
)
@click.option("--seed", type=int, help="Seed of the sky.  [default: 20000]")
@click.option(
    "--nside",
    type=int,
    default=2048,
    show_default=True,
    help="Resolution of the sky, a power of two.",
)
@click.option(
    "--patches", type=int, default=24, show_default=True, help="Regions to compare with the sky."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--overwrite", is_flag=True, help="Replace the file of --out.")
def calibrate(
    weights: Path,
    out: Path | None,
    seed: int | None,
    nside: int,
    patches: int,
    device: str,
    overwrite: bool,
) -> None:
    """Fit calibrations that need a stitched sky, and store them in the header of WEIGHTS.

    The gain of kappa, the large scales that patches do not show, and the transfer from patches to
    the sky. The networks are not changed; the sha256 of the file is.
    """
    from mlsky.io import skies

    skies.check(weights if out is None else out, out is None or overwrite, (".safetensors",))

    from mlsky.training import sky_calibration

    with progress_bar() as progress:
        found = sky_calibration.calibrate(
            weights,
            out,
            seed=sky_calibration.SEED if seed is None else seed,
            nside=nside,
            patches=patches,
            device=device,
            progress=progress,
        )
    click.echo("\n".join(_tables(found)))
    click.echo(f"{weights if out is None else out}: sha256 {found['sha256']}")


def _tables(found: dict) -> list[str]:
    """The results of the fit, as lines of text."""
    lines = []
    rows = found["large_scales"]
    names = list(rows[0]["auto"])
    crossed = list(rows[0]["kappa"])
    lines.append("Large scales: C_l of the networks over the truth, +- cosmic variance of C_l;")
    lines.append("then C_l^{kappa X} / C_l^{kappa kappa} over the truth. Their lack is completed.")
    head = [f"{n:>8}" for n in names] + [f"{'k x ' + n:>12}" for n in crossed]
    lines.append("".join([f"{'l':>7}{'+-':>7}", *head]))
    for row in rows:
        auto = [f"{row['auto'][n]:8.3f}" for n in names]
        kappa = [f"{row['kappa'][n]:12.3f}" for n in crossed]
        lines.append("".join([f"{row['ell']:7.0f}{row['error']:7.3f}", *auto, *kappa]))
    if found["velocity_gains"]:
        gains = ", ".join(f"{g:g}" for g in found["velocity_gains"])
        lines.append(f"Gains of the velocities of kSZ, from fine to coarse: {gains}.")
    added = ", ".join(f"{name} {rms:g}" for name, rms in found["added"].items())
    lines.append(f"Rms of what completes them (uK; over the mean if multiplied): {added}.")
    if found["transfer"]:
        parts = [n for n in found["transfer"][0] if n != "ell"]
        lines.append("Transfer: C_l of the sky over that of the same networks on regions.")
        lines.append("".join([f"{'l':>7}", *(f"{n:>17}" for n in parts)]))
        for row in found["transfer"]:
            cells = [f"{row[n][0]:9.3f} +-{row[n][1]:5.3f}" for n in parts]
            lines.append("".join([f"{row['ell']:7.0f}", *cells]))
        lines.append("Amplitudes, to be applied to the maps where they differ from 1 by 3 sigma:")
        for name, a in found["amplitude"].items():
            lines.append(
                f"{name:>7} {a['fitted']:.4f} +- {a['error']:.4f}, applied {a['applied']:g}"
            )
    gain = found["gain"]["gain"]
    lines.append(f"Gain of kappa: {min(gain):.3f} to {max(gain):.3f} in {len(gain)} bands.")
    return lines
