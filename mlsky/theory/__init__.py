"""Theory: cosmological parameters, spectra of kappa, of the primary CMB and of foregrounds.

Importing this package loads neither CAMB nor CCL; the first spectrum that is not
in the cache does.
"""

from mlsky.theory.cosmology import names, parse
from mlsky.theory.foregrounds import foreground_spectra
from mlsky.theory.parameters import Cosmology
from mlsky.theory.spectra import cmb_spectra, kappa_spectrum

__all__ = [
    "Cosmology",
    "cmb_spectra",
    "foreground_spectra",
    "kappa_spectrum",
    "names",
    "parse",
]
