"""Theory: cosmological parameters and the spectra of kappa and of the primary CMB.

Importing this package loads neither CAMB nor CCL; the first spectrum that is not
in the cache does.
"""

from mlsky.theory.cosmology import Cosmology, names, parse
from mlsky.theory.spectra import cmb_spectra, kappa_spectrum

__all__ = ["Cosmology", "cmb_spectra", "kappa_spectrum", "names", "parse"]
