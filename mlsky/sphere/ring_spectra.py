"""Spectra of band-limited fields along the rings of a grid, rings a few at a time.

The Legendre transforms are ducc0's. A field in colatitude is a series of cosines or sines of at
most lmax waves, so that its rings follow from others: from all of lmax + 2 of them by Fourier
transforms, or from those close by with a filter.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from mlsky.sphere.compiled import compiled
from mlsky.sphere.threads import run_blocks

__all__ = ["FILTER", "TRANSFORMS", "from_all_rings", "from_close_rings"]

#: Rings on either side of a row of the grid that it is made of: the error of the filter is 1e-8.
FILTER = 48

#: Rings for how many rows of the grid: the first ratio that divides the grid is taken. With fewer
#: rings there would be no room for a filter.
_RATIOS = ((3, 4), (7, 9), (4, 5), (9, 11), (6, 7), (1, 1))

#: Rings that are transformed together, with those that mirror them at the equator: at most, and as
#: a fraction of all. And orders m at a time. The bits of a ring depend on these.
_RINGS, _RINGS_FRACTION, _ORDERS = 256, 1 / 32, 128

#: Transforms at a time. Transforms that do not fill a vector register are computed one by one, with
#: other rounding; blocks of fixed size make this independent of the threads.
TRANSFORMS = 64


def _legendre(
    alm, lmax: int, spin: int, theta: np.ndarray, m: np.ndarray, nthreads: int, out=None
) -> np.ndarray:
    """Ring spectra (1 or 2, rings, orders) of one field."""
    import ducc0

    return ducc0.sht.alm2leg(
        alm=alm,
        spin=spin,
        mode="GRAD_ONLY" if spin and len(alm) == 1 else "STANDARD",
        lmax=lmax,
        mval=m.astype(np.uint64),
        mstart=(m * (2 * lmax + 1 - m) // 2).astype(np.uint64),
        theta=theta,
        nthreads=nthreads,
        leg=out,
    )


def from_all_rings(
    alm, lmax: int, transform, nthreads: int, spin: int, rows: slice, ntheta: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Number of the field, orders m and ring spectra (rows, m), from those of lmax + 2 rings."""
    n = lmax + 2
    ell = np.arange(lmax + 1)
    over_k = 1 / (2 * n * transform(ell * np.pi / ntheta))
    nodes = (np.arange(n) + 0.5) * np.pi / n
    width = max(16, (1 << 21) // n)  # 32 MB of Legendre transforms at a time
    for odd in (0, 1):
        # In colatitude ring spectra are cosine series for even m, sine series for odd m; so are
        # those of spin 2, as both of its axes are reversed at a pole. Vectors turn round there.
        sine = odd ^ (spin & 1)
        for i in range(odd, lmax + 1, 2 * width):
            m = ell[i : i + 2 * width : 2]
            made = [_legendre(one, lmax, spin, nodes, m, nthreads) for one in _each(alm, spin)]
            for number, part in enumerate(itertools.chain(*made)):
                part = np.ascontiguousarray(part).view(np.float64)
                values = _resampled(part, sine, over_k[sine:], ntheta, nthreads)
                yield number, m, values[rows].view(np.complex128)


def _each(alm: np.ndarray, spin: int) -> Sequence[np.ndarray]:
    """The fields, (1 or 2, nalm) each."""
    return [alm] if spin else alm[:, np.newaxis]


def from_close_rings(
    alm, lmax: int, transform, nthreads: int, spin: int, rows: slice, ntheta: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """As `from_all_rings`, each row from the rings closest to it, of which there are a few more.

    A row has the same bits whatever other rows are made. The gradient of a field takes a transform
    of its values alone: the derivative across the rings is another filter.
    """
    of, several = ratio = next(r for r in _RATIOS if ntheta % r[1] == 0)
    nrings = ntheta // several * of
    step = np.pi / nrings
    first = rows.start // several * of - FILTER
    needed = np.arange(first, -(-rows.stop // several) * of + FILTER)
    inside = np.where((needed < 0) | (needed >= nrings), -1 - needed, needed) % nrings
    across = needed != inside  # beyond a pole
    blocks, at = _blocks(inside, nrings)
    gradient = spin == 1 and len(alm) == 1
    fields = [_without_root(alm, lmax)] if gradient else _each(alm, spin)
    kind = 0 if gradient else spin
    flat = _filter(transform, lmax * step, ratio)
    slope = _filter(transform, lmax * step, ratio, slope=True) / step
    sine = np.sin((inside + 0.5) * step)[:, np.newaxis]
    for i in range(0, lmax + 1, _ORDERS):
        m = np.arange(i, min(i + _ORDERS, lmax + 1))
        turned = 1.0 - 2.0 * (m + kind & 1)  # the sign of what lies beyond a pole
        number = 0
        for one in fields:
            made = np.empty((2 if kind else 1, sum(map(len, blocks)), m.size), np.complex128)
            end = 0
            for block in blocks:
                begin, end = end, end + len(block)
                theta = (block + 0.5) * step
                _legendre(one, lmax, kind, theta, m, nthreads, made[:, begin:end])
            for part in made[:, at]:
                part[across] *= turned
                if gradient:
                    yield 0, m, _filtered(part, slope, first, rows, ratio, nthreads)
                    part *= 1j * m / sine
                    part[across] *= -1
                yield number + gradient, m, _filtered(part, flat, first, rows, ratio, nthreads)
                number += 1


def _blocks(rings: np.ndarray, nrings: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Blocks of rings that hold some, with their mirrors; places of the rings in all blocks."""
    size = max(1, min(_RINGS, int(nrings * _RINGS_FRACTION)))
    north = np.minimum(rings, nrings - 1 - rings)
    blocks = []
    for begin in np.unique(north // size) * size:
        above = np.arange(begin, min(begin + size, (nrings + 1) // 2))
        blocks.append(np.union1d(above, nrings - 1 - above))
    number = np.concatenate(blocks)
    return blocks, np.argsort(number)[np.searchsorted(np.sort(number), rings)]


def _without_root(alm: np.ndarray, lmax: int) -> np.ndarray:
    """Multipoles of the field whose gradient has the multipoles `alm`, sqrt(l (l + 1)) as many."""
    ell = np.arange(lmax + 1.0)
    factor = np.divide(1, np.sqrt(ell * (ell + 1)), out=np.zeros(lmax + 1), where=ell > 0)
    out = alm.copy()
    for m in range(lmax + 1):
        first = m * (2 * lmax + 1 - m) // 2
        out[:, first + m : first + lmax + 1] *= factor[m:]
    return out


def _resampled(series: np.ndarray, odd: int, over_k, ntheta: int, nthreads: int) -> np.ndarray:
    """Columns at lmax + 2 colatitudes as columns at `ntheta`, each wave multiplied by `over_k`."""
    import ducc0

    transformer = ducc0.fft.dst if odd else ducc0.fft.dct
    series = _along_columns(transformer, series, 2, nthreads)
    padded = np.zeros((ntheta, series.shape[1]))
    padded[: over_k.size] = series[: over_k.size] * over_k[:, None]
    return _along_columns(transformer, padded, 3, nthreads)


def _filter(
    transform: Callable, highest: float, ratio: tuple[int, int], slope: bool = False
) -> np.ndarray:
    """Taps (phases, 2 J) from rings to rows, which divide by `transform` up to a wave number.

    The wave number is in rad per ring. With `slope` they also take the derivative, per ring.
    """
    of, several = ratio
    wave = np.linspace(0, highest, 2000)
    wanted = (wave if slope else np.ones(wave.size)) / transform(wave * of / several)
    zero = np.zeros(wave.size)
    wanted = np.concatenate([zero, wanted] if slope else [wanted, zero])
    out = []
    for phase in range(several):
        place = (phase + 0.5) * of / several - 0.5
        angle = np.outer(wave, np.arange(1 - FILTER, FILTER + 1) - (place - np.floor(place)))
        both = np.concatenate([np.cos(angle), np.sin(angle)])
        out.append(np.linalg.lstsq(both, wanted, rcond=None)[0])
    return np.stack(out)


def _filtered(
    columns: np.ndarray,
    taps: np.ndarray,
    first: int,
    rows: slice,
    ratio: tuple[int, int],
    nthreads: int,
) -> np.ndarray:
    """Rows of the grid, (rows, m), from columns that begin at the ring `first`."""
    of, several = ratio
    row = np.arange(rows.start, rows.stop)
    phase = row % several
    ring = row // several * of + np.floor((phase + 0.5) * of / several - 0.5).astype(np.int64)
    start = ring + 1 - FILTER - first
    out = np.zeros((row.size, columns.shape[1]), np.complex128)
    source, target = columns.view(np.float64), out.view(np.float64)

    def work(s: slice) -> None:
        _filter_rows(source, taps, start[s], phase[s], target[s])

    run_blocks(work, row.size, nthreads, 512)
    return out


@compiled
def _filter_rows(columns, taps, start, phase, out):
    """Sums of `taps` of the phase of each row times columns that begin at `start`."""
    for i in range(len(out)):
        for t in range(0, taps.shape[1], 4):  # four at a time: the sum is stored less often
            a, b, c, d = taps[phase[i], t : t + 4]
            one, two, three, four = columns[start[i] + t : start[i] + t + 4]
            for j in range(columns.shape[1]):
                out[i, j] += (a * one[j] + b * two[j]) + (c * three[j] + d * four[j])


def _along_columns(transformer: Callable, x: np.ndarray, kind: int, nthreads: int) -> np.ndarray:
    """Transforms of the columns of x, the same to the bit for any number of threads."""
    out = np.empty_like(x)

    def work(s: slice) -> None:
        out[:, s] = transformer(np.ascontiguousarray(x[:, s]), axes=(0,), type=kind, nthreads=1)

    run_blocks(work, x.shape[1], nthreads, TRANSFORMS)
    return out
