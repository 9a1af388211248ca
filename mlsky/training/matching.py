"""Statistics that a generator must share with the truth, as differentiable losses.

Each statistic is averaged over a batch and over past batches, for the truth and for the generator
*on the same conditions*, so that sample variance cancels. Gradients flow through the current batch.
Conditions and fields are in normalised units.

Statistics are dicts ``name -> (kind, tensor)``; the kind says how two of them are compared:
"power" by the log of their ratio, "coherence" and "quantile" by their difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F

from mlsky.components import maps_of
from mlsky.networks.blurs import blur
from mlsky.networks.default import colours
from mlsky.networks.inputs import asinh_compression
from mlsky.networks.normaliser import Normaliser

__all__ = ["Matching", "Spectra", "convergence_statistics", "paint_statistics"]

ARCMIN = math.pi / 180 / 60
#: beta of the smooth L1 comparison: errors below it count quadratically. With 0.05 for correlations
#: the largest errors, of a few pairs and bands among many, stayed at 0.1.
BETA = {"power": 0.1, "coherence": 0.02, "quantile": 0.05}
#: Fractions of pixels, by rank of kappa, between the groups of `tail_means`. The last groups
#: contain the clusters, which would not show in groups of equal size.
TAIL_FRACTIONS = (0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4)
#: The same for smoothed kappa by its own rank; a batch of 8 has four pixels in the last group.
PEAK_FRACTIONS = (0.01, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5)
SECTORS = 4  # angle sectors, as an oriented texture may have the right angle-averaged power


class Spectra:
    """Binned auto and cross spectra of patches, all pairs of channels.

    Parameters
    ----------
    size
        Pixels along a side.
    pixel_arcmin
        Pixel size.
    bins
        Logarithmic bins between the patch's fundamental and its corner modes.
    """

    def __init__(self, size: int, pixel_arcmin: float, device, bins: int = 14) -> None:
        pixel = pixel_arcmin * ARCMIN
        ky = 2 * np.pi * np.fft.fftfreq(size, pixel)[:, None]
        kx = 2 * np.pi * np.fft.rfftfreq(size, pixel)[None]
        k = np.hypot(ky, kx).ravel()
        edges = np.geomspace(0.83, 0.5 * size, bins + 1) * 2 * np.pi / (size * pixel)
        index = np.digitize(k, edges) - 1
        column = np.arange(size // 2 + 1)[None]
        weight = np.where((column == 0) | (column == size // 2), 1.0, 2.0) * np.ones((size, 1))
        binning = np.stack([(index == b) * weight.ravel() for b in range(bins)], 1)
        binning = binning[:, binning.sum(0) > 0]
        self.ell = (k[:, None] * binning).sum(0) / binning.sum(0)
        angle = np.arctan2(ky + 0 * kx, kx + 0 * ky).ravel()
        sector = np.floor((angle + np.pi / 8) / (np.pi / SECTORS)).astype(int) % SECTORS
        sectors = np.concatenate([binning * (sector == s)[:, None] for s in range(SECTORS)], 1)
        sectors = sectors[:, (sectors > 0).sum(0) >= 3]
        window = np.hanning(size + 1)[:-1]
        window = window[:, None] * window[None]
        norm = pixel**2 / size**2

        def tensor(x):
            return torch.as_tensor(x, dtype=torch.float32, device=device)

        self.window = tensor(window / np.sqrt((window**2).mean()))
        self.binning = tensor(binning / binning.sum(0) * norm)
        self.sectors = tensor(sectors / sectors.sum(0) * norm)

    def modes(self, x: torch.Tensor) -> torch.Tensor:
        """Windowed Fourier modes (B, C, K, 2) of patches (B, C, n, n)."""
        return _Modes.apply(x.float() * self.window)

    def pairs(self, modes: torch.Tensor) -> torch.Tensor:
        """Batch-mean spectra (C, C, bins)."""
        c = modes.shape[1]
        first, second = torch.triu_indices(c, c)
        products = _Products.apply(modes, first.tolist(), second.tolist())
        power = products.unflatten(1, (-1, 2)).sum(-1) @ self.binning  # (pairs, bins)
        place = torch.zeros(c, c, dtype=torch.long)
        place[first, second] = place[second, first] = torch.arange(len(first))
        return power[place.to(power.device)]

    def by_angle(self, modes: torch.Tensor) -> torch.Tensor:
        """Batch-mean auto spectra in angle sectors (C, bins x sectors)."""
        channels = list(range(modes.shape[1]))
        products = _Products.apply(modes, channels, channels)
        return products.unflatten(1, (-1, 2)).sum(-1) @ self.sectors


class _Modes(torch.autograd.Function):
    """rfft2 of (B, C, n, n) as (B, C, K, 2); its gradient is one half-sized transform."""

    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:
        ctx.size = x.shape[-1]
        return torch.view_as_real(torch.fft.rfft2(x)).flatten(2, 3)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        n = ctx.size
        half = torch.full((n // 2 + 1, 1), 0.5, device=gradient.device)
        half[0] = 1
        if n % 2 == 0:  # irfft2 counts the columns between the first and the last twice
            half[-1] = 1
        spectrum = gradient.unflatten(2, (n, -1)) * half
        return torch.fft.irfft2(torch.view_as_complex(spectrum), (n, n), norm="forward")


class _Products(torch.autograd.Function):
    """Batch means of products of modes: (B, C, K, 2) to (pairs, 2 K), real parts by imaginary.

    A loop over pairs of channels, each of which fits in the cache.
    """

    @staticmethod
    def forward(ctx, modes: torch.Tensor, first: list[int], second: list[int]) -> torch.Tensor:
        ctx.pairs = list(zip(first, second, strict=True))
        flat = modes.flatten(2)
        ctx.save_for_backward(flat)
        out = flat.new_empty(len(first), flat.shape[2])
        for p, (i, j) in enumerate(ctx.pairs):
            torch.mean(flat[:, i] * flat[:, j], 0, out=out[p])
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: torch.Tensor):
        (flat,) = ctx.saved_tensors
        gradient = gradient / len(flat)
        out = torch.zeros_like(flat)
        for p, (i, j) in enumerate(ctx.pairs):
            out[:, i].addcmul_(flat[:, j], gradient[p])
            out[:, j].addcmul_(flat[:, i], gradient[p])
        return out.unflatten(2, (-1, 2)), None, None


def _coherence(power: torch.Tensor) -> torch.Tensor:
    """Correlation coefficients of all pairs (pairs, bins) from spectra (C, C, bins)."""
    auto = torch.diagonal(power).t().clamp(min=1e-30)
    r = power / torch.sqrt(auto[:, None] * auto[None])
    i, j = torch.triu_indices(len(auto), len(auto), 1)
    return r[i, j]


def _edges(n: int, tail: float, body) -> np.ndarray:
    """Edges of probability bins with equal weight per decade of the tails."""
    wing = np.geomspace(tail, body[0], 9 if tail < 1e-4 else 6)
    p = np.concatenate([wing, body[1:-1], 1 - wing[::-1]])
    return np.unique(np.concatenate([[0], (p * n).astype(int), [n]]))


def _partition(x: torch.Tensor, edges: np.ndarray) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Values (rows, n) partially sorted into bins between edges, and their original positions.

    Values inside a bin need no order, and partitioning with NumPy takes a quarter of the time of a
    sort. Each key has the value in its high half and the position in its low half, so that ties are
    ordered as in a stable sort.
    """
    if x.device.type != "cpu":
        return x.sort(dim=-1, stable=True)
    values = x.detach().contiguous().numpy()
    bits = values.view(np.int32)
    keys = (bits ^ ((bits >> 31) | np.int32(-(2**31)))).view(np.uint32).astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= np.arange(x.shape[-1], dtype=np.uint64)
    keys.partition(edges[1:-1], -1)
    order = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return torch.from_numpy(np.take_along_axis(values, order, -1)), torch.from_numpy(order)


class _BinMeans(torch.autograd.Function):
    """Means (rows, bins) of the numbers (rows, n) between edges of their ranks."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, edges: np.ndarray) -> torch.Tensor:
        values, order = _partition(x, edges)
        width = torch.from_numpy(np.diff(edges)).to(x.device)
        ctx.save_for_backward(order, width)
        if x.device.type == "cpu":
            total = np.add.reduceat(values.numpy(), edges[:-1], axis=-1, dtype=np.float64)
            return (torch.from_numpy(total) / width).float()
        bounds = torch.from_numpy(edges).to(x.device)
        total = F.pad(values.double().cumsum(-1), (1, 0))[..., bounds]
        return ((total[..., 1:] - total[..., :-1]) / width).float()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: torch.Tensor):
        order, width = ctx.saved_tensors
        each = (gradient / width).repeat_interleave(width, -1, output_size=order.shape[-1])
        return torch.empty_like(each).scatter_(-1, order, each), None


def quantiles(x: torch.Tensor) -> torch.Tensor:
    """Tail-binned quantile function of each channel: (B, C, n, n) to (C, bins).

    The L1 distance of two of these is a Wasserstein distance with equal weight per decade
    of probability.
    """
    flat = x.transpose(0, 1).flatten(1)
    edges = _edges(flat.shape[1], 3e-5, np.linspace(0.1, 0.9, 9))
    return _BinMeans.apply(flat.float(), edges)


def conditional_quantiles(
    condition: torch.Tensor, x: torch.Tensor, groups: int = 8
) -> torch.Tensor:
    """Quantile functions of x inside rank groups of the condition: (C, groups, bins)."""
    flat = x.transpose(0, 1).flatten(1).float()
    count = flat.shape[1] // groups
    ranks = condition.detach().float().reshape(1, -1)
    order = _partition(ranks, count * np.arange(groups + 1))[1].reshape(-1)
    flat = flat.index_select(1, order).reshape(-1, count)
    edges = _edges(count, 2.0 / count, np.array([0.25, 0.5, 0.75]))
    return _BinMeans.apply(flat, edges).unflatten(0, (-1, groups))


def tail_means(
    condition: torch.Tensor, x: torch.Tensor, fractions: Sequence[float] = TAIL_FRACTIONS
) -> torch.Tensor:
    """Means of non-negative x where the condition is high: (C, groups), the highest first."""
    flat = x.transpose(0, 1).flatten(1).float()
    n = flat.shape[1]
    edges = [0, *sorted({round(fraction * n) for fraction in fractions} - {0})]
    top = condition.detach().float().reshape(-1).topk(edges[-1], sorted=True).indices
    flat = flat.index_select(1, top)
    return torch.stack([flat[:, a:b].mean(1) for a, b in pairwise(edges)], 1)


def _raw(x: torch.Tensor, name: str, normaliser: Normaliser) -> torch.Tensor:
    """A field in units of the scale of its channel, with its brightest pixels clipped."""
    of = normaliser.select([name])
    v = x * of.std[0] + of.mean[0]
    return torch.sign(v) * torch.expm1(v.abs().clamp(max=4.9))


def paint_statistics(spectra: Spectra, normaliser: Normaliser) -> Callable:
    """Statistics of (kSZ, tSZ, CIB) given kappa; also of kSZ^2 and of the raw tSZ and CIB.

    Conditions are kappa, and kappa and tSZ of objects if there are any. Several templates of the
    CIB enter as the first one and differences of the others, normalised and raw, as their
    correlations are all near one and would constrain little.
    """
    cibs = maps_of(normaliser.channels, "cib")

    def statistics(condition: torch.Tensor, x: torch.Tensor) -> dict:
        kappa, objects = condition[:, :1], condition[:, 1:]
        x_own = colours(x)
        ksz2 = (x[:, :1] ** 2 - 1).clamp(max=100.0)
        tsz = _raw(x[:, 1:2], "tsz", normaliser)
        raw = [_raw(x[:, 2 + i : 3 + i], name, normaliser) for i, name in enumerate(cibs)]
        cib = torch.cat([raw[0], *(b - a for a, b in pairwise(raw))], 1)
        seen = torch.cat([kappa, asinh_compression(objects)], 1)
        bright = [_raw(objects[:, 1:2], "objects_tsz", normaliser)] if objects.shape[1] else []
        parts = (seen, x_own, *bright, ksz2, tsz, cib)
        modes = spectra.modes(torch.cat(parts, 1))
        n, fields = condition.shape[1], condition.shape[1] + x.shape[1]
        linear = [*range(n), *range(fields, modes.shape[1])]
        n_linear = n + len(bright)
        of_normal, of_linear = spectra.pairs(modes[:, :fields]), spectra.pairs(modes[:, linear])
        pool2, pool4 = F.avg_pool2d(x_own, 2), F.avg_pool2d(x_own, 4)
        out = {
            "power": ("power", torch.diagonal(of_normal)[:, n:]),
            "power_raw": ("power", torch.diagonal(of_linear)[:, n_linear:]),
            "coherence": ("coherence", _coherence(of_normal)),
            "coherence_raw": ("coherence", _coherence(of_linear)),
            "angle": ("power", spectra.by_angle(modes[:, n:fields])),
            "pixel": ("quantile", quantiles(x_own)),
            "pixel4": ("quantile", quantiles(pool4)),
        }
        for factor, pooled in ((2, pool2), (4, pool4)):
            shown = torch.cat([pooled, pooled[:, :1].abs()], 1)
            out[f"conditional{factor}"] = (
                "quantile",
                conditional_quantiles(F.avg_pool2d(kappa, factor), shown),
            )
            if objects.shape[1]:
                where = F.avg_pool2d(-objects[:, 1:2], factor)
                out[f"objects{factor}"] = ("quantile", conditional_quantiles(where, shown))
        linear_fields = torch.cat([ksz2 + 1, -tsz, *raw], 1)
        for factor in (1, 2, 4):
            pooled = F.avg_pool2d(linear_fields, factor)
            if factor < 4:
                where = F.avg_pool2d(kappa, factor)
                out[f"tail{factor}"] = ("power", tail_means(where, pooled))
            if objects.shape[1] and factor > 1:
                where = F.avg_pool2d(-objects[:, 1:2], factor)
                out[f"objects_tail{factor}"] = ("power", tail_means(where, pooled))
        return out

    return statistics


def convergence_statistics(spectra: Spectra, normaliser: Normaliser | None = None) -> Callable:
    """Statistics of kappa given the Gaussian kappa it grew from, and the objects it leaves out.

    A local function of the Gaussian kappa can match power and pixel histogram, but not smoothed
    skewness and peaks. Therefore pooled fields, details between pools and a field of peaks are
    included.
    """

    def statistics(condition: torch.Tensor, x: torch.Tensor) -> dict:
        gaussian_kappa, objects = condition[:, :1], condition[:, 1:]
        p2 = F.avg_pool2d(x, 2)
        p4 = F.avg_pool2d(p2, 2)
        p8 = F.avg_pool2d(p4, 2)
        smooth = blur(x, 1.2)
        peaks = F.relu(smooth - 1.5).clamp(max=10.0)
        modes = spectra.modes(
            torch.cat(
                [gaussian_kappa, asinh_compression(objects), x, asinh_compression(x), peaks], 1
            )
        )
        n = condition.shape[1]
        power = spectra.pairs(modes)

        def up(y):
            return F.interpolate(y, scale_factor=2, mode="nearest")

        d1, d2, d4 = x - up(p2), p2 - up(p4), p4 - up(p8)
        local = torch.log(0.05 + F.avg_pool2d(d1**2, 8)), torch.log(0.05 + F.avg_pool2d(d2**2, 4))
        coarse = torch.cat([p8, *local], 1)
        out = {
            "power": ("power", torch.diagonal(power)[:, n:]),
            "coherence": ("coherence", _coherence(power)),
            "angle": ("power", spectra.by_angle(modes[:, [n, n + 2]])),
            "pixel": ("quantile", quantiles(x)),
            "pixel2": ("quantile", quantiles(p2)),
            "pixel4": ("quantile", quantiles(p4)),
            "pixel8": ("quantile", quantiles(p8)),
            "detail1": ("quantile", quantiles(d1)),
            "detail2": ("quantile", quantiles(d2)),
            "detail4": ("quantile", quantiles(d4)),
            "peaks": ("quantile", quantiles(peaks)),
            "tail": ("power", tail_means(smooth, F.relu(smooth), PEAK_FRACTIONS)),
            "conditional2": (
                "quantile",
                conditional_quantiles(F.avg_pool2d(gaussian_kappa, 2), p2),
            ),
            "conditional4": (
                "quantile",
                conditional_quantiles(F.avg_pool2d(gaussian_kappa, 4), p4),
            ),
            "conditional8": (
                "quantile",
                conditional_quantiles(F.avg_pool2d(gaussian_kappa, 8), coarse),
            ),
            "self8": ("quantile", conditional_quantiles(p8, coarse[:, 1:])),
        }
        if n > 1:
            for factor, pooled in ((2, p2), (8, coarse)):
                where = F.avg_pool2d(objects[:, :1], factor)
                out[f"objects{factor}"] = ("quantile", conditional_quantiles(where, pooled))
            # signal around clusters; positive, as its logarithm is compared
            for factor, pooled in ((2, p2), (4, p4)):
                where = F.avg_pool2d(objects[:, :1], factor)
                level = F.softplus(pooled + 1)
                out[f"objects_tail{factor}"] = ("power", tail_means(where, level))
        return out

    return statistics


class Matching:
    """Running comparison of the generator's statistics with the truth's.

    Parameters
    ----------
    statistics
        Function (condition, fields) to a dict of statistics.
    weights
        Weight of each statistic in the loss.
    memory
        Weight of the current batch in the running averages.
    even
        Whether the first batches weigh the same, until each has that weight. Otherwise the first
        one counts most for about 1 / memory batches.
    steady
        Whether, beside that, the truth, which does not change, is averaged over all batches, and
        generated images over more batches where the learning rate is lower. For images without a
        condition, where no sample variance cancels.
    """

    def __init__(
        self,
        statistics: Callable,
        weights: Mapping[str, float],
        memory: float = 0.15,
        even: bool = False,
        steady: bool = False,
    ) -> None:
        self.statistics, self.weights, self.memory = statistics, dict(weights), memory
        self.even, self.steady = even or steady, steady
        self.running: dict[str, torch.Tensor] = {}

    def _average(self, key: str, value: torch.Tensor, weight: float) -> torch.Tensor:
        value = value.contiguous()  # as after reading a checkpoint, whose sums have one order
        if key in self.running:
            value = (1 - weight) * self.running[key] + weight * value
        if torch.isfinite(value).all():  # a bad batch must not affect all later ones
            self.running[key] = value.detach()
        return value

    def __call__(
        self, condition, fake, real, rate: float = 1.0, trained: int | None = None
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss, and its parts by name.

        Of steady averages, `rate` is the learning rate over its highest, and `trained` how many of
        the generated images have gradients, all by default. Neither makes gradients weaker.
        """
        weight, gain = self.memory, 1.0
        if self.even:
            batches = self.running.get("batches", torch.zeros(())) + 1
            self.running["batches"] = batches
            weight = max(self.memory * (rate if self.steady else 1), 1 / batches.item())
        of_truth = weight
        if self.steady:
            of_truth = 1 / batches.item()
            gain = self.memory * len(fake) / (trained or len(fake)) / weight
        with torch.no_grad():
            truth = {
                k: (kind, self._average(f"real.{k}", v, of_truth))
                for k, (kind, v) in self.statistics(condition, real).items()
            }
        total, parts = 0.0, {}
        for name, (kind, value) in self.statistics(condition, fake).items():
            a, b = self._average(f"fake.{name}", value, weight), truth[name][1]
            if gain != 1:
                a = a.detach() + gain * (a - a.detach())
            if kind == "power":
                a = torch.log(a.clamp(min=1e-30) / b.clamp(min=1e-30))
                b = torch.zeros_like(a)
            part = F.smooth_l1_loss(a, b, beta=BETA[kind])
            parts[name] = part.item()
            total = total + self.weights[name] * part
        return total, parts
