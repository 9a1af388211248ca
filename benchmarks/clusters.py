"""Clusters on the sphere against the halo model, the painted truth and the clock.

python benchmarks/clusters.py counts|clustering|power|list|flux|minima|time|picture
                              [--seeds 20] [--nside 1024] [--out clusters.jpg]

counts      haloes by mass and redshift over the mass function, with Poisson errors
clustering  C_l of haloes over the analytic ones, between shells and with kappa; velocities
power       spectra of the objects alone at nside 512 over the analytic ones, mean of seeds
list        spectrum of tSZ at --nside over that of the list of haloes, to the Nyquist multipole
flux        Compton y summed over pixels within R500c over that of the table, on several pixels
minima      deepest minima of tSZ at 8 arcmin and kappa there, beside those of painted regions
time        seconds and peak memory of the objects of a sky at --nside
picture     brightest clusters of a sky in every field
"""

from __future__ import annotations

import argparse
import itertools
import math
import resource
import time

import healpy
import numpy as np

from mlsky.haloes import catalogue, draw, paint, profiles, shells
from mlsky.haloes import tables as halo_tables
from mlsky.haloes.painter import TSZ_148, Painter
from mlsky.sphere import charts, gaussian, resampling, windows
from mlsky.sphere.geometry import Car, Healpix
from mlsky.theory import foreground_spectra, kappa_spectrum
from mlsky.theory.clustering import Clustering
from mlsky.theory.foregrounds import model
from mlsky.theory.halo_model import C_KM_S
from mlsky.theory.objects import is_object

BANDS = (50, 100, 200, 300, 500, 700, 1000)
RANKS = (0, 20, 50, 100, 200, 400)


def haloes(t: dict, seed: int) -> draw.HaloList:
    cl = kappa_spectrum(shells.LMAX)
    return draw.draw(t, seed, gaussian.draw_alm(cl, seed), cl)


def counts(t: dict, seeds: int) -> None:
    objects = is_object(t["z"], t["log10_mass"])
    number = np.where(objects, t["number"], 0) * 4 * np.pi * seeds
    z_edges = draw.redshift(t, t["edges"].astype(float))
    z, mass = [], []
    for seed in range(1, seeds + 1):
        h = haloes(t, seed)
        z.append(h.z)
        mass.append(h.log10_mass)
    z, mass = np.concatenate(z), np.concatenate(mass)
    groups = ((0, 8), (8, 14), (14, 18), (18, 22), (22, 26), (26, 30), (30, 41))
    edges = (13.0, 13.5, 14.0, 14.25, 14.5, 14.75, 15.0, 15.75)
    print(f"haloes of {seeds} skies over the mass function (Poisson error), by log10 M200m")
    print("z           " + "".join(f"{a:6.2f}-{b:<7.2f}" for a, b in itertools.pairwise(edges)))
    for first, last in groups:
        row = f"{z_edges[first]:.3f}-{z_edges[last]:.3f} "
        for low, high in itertools.pairwise(edges):
            bins = (t["log10_mass"] > low) & (t["log10_mass"] < high)
            want = number[first:last, bins].sum()
            got = np.count_nonzero(
                (z >= z_edges[first]) & (z < z_edges[last]) & (mass >= low) & (mass < high)
            )
            row += f"{got / want:8.3f}({want**-0.5:.3f})" if want > 3 else " " * 15
        print(row)


def clustering(t: dict, seeds: int) -> None:
    spectra = shells.spectra(t)
    objects = is_object(t["z"], t["log10_mass"])
    number = np.where(objects, t["number"], 0)
    analytic = Clustering(model())
    first = analytic.bias[0][:, -number.shape[1] :]  # as capped, which linear bias is not
    bias = (number * first).sum(1) / np.maximum(number.sum(1), 1e-30)
    cl = kappa_spectrum(shells.LMAX)
    edges = draw.redshift(t, t["edges"].astype(float))
    chosen = (16, 17, 20, 21)
    bands = (10, 30, 60, 100, 200, 400)
    found: dict = {}
    velocity, pairs = [], []
    for seed in range(1, seeds + 1):
        kappa = gaussian.draw_alm(cl, seed)
        h = draw.draw(t, seed, kappa, cl)
        alms = {"kappa": healpy.resize_alm(kappa, shells.LMAX, shells.LMAX, 400, 400)}
        for i in chosen:
            inside = (h.z >= edges[i]) & (h.z < edges[i + 1])
            pixel = healpy.vec2pix(512, *h.vectors[:, inside])
            n = np.bincount(pixel, minlength=12 * 512**2) / inside.sum() * 12 * 512**2 - 1
            alms[i] = healpy.map2alm(n, lmax=400, iter=1)
            noise = 4 * np.pi / inside.sum()
            found.setdefault((i, i), []).append(healpy.alm2cl(alms[i]) - noise)
        for a, b in ((16, 17), (20, 21), (16, "kappa"), (20, "kappa")):
            found.setdefault((a, b), []).append(healpy.alm2cl(alms[a], alms[b], lmax_out=400))
        shell = np.searchsorted(edges, h.z) - 1
        rms = t["sigma_v"][shell]
        velocity.append([(h.velocity**2).mean(), (rms.astype(float) ** 2).mean()])
        near = (h.z > edges[20]) & (h.z < edges[21])
        cell = healpy.vec2pix(128, *h.vectors[:, near])
        order = np.argsort(cell)
        v = h.velocity[near][order]
        same = cell[order][1:] == cell[order][:-1]
        pairs.append([(v[1:] * v[:-1])[same].mean() / (v**2).mean()])
    ell = np.arange(401)
    print("C_l of haloes over the analytic ones, mean of seeds (error): every order of bias for a")
    print("shell with itself, linear bias between shells and with kappa")
    print("pair          " + "".join(f"{a:>6d}-{b:<8d}" for a, b in itertools.pairwise(bands)))
    window = windows.square(ell, Healpix(512).pixel_arcmin)
    for pair, values in found.items():
        a, b = pair
        want = np.zeros(401)
        for e in range(2, 401):
            covariance = spectra.covariance(e)
            if b == "kappa":
                c, power = spectra.kappa(e, covariance)
                want[e] = bias[a] * c[a] * np.sqrt(cl[e] / power) * window[e]
            else:
                want[e] = bias[a] * bias[b] * covariance[a, b] * window[e] ** 2
        if a == b:
            want += _beyond_linear(analytic, number[a], a, ell) * window**2
        row = f"{a!s:>3s} x {b!s:6s} "
        for low, high in itertools.pairwise(bands):
            w = 2 * ell[low:high] + 1
            each = [(w * v[low:high]).sum() / (w * want[low:high]).sum() for v in values]
            row += f"{np.mean(each):8.3f}({np.std(each) / np.sqrt(len(each)):.3f})"
        print(row)
    ratio = np.array(velocity)
    print(
        f"velocity variance over linear theory {(ratio[:, 0] / ratio[:, 1]).mean():.3f}, rms "
        f"{C_KM_S * np.sqrt(ratio[:, 0].mean()):.0f} km/s"
    )
    print(
        f"correlation of velocities of neighbours in cells of 27', z = {t['z'][20]:.2f}: "
        f"{np.mean(pairs):.3f}, linear theory {_neighbours(t, spectra, 20):.3f}"
    )


def _beyond_linear(analytic: Clustering, number, shell: int, ell) -> np.ndarray:
    """What orders of bias beyond the first add to C_l of the haloes of a shell."""
    orders = analytic.bias[1:, shell, -len(number) :] @ number / number.sum()
    terms = enumerate(zip(orders, analytic.powers, strict=True), start=2)
    total = sum(b**2 * power[shell] / math.factorial(k) for k, (b, power) in terms)
    return np.interp(ell, analytic.model.ell, total)


def _neighbours(t: dict, spectra: shells.Spectra, shell: int) -> float:
    """Correlation of radial velocities of two haloes of one shell in one cell of 27 arcmin."""
    first = int(t["slices"][:shell].sum())
    rows = len(spectra.weight) + first + np.arange(int(t["slices"][shell]))
    total = 0.0
    for ell in range(1, int(spectra.velocity_lmax[rows[0] - len(spectra.weight)]) + 1):
        block = spectra.covariance(ell)[np.ix_(rows, rows)]
        cell = windows.square(ell, Healpix(128).pixel_arcmin)
        total += (2 * ell + 1) / (4 * np.pi) * block.mean() * cell**2
    return total / float(t["sigma_v"][shell]) ** 2


def power(t: dict, seeds: int) -> None:
    geometry, pixel, lmax = Healpix(512), 4.0, 1024
    ell = np.arange(lmax + 1)
    fine = np.arange(20, lmax + 1)
    spectra = foreground_spectra(fine, 148, part="objects")
    names = ("kappa", "tsz", "ksz", "cib")
    pairs = [(n, n) for n in names] + [("kappa", "tsz"), ("tsz", "cib"), ("kappa", "cib")]
    window = windows.square(ell, geometry.pixel_arcmin)
    # galaxies are counted in the pixels of charts, and these are squares: two windows in a product
    # with a smooth field. Counts are white, so that their own power has only the squares', twice
    points = windows.square(ell, pixel) ** 2
    found: dict = {pair: [] for pair in pairs}
    for seed in range(1, seeds + 1):
        h = haloes(t, seed)
        made = paint.maps(h, t, seed, geometry, pixel)
        alms = {n: healpy.map2alm(made[n], lmax=lmax, iter=1) for n in names}
        for a, b in pairs:
            w = window**2 * (points if "cib" in (a, b) else 1)
            found[a, b].append(healpy.alm2cl(alms[a], alms[b]) / w)
        if seed % 5 == 0 or seed == seeds:
            _print_ratios(found, ell, {k: np.interp(ell, fine, v) for k, v in spectra.items()})


def _print_ratios(found: dict, ell: np.ndarray, spectra: dict) -> None:
    count = len(next(iter(found.values())))
    print(f"objects alone, mean of {count} seeds over the analytic spectra (error)")
    print("pair           " + "".join(f"{a:>6d}-{b:<8d}" for a, b in itertools.pairwise(BANDS)))
    for (a, b), values in found.items():
        want = spectra[f"{a} x {b}"]
        row = f"{a:>6s} x {b:6s}"
        for low, high in itertools.pairwise(BANDS):
            w = 2 * ell[low:high] + 1
            each = [(w * v[low:high]).sum() / (w * want[low:high]).sum() for v in values]
            row += f"{np.mean(each):8.3f}({np.std(each) / np.sqrt(len(each)):.3f})"
        print(row, flush=True)


def of_list(t: dict, nside: int, disc: float) -> None:
    """The same haloes, mode by mode: no error of the sky's variance. Those in a disc will do."""
    import ducc0

    geometry, lmax = Healpix(nside), 3 * nside
    pixel = 2.0 if nside <= 1024 else 1.0 if nside == 2048 else 0.5
    h = haloes(t, 1)
    centre = healpy.ang2vec(50.0, 10.0, lonlat=True)
    h = h[np.flatnonzero(centre @ h.vectors >= np.cos(np.radians(disc)))]
    objects = paint.HaloPainter(h, t, 1, fields=("tsz",), pixel_arcmin=pixel)
    place = np.stack([objects.haloes.theta, objects.haloes.phi], 1)
    flux_of = objects._flux("tsz", np.arange(len(h)))
    ell = np.arange(lmax + 1)
    want = np.zeros((lmax + 1) * (lmax + 2) // 2, np.complex64)
    for number, sigma in enumerate(objects.gaussians.sigma_arcmin):
        fraction = objects._at.linear(objects.gaussians.fraction["y"][..., number])
        top = min(lmax, int(np.ceil(paint.BAND / np.radians(sigma / 60))))
        alm = ducc0.sht.adjoint_synthesis_general(
            map=(fraction * flux_of).astype(np.float32)[np.newaxis],
            loc=place,
            lmax=top,
            spin=0,
            epsilon=1e-4,
            nthreads=1,
        )[0]
        gaussian.scale_alm(alm, profiles.transform(sigma, np.arange(top + 1)))
        paint._add_alm(want, alm)
    del objects
    made = paint.maps(h, t, 1, geometry, pixel, fields=("tsz",))["tsz"]
    got = healpy.map2alm(made, lmax=lmax, iter=1)
    window = windows.square(ell, geometry.pixel_arcmin)
    want = want.astype(np.complex128)
    both, own = healpy.alm2cl(got, want), healpy.alm2cl(want)
    power_ = healpy.alm2cl(got)
    print(f"tSZ at nside {nside}, {pixel:g}' charts, over the list: power, and r with the list's")
    edges = [2, 100, 300, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 10000, 12289]
    for low, high in itertools.pairwise([e for e in edges if e < lmax] + [lmax + 1]):
        w = 2 * ell[low:high] + 1
        total = (w * own[low:high] * window[low:high] ** 2).sum()
        r = (w * both[low:high]).sum() / np.sqrt(
            (w * own[low:high]).sum() * (w * power_[low:high]).sum()
        )
        print(f"{low:6d}-{high - 1:<6d} {(w * power_[low:high]).sum() / total:.4f} {r:.5f}")


def flux(t: dict, only: str) -> None:
    from pixell import enmap

    places = {"pole": (0, 90), "ra 180": (180, 1), "corner": (45, 0), "field": (77, -33)}
    sizes = ((0.05, 14.9), (0.1, 15.0), (0.3, 15.0))
    whole = enmap.Geometry(*enmap.fullsky_geometry(res=np.radians(0.5 / 60), variant="fejer1"))

    def car(dec: float) -> Car:
        """Rows of CAR of the whole sky, which begins and ends at RA 180, near a declination."""
        rows = np.arange(whole.shape[0]) / 120 - 90
        near = np.flatnonzero(np.abs(rows - dec) < 4)
        part = whole[near[0] : near[-1] + 1]
        return Car(part.shape, part.wcs)

    pixels = {
        "nside 256": (lambda dec: Healpix(256), 2.0),
        "nside 1024": (lambda dec: Healpix(1024), 2.0),
        "nside 4096": (lambda dec: Healpix(4096), 0.5),
        "CAR 0.5'": (car, 0.5),
    }
    print("Compton y on the map over the table's: whole profile (over what the halo has in all),")
    print("and within theta500, of the pixels' shares inside, where theta500 is 4 pixels or more")
    for label, (geometry, pixel) in pixels.items():
        if only not in label:
            continue
        row = f"{label:10s} "
        for place in places.values():
            for z, mass in sizes:
                h = draw.HaloList(
                    np.radians([90.0 - place[1]]),
                    np.radians([float(place[0])]),
                    np.array([z]),
                    np.array([mass]),
                    np.zeros(1),
                    np.zeros(1, np.uint64),
                )
                total, inside = _summed(h, t, geometry(place[1]), pixel)
                row += f" {total:.3f}" + (f"/{inside:.3f}" if inside else "")
            row += " |"
        print(row, flush=True)
    print("columns:", ", ".join(places), "; each for z, log10 M200m =", sizes)


def _summed(h: draw.HaloList, t: dict, geometry, pixel: float) -> tuple[float, float | None]:
    objects = paint.HaloPainter(h, t, 1, fields=("tsz",), pixel_arcmin=pixel, geometry=geometry)
    table = catalogue.table(h, t)
    radius = float(table["theta500"][0])
    sterad = (180 * 60 / np.pi) ** 2
    cut = np.degrees(np.exp(np.interp(0, [0], [np.log(objects._at.positive(t["theta_cut_y"])[0])])))
    total = inside = 0.0
    reach = np.radians(cut + 0.7)
    centre = h.vectors[:, 0]
    for chart in charts.charts(pixel, margin=paint.MARGIN):
        half = np.hypot(*chart.shape) / 2 * chart.pixel_rad
        if np.arccos(np.clip(chart.rotation[2] @ centre, -1, 1)) > half + reach:
            continue
        owned = charts.owned(chart, geometry)
        theta, phi = geometry.angles(owned)
        v = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)])
        distance = 2 * np.arcsin(np.clip(np.linalg.norm(v - centre[:, None], axis=0) / 2, 0, 1))
        some = distance < reach
        if not some.any():
            continue
        made, _ = objects.on(chart)
        values = resampling.average(chart, made["tsz"], geometry, owned[some]) / TSZ_148
        area = np.broadcast_to(geometry.area(owned[some]), values.shape)
        total += (values * area).sum(dtype=float)
        # the height of pixels, which at the poles of CAR are no squares
        size = np.radians(geometry.pixel_arcmin / 60)
        fraction = np.clip((np.radians(radius / 60) - distance[some]) / size + 0.5, 0, 1)
        inside += (values * area * fraction).sum(dtype=float)
    flux_of = objects._at.positive(objects.gaussians.flux["y"])[0]
    resolved = radius > 4 * geometry.pixel_arcmin
    y500 = float(table["y500"][0]) / sterad
    return total / flux_of, inside / y500 if resolved else None


def minima(t: dict, seeds: int, regions: int, nside: int = 1024) -> None:
    """Objects alone on both sides, so that no network is in between."""
    fwhm = np.radians(8 / 60)
    rows = []
    for seed in range(1, seeds + 1):
        made = paint.maps(haloes(t, seed), t, seed, Healpix(nside), 2.0, fields=("kappa", "tsz"))
        smooth = {n: healpy.smoothing(made[n].astype(float), fwhm=fwhm, iter=0) for n in made}
        tsz, kappa = smooth["tsz"], smooth["kappa"]
        place = _deepest(tsz, nside)
        # by octant, for the errors
        octant = healpy.ang2pix(1, *healpy.pix2ang(nside, place))
        rows.append([(tsz[p], kappa[p], o) for p, o in zip(place, octant, strict=True)])
    print("mean of ranks " + ", ".join(f"{a + 1}-{b}" for a, b in itertools.pairwise(RANKS)))
    for number, name in enumerate(("tSZ uK", "kappa")):
        _print_ranks(f"sky, {name}", rows, number, 12)
    painted, area = _painted_minima(t, regions)
    print(f"painted regions: {100 * area:.0f} % of the sky")
    for number, name in enumerate(("tSZ uK", "kappa")):
        _print_ranks(f"painted, {name}", [painted], number, regions, area)


def _print_ranks(label: str, skies: list, number: int, groups: int, area: float = 1.0) -> None:
    """Means by rank of a sky (ranks times `area` of a part of it), errors by jackknife."""

    def means(values, fraction: float):
        ordered = np.array(sorted(values))[:, number]
        edges = np.rint(np.array(RANKS) * fraction).astype(int)
        return np.array([ordered[a : max(b, a + 1)].mean() for a, b in itertools.pairwise(edges)])

    mean = np.mean([means(values, area) for values in skies], 0)
    variance = np.zeros(len(RANKS) - 1)
    for values in skies:
        less = (groups - 1) / groups
        each = [means([v for v in values if v[2] != g], area * less) for g in range(groups)]
        variance += less * ((np.array(each) - np.mean(each, 0)) ** 2).sum(0) / len(skies) ** 2
    print(
        f"{label:16s}"
        + "".join(f"{m:10.4g}({e:.2g})" for m, e in zip(mean, np.sqrt(variance), strict=True)),
        flush=True,
    )


def _deepest(field: np.ndarray, nside: int, count: int = 600) -> np.ndarray:
    used = np.zeros(field.size, bool)
    out = []
    for p in np.argsort(field)[: 200 * count]:
        if not used[p]:
            used[healpy.query_disc(nside, healpy.pix2vec(nside, p), np.radians(0.7))] = True
            out.append(p)
            if len(out) == count:
                break
    return np.array(out)


def _painted_minima(t: dict, regions: int, n: int = 512, pixel: float = 2.0):
    """Minima of the objects of painted regions, and the share of the sky that these are."""
    painter = Painter(pixel, n, t, objects=1e14)
    ky, kx = np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None]
    sigma = 8 / 2.3548 / pixel
    beam = np.exp(-0.5 * (2 * np.pi * np.hypot(ky, kx) * sigma) ** 2)
    r = round(42 / pixel)
    values = []
    for index in range(regions):
        made = painter.region(900, index).objects
        tsz, kappa = (
            np.fft.irfft2(np.fft.rfft2(made.maps[i].numpy()) * beam, s=(n, n)) for i in (2, 0)
        )
        used = np.zeros((n, n), bool)
        kept = 0
        for p in np.argsort(tsz, axis=None)[:8000]:
            y, x = divmod(int(p), n)
            if used[y, x]:
                continue
            used[np.ix_(np.arange(y - r, y + r) % n, np.arange(x - r, x + r) % n)] = True
            values.append((tsz[y, x], kappa[y, x], index))
            kept += 1
            if kept == 40:
                break
    return values, regions * (n * pixel / 60) ** 2 / (4 * np.pi * np.degrees(1) ** 2)


def picture(t: dict, out: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    h = haloes(t, 1)
    objects = paint.HaloPainter(h, t, 1, pixel_arcmin=1.0)
    table = catalogue.table(h, t)
    order = np.argsort(-np.asarray(table["y500"]))
    ranks = (0, 1, 4, 19, 99, 399)
    fields = {"tsz": (-60, 0), "kappa": (0, 0.15), "ksz": (-8, 8), "cib": (0, 2)}
    figure, axes = plt.subplots(4, len(ranks), figsize=(2.2 * len(ranks), 8.8))
    for column, rank in enumerate(ranks):
        row = table[order[rank]]
        v = healpy.ang2vec(row["ra"], row["dec"], lonlat=True)
        index = int(healpy.vec2pix(charts.NSIDE, *v, nest=True))
        chart = charts.charts(1.0, 100)[index]
        made, _ = objects.on(chart)
        y, x = (int(np.rint(c)) for c in chart.project_vectors(v))
        for line, (name, (low, high)) in enumerate(fields.items()):
            axis = axes[line, column]
            part = made[name][max(y - 60, 0) : y + 61, max(x - 60, 0) : x + 61]
            colour = "RdBu_r" if name == "ksz" else "viridis_r" if name == "tsz" else "viridis"
            image = axis.imshow(part, vmin=low, vmax=high, origin="lower", cmap=colour)
            axis.set_xticks([])
            axis.set_yticks([])
            if column == 0:
                axis.set_ylabel(name if name == "kappa" else f"{name}, uK")
            if column == len(ranks) - 1:
                figure.colorbar(image, ax=axis, fraction=0.046)
        axes[0, column].set_title(
            f"{rank + 1}: z = {row['z']:.3f}\n{row['m200m'] / 1e14:.1f}e14 Msun\n"
            f"{row['velocity']:.0f} km/s",
            fontsize=8,
        )
    figure.tight_layout()
    figure.savefig(out, dpi=70)


def clock(t: dict, nside: int) -> None:
    geometry = Healpix(nside)
    pixel = 2.0 if nside <= 1024 else 0.5
    shells.spectra(t)  # its covariance is kept on disk
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    h = haloes(t, 1)
    drawn = time.perf_counter() - start, time.process_time() - cpu
    paint.maps(h, t, 1, geometry, pixel, fields=("kappa", "tsz", "ksz", "cib", "radio"))
    total = time.perf_counter() - start, time.process_time() - cpu
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"nside {nside}, {len(h)} haloes: drawn in {drawn[0]:.1f} s ({drawn[1]:.1f} s of cores), "
        f"all in {total[0]:.1f} s ({total[1]:.1f}); memory {(after - before) / 2**20:.2f} GiB, of "
        f"which output maps {4 * 4 * geometry.npix / 2**30:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = ["counts", "clustering", "power", "list", "flux", "minima", "time", "picture"]
    parser.add_argument("what", choices=kinds)
    parser.add_argument("--out", default="clusters.jpg")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--nside", type=int, default=1024)
    parser.add_argument("--disc", type=float, default=180.0, help="radius, degrees, of list alone")
    parser.add_argument("--pixels", default="", help="part of the name of pixels, of flux alone")
    parser.add_argument("--regions", type=int, default=30, help="painted ones, of minima")
    arguments = parser.parse_args()
    t = halo_tables.load()
    if arguments.what == "flux":
        flux(t, arguments.pixels)
    elif arguments.what == "list":
        of_list(t, arguments.nside, arguments.disc)
    elif arguments.what == "minima":
        minima(t, arguments.seeds, arguments.regions)
    elif arguments.what == "picture":
        picture(t, arguments.out)
    elif arguments.what == "time":
        clock(t, arguments.nside)
    else:
        work = {"counts": counts, "clustering": clustering, "power": power}
        work[arguments.what](t, arguments.seeds)


if __name__ == "__main__":
    main()
