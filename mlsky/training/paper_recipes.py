"""Recipes of the networks of Han, Sehgal & Villaescusa-Navarro (2021), and of narrower ones.

The DCGAN of the blobs of docs/blobs is theirs too.
"""

from __future__ import annotations

from dataclasses import replace

from mlsky.training.hyperparameters import Recipe

__all__ = [
    "BLOBS_CHANGED",
    "BLOBS_REPORT",
    "NARROW_STEPS",
    "PAPER",
    "PIXGAN",
    "SWITCHES",
    "VAEGAN",
    "narrow",
]

# The three steps of Han, Sehgal & Villaescusa-Navarro (2021), with their hyperparameters except the
# width
PAPER = Recipe(
    name="dcgan",
    generator="han2021:DCGAN",
    critic="han2021:Critic",
    objective="wgan-gp",
    inputs=(),
    outputs=("kappa", "ksz", "tsz", "cib", "radio"),
    pixel_arcmin=0.5,
    batch=32,
    generator_rate=1e-4,
    critic_rate=1e-4,
    generator_betas=(0.5, 0.9),
    critic_betas=(0.5, 0.9),
    warm_up=0,
    decay_from=1.0,
    clip=float("inf"),
    average=0.0,
    critic_steps=5,
    penalty_weight=10.0,
    penalty_every=1,
    match_weight=0.0,
    bfloat16=False,
)
PIXGAN = replace(
    PAPER,
    name="pixgan",
    generator="han2021:PIXGAN",
    inputs=("kappa",),
    outputs=("ksz", "tsz", "cib", "radio"),
    variance_weight=100.0,
)
VAEGAN = replace(
    PAPER,
    name="vaegan",
    generator="han2021:VAEGAN",
    inputs=("kappa", "ksz", "tsz", "cib", "radio"),
    variance_weight=100.0,
)


def narrow(base: Recipe, width: int = 16) -> Recipe:
    """The same step at a width that two cores can train, more steps at a higher rate.

    Losses and networks are the paper's. bfloat16 and one penalty (times three) per three critic
    steps make a step 2.2 times as fast. `average` is of the weights that are kept beside those
    that train. At this rate networks of a thousand steps differ so much that their average makes
    weaker fields: that of DCGAN had half of the power of the CIB (docs/paper_chain).
    """
    return replace(
        base,
        name=f"{base.name}-w{width}",
        generator_options={**base.generator_options, "width": width},
        critic_options={**base.critic_options, "width": width},
        batch=16,
        generator_rate=3e-4,
        critic_rate=3e-4,
        critic_steps=3,
        penalty_every=3,
        bfloat16=True,
        average=0.99,
    )


NARROW_STEPS = tuple(narrow(base, width) for width in (16, 32) for base in (PAPER, PIXGAN, VAEGAN))
# Switches for what the paper leaves out, one at a time (docs/paper_chain)
SWITCHES = (
    # the symmetries of the paper's patches, which were flipped alone
    *(
        replace(narrow(base), name=f"{base.name}-w16-flips", symmetries=("flips",))
        for base in (PAPER, PIXGAN, VAEGAN)
    ),
    replace(
        narrow(PIXGAN),
        name="pixgan-w16-noise",
        generator_options={"width": 16, "noise": 2},
    ),
    # Radio alone. Fitted to the 0.6 % of its pixels that are not empty, the paper's constants set
    # empty ones to -1.8 and the spread of all to 0.16, where other fields have 1. With these an
    # empty pixel is 0 and a source 5 to 11, and an error of 0.1 about zero is 0.008 uK.
    replace(
        narrow(PAPER),
        name="dcgan-w16-radio",
        outputs=("radio",),
        constants=(("radio", 0.1, 0.0, 0.8),),
        generator_options={"channels": 1, "width": 16, "noise": 2},
        critic_options={"channels": 1, "width": 16},
        symmetries=("flips", "turns"),
    ),
    replace(
        narrow(VAEGAN),
        name="vaegan-w16-paired",
        paired=True,
        # as in the paper's Table I; its released code has the 5 of an unpaired critic
        critic_options={"channels": 10, "width": 16},
    ),
)


# A DCGAN as in docs/blobs, at a width that two cores can train. Its first images are as strong as
# true ones: with the paper's gain of 1, twelve times the pixels' spread of images of one blob, it
# learns to be weak by making the same image of all numbers, and no blob in 750 steps.
BLOBS_REPORT = replace(
    narrow(PAPER),
    name="blobs-1-report",
    outputs=("blobs",),
    images="blobs-1",
    average=0.999,  # 38 % of the images have one blob; of the last weights 33 %
    critic_options={"channels": 1, "width": 16},
    generator_options={"channels": 1, "width": 16, "gain": 0.1},
)


def _blobs_changed(change: str, options: dict | None = None, **fields) -> Recipe:
    """`BLOBS_REPORT` with one change, of options of the generator or of other fields."""
    return replace(
        BLOBS_REPORT,
        name=f"{BLOBS_REPORT.name}-{change}",
        generator_options={**BLOBS_REPORT.generator_options, **(options or {})},
        **fields,
    )


# One change each against what the report found (docs/blobs)
BLOBS_CHANGED = (
    # The number of blobs: the distribution of the flux of an image is matched. Its weight is our
    # choice: the slope of the term for a background that gives an image its flux, 36 x 0.5 x 0.05
    # (the weight of a batch), is below 1 per unit of its norm, the slope of a critic. From first
    # weights the network made such a background all the same (docs/blobs).
    _blobs_changed("flux", match={"flux": 0.5}, match_weight=36.0, match_memory=0.05),
    # The number of blobs again: the term of the paper's later networks. One blob has a variance of
    # 0.0017, and with this weight, our choice, the term is as steep as 0.65 of a critic's slope.
    _blobs_changed("variance", variance_weight=1000.0),
    # The number of blobs again: the last weights, as the paper's. Even networks of a hundred steps
    # put a blob at different places, and the average of their weights makes weaker ones.
    _blobs_changed("last", average=0.0),
    # spread power: the terms of `blobs-1`, with the same weights
    _blobs_changed(
        "matched", match={"power": 4.0, "profile": 30.0}, match_weight=36.0, match_memory=0.05
    ),
    # a lattice in the modes, salt and pepper
    _blobs_changed("bilinear", {"bilinear": True}),
    # pixels below 0; the unit is about the pixels' spread of images of one blob, 0.04
    _blobs_changed("positive", {"positive": 0.05}),
    # Tails of stacked peaks, widths. What is smooth becomes 2.5 x 2 sqrt(pi) = 9 times as strong:
    # with the gain of the others the first images had an offset of 0.5, and 509 steps made the same
    # image of all numbers.
    _blobs_changed("beam", {"beam": 2.5, "gain": 0.02}),
)
