"""Recipes of the networks of Han, Sehgal & Villaescusa-Navarro (2021), and of narrower ones.

The DCGAN of the blobs of docs/blobs is theirs too.
"""

from __future__ import annotations

from dataclasses import replace

from mlsky.training.hyperparameters import Recipe

__all__ = ["BLOBS_REPORT", "NARROW_STEPS", "PAPER", "PIXGAN", "SWITCHES", "VAEGAN", "narrow"]

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
    steps make a step 2.2 times as fast; `average` is of the weights that are kept beside those
    that train.
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
        average=0.999,
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
    critic_options={"channels": 1, "width": 16},
    generator_options={"channels": 1, "width": 16, "gain": 0.1},
)
