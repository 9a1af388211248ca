"""The normaliser of Han et al. (2021), which several tests take as an example."""

from __future__ import annotations

from mlsky.networks.normaliser import Normaliser

#: The numbers of Han et al. (2021), measured on 30 000 patches of the S10 simulations
#: (transforms.py and notebook 281120 of github.com/dwhan89/cosmikyu); uK_CMB at 148 GHz, 0.5'.
HAN2021 = Normaliser(
    channels=("kappa", "ksz", "tsz", "cib", "radio"),
    scale=(None, None, 3.6809409, 17.1340107, 6.3924147),
    mean=(0.0, 0.0, -0.6293921, 0.6045004, 0.1989056),
    std=(0.0805742, 2.3472933, 0.2863591, 0.3485478, 0.4214916),
)
