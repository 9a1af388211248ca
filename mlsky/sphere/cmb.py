"""The unlensed CMB: T, E and B with their correlations, conditional on the kappa of the sky."""

from __future__ import annotations

import numpy as np

from mlsky.sphere.gaussian import alm_lmax, check_cl, scale_alm, white

__all__ = ["draw_cmb"]


def draw_cmb(
    cls: dict[str, np.ndarray],
    seed: int,
    kappa: np.ndarray | None = None,
    *,
    polarised: bool = True,
) -> np.ndarray:
    """Draw alm of T, E and B of an unlensed CMB; T and E are correlated, also with a kappa.

    Every multipole has its own random stream: the random numbers of a seed do not depend on the
    length of the spectra, on the fields or on kappa.

    Parameters
    ----------
    cls
        C_l in uK^2 under ``tt``, ``ee``, ``te`` and, if wanted, ``bb``; for a `kappa` also
        ``kk`` (dimensionless), ``tk`` and ``ek`` (uK): as `mlsky.theory.cmb_spectra` returns
        them, each *(lmax + 1,)*.
    seed
        Integer >= 0.
    kappa
        *(nalm,)* convergence with which T and E are correlated up to its band limit; its power is
        assumed to be ``kk``.
    polarised
        Whether to draw E and B; T has the same bits without them.

    Returns
    -------
    ndarray
        *(3, nalm)* complex128, uK; *(1, nalm)* if not `polarised`.

    Raises
    ------
    ValueError
        If a spectrum is missing or negative, or they are no covariance (te^2 > tt ee).

    Notes
    -----
    Given kappa, a_T = (C^Tk / C^kk) kappa + t and a_E = (C^Ek / C^kk) kappa + e, with t and e of
    covariance C^XY - C^Xk C^Yk / C^kk: the conditional Gaussian.
    """
    wanted = ("tt", "ee", "te", "kk", "tk", "ek")[: 3 if kappa is None else 6]
    missing = [name for name in wanted if name not in cls]
    if missing:
        raise ValueError(f"cls has keys {', '.join(cls)}: {', '.join(missing)} must be among them")
    tt, ee = check_cl(cls["tt"], "tt"), check_cl(cls["ee"], "ee")
    bb = check_cl(cls.get("bb", np.zeros_like(tt)), "bb")
    te = np.asarray(cls["te"], dtype=np.float64)
    lengths = [len(tt), len(ee), len(bb), *(np.size(cls[name]) for name in wanted[2:])]
    if len(set(lengths)) > 1:
        raise ValueError(f"cls of lengths {', '.join(map(str, lengths))}: must be the same")
    t_given = e_given = np.zeros_like(tt)
    if kappa is not None:
        t_given, e_given = _response(cls, alm_lmax(kappa))
        kk = np.asarray(cls["kk"], dtype=np.float64)
        tt, ee = _left(tt, t_given**2 * kk, "tt"), _left(ee, e_given**2 * kk, "ee")
        te = te - t_given * e_given * kk
    # 1e-10: a te of a fully correlated pair may exceed its bound by rounding.
    if not np.all(te**2 <= tt * ee * (1 + 1e-10)):
        worst = int(np.argmax(~(te**2 <= tt * ee * (1 + 1e-10))))
        raise ValueError(f"te={te[worst]:g} at l={worst}: must be finite with te^2 <= tt ee")
    lmax = len(tt) - 1
    fields = (3 if bb.any() else 2) if polarised else 1
    drawn = white(lmax, seed, "cmb", fields)
    # Cholesky factor of [[tt, te], [te, ee]]: T is white noise a, E is partly the same a.
    root = np.sqrt(tt)
    alm = np.zeros((3 if polarised else 1, drawn.shape[1]), dtype=np.complex128)
    if polarised:
        slope = np.divide(te, root, out=np.zeros_like(te), where=root > 0)
        alm[1] = drawn[0]
        scale_alm(alm[1], slope)
        alm[1] += scale_alm(drawn[1], np.sqrt(np.maximum(ee - slope**2, 0)))
    alm[0] = scale_alm(drawn[0], root)
    if fields == 3:
        alm[2] = scale_alm(drawn[2], np.sqrt(bb))
    if kappa is not None:
        for row, factor in zip(alm[:2], (t_given, e_given), strict=False):
            _add_scaled(row, kappa, factor)
    return alm


def _response(cls: dict[str, np.ndarray], top: int) -> tuple[np.ndarray, np.ndarray]:
    """C^Tk / C^kk and C^Ek / C^kk, uK, zero where kappa has no power or above `top`."""
    kk = check_cl(cls["kk"], "kk")
    held = (kk > 0) & (np.arange(len(kk)) <= top)
    cross = (np.asarray(cls[name], dtype=np.float64) for name in ("tk", "ek"))
    t, e = (np.divide(x, kk, out=np.zeros_like(kk), where=held) for x in cross)
    return t, e


def _left(power: np.ndarray, explained: np.ndarray, name: str) -> np.ndarray:
    """Power that kappa does not determine."""
    left = power - explained
    if not np.all(left >= -1e-10 * power):
        worst = int(np.argmax(~(left >= -1e-10 * power)))
        raise ValueError(
            f"{name}={power[worst]:g} at l={worst} is less than the {explained[worst]:g} that "
            f"kappa determines: must be finite with {name[0]}k^2 <= {name} kk"
        )
    return np.maximum(left, 0)


def _add_scaled(alm: np.ndarray, other: np.ndarray, factor: np.ndarray) -> None:
    """Add factor(l) times `other`, which may have another band limit, in place."""
    lmax, top = alm_lmax(alm), alm_lmax(other)
    common = min(lmax, top)
    for m in range(common + 1):
        first, start = (m * (2 * n + 1 - m) // 2 + m for n in (lmax, top))
        count = common + 1 - m
        alm[first : first + count] += factor[m : common + 1] * other[start : start + count]
