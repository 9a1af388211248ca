"""What a recipe is: all hyperparameters of one training run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

__all__ = ["Recipe"]


@dataclass(frozen=True)
class Recipe:
    """One training run.

    The `objective` is "relativistic" (paired relativistic critic with R1 + R2, and matched
    statistics), "wgan-gp" (as Han et al. 2021) or "elbo" (a variational
    autoencoder: the generator is its decoder, the critic its encoder).
    """

    name: str
    generator: str  # architecture, as weight files name it
    critic: str
    objective: str
    inputs: tuple[str, ...]  # condition: fields of the data the generator sees
    outputs: tuple[str, ...]  # fields it makes
    pixel_arcmin: float  # of the data
    generator_options: dict = field(default_factory=dict)
    critic_options: dict = field(default_factory=dict)
    size: int = 128  # pixels along a side of a patch
    batch: int = 8  # patches per step: small batches give more steps per hour on two cores
    generator_rate: float = 6e-4  # Adam learning rate
    critic_rate: float = 4.2e-4  # 0.7 of the generator's: the critic only has to keep up
    generator_betas: tuple[float, float] = (0.5, 0.99)
    critic_betas: tuple[float, float] = (0.0, 0.99)
    warm_up: int = 40  # steps of linear rise of the rate
    decay_from: float = 0.4  # fraction of the run after which the rate falls (cosine) to 1 %
    clip: float = 20.0  # gradient norm; the first 250 steps reach 1000
    average: float = 0.999  # memory of the averaged weights, per step
    critic_steps: int = 1  # critic steps per generator step
    penalty_weight: float = 1.0  # gamma of R1 + R2, lambda of the gradient penalty, or beta
    penalty_start: float = 1.0  # initial fraction of beta; it rises until `decay_from`
    penalty_every: int = 4  # critic steps between penalties (times as heavy): lazy regularisation
    match_weight: float = 6.0  # of the matched statistics against the critic's term
    match: dict = field(default_factory=dict)  # weight of each statistic
    match_memory: float = 0.15  # weight of a batch in the running averages of matched statistics
    variance_weight: float = 0.0  # of the per-patch variance L1 of the paper
    bfloat16: bool = True  # autocast of backbones and critics; heads and losses stay float32
    paired: bool = False  # whether patch i of a separate truth belongs to patch i of the condition
    symmetries: tuple[str, ...] = ("flips", "turns", "ksz_sign")  # random ones of patches
    # (field, s, m, d) of the normaliser in place of those fitted to the truth
    constants: tuple[tuple[str, float, float, float], ...] = ()
    images: str | None = None  # "blobs-1", "digits": made or held in memory, not read

    def to_dict(self) -> dict:
        return asdict(self)
