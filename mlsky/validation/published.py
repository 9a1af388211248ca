"""What Han, Sehgal & Villaescusa-Navarro (2021, arXiv:2105.11444) show of their maps, as numbers.

Read off the figures in the notebooks of their code (github.com/dwhan89/cosmikyu, HEAD 927c56f):
spectra to 3 per cent, correlation coefficients to 0.01, the rest to a line's width. Their truth is
that of Sehgal et al. (2010): what to compare is their ratio to it, not their values.
"""

from __future__ import annotations

__all__ = ["CORRELATION", "D_ELL", "LENSING", "RATIOS", "TABLE"]

ELL = (500, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000)
#: Correlation coefficient by pair of fields at `ELL`: of their network, and of their truth.
CORRELATION = {
    ("kappa", "tsz"): (
        (-0.245, -0.332, -0.426, -0.477, -0.521, -0.548, -0.545, -0.529, -0.519),
        (-0.281, -0.331, -0.404, -0.457, -0.490, -0.511, -0.522, -0.526, -0.528),
    ),
    ("kappa", "cib"): (
        (0.375, 0.297, 0.349, 0.359, 0.364, 0.377, 0.379, 0.350, 0.323),
        (0.320, 0.306, 0.324, 0.342, 0.350, 0.350, 0.348, 0.338, 0.324),
    ),
    ("kappa", "radio"): (
        (0.141, 0.083, 0.070, 0.053, 0.052, 0.053, 0.055, 0.059, 0.053),
        (0.106, 0.077, 0.066, 0.066, 0.059, 0.060, 0.055, 0.055, None),
    ),
    ("tsz", "cib"): (
        (-0.128, -0.212, -0.309, -0.350, -0.369, -0.373, -0.369, -0.361, -0.358),
        (-0.178, -0.204, -0.288, -0.333, -0.360, None, -0.380, -0.383, -0.384),
    ),
}
#: D_l (uK^2 at 148 GHz, kappa times 10^4) of both at `ELL`, sources below 7 mJy.
D_ELL = {
    "kappa": (11, 14.4, 18, 20.2, 21.1, 22, 22.5, 22.9, 22.9),
    "ksz": (0.699, 1.46, 1.94, 2.09, 2.13, 2.09, 2.04, 1.98, 1.9),
    "tsz": (2.0, 3.42, 4.55, 4.89, 4.74, 4.45, 4.13, 3.76, 3.46),
    "cib": (2.18, 3.25, 7.45, 13.9, 22.5, 32.8, 45, 57.9, 71.4),
    "radio": (0.0401, 0.143, 0.591, 1.29, 2.27, 3.46, 4.94, 6.71, 8.72),
}
#: Binned bispectra (l in steps of 500, one sky), network over truth, by middle of the bin.
RATIOS = {
    "tsz": {350: 6.8, 850: 2.2, 1350: 0.95, 1850: 0.7, 2850: 0.7, 3850: 0.7},
    "cib": {350: 0.77, 850: 0.65, 1350: 0.55, 1850: 0.53, 2350: 0.62, 2850: 0.74, 3350: 0.9},
    "radio": {350: 1.6, 2350: 1.6, 4350: 1.6},
}
#: Bias of a lensing reconstruction from temperature, per cent of C_L of kappa, by L, of their
#: network and of their truth (100 < l < 3000, white noise of 0.01 uK arcmin).
LENSING = {"tsz": {1000: (-4.9, -6.6)}, "cib": {500: (-2.2, -2.5)}}
#: Statistic, what they show.
TABLE = (
    ("power spectra, l > 500", "within 5 % (the final maps are corrected by l)"),
    ("power spectra, l = 300", "CIB +20 %, tSZ +30 % (one sky)"),
    ("correlation coefficients", "within 0.02 to 0.04 for 1000 < l < 8000"),
    ("kappa x kSZ", "up to 0.2 in their second step, 0 in the truth"),
    ("bispectra", "tSZ 6.8 to 0.7, CIB 0.53 to 0.95, radio 1.6 of the truth"),
    ("lensing bias of tSZ", "-4.9 % for -6.6 % in the truth at L = 1000"),
    ("lensing bias of the CIB", "-2.2 % for -2.5 % in the truth at L = 500"),
    ("pixels", "10 % within a standard deviation, 25 to 50 % at three"),
    ("counts", "radio above 1 mJy -40 %, CIB above 5 mJy -60 to -80 %"),
    ("Minkowski functionals", "few per cent, radio a factor of 2 to 2.5"),
)
