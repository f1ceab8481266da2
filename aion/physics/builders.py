"""Models of three sizes: one for a laptop, one for a single accelerator, and the published one."""

__all__ = ["nano", "published", "small"]

from collections.abc import Sequence

from aion.physics.walrus import Walrus


def nano(fields: Sequence[str], **options: object) -> Walrus:
    """Builds a model of about a million parameters for grids of 64 x 64 and 16 x 16 x 16."""
    return Walrus(fields, **{"tokens_2d": 64, "tokens_3d": 64, "context": 4, "highest": 4.0, **options})


def small(fields: Sequence[str], **options: object) -> Walrus:
    """Builds a model of about ten million parameters for grids of 128 x 128 and 32 x 32 x 32."""
    sizes = {"dim": 256, "depth": 8, "heads": 8, "middle": 64, "tokens_2d": 256, "tokens_3d": 512}
    return Walrus(fields, **{**sizes, "highest": 8.0, **options})


def published(fields: Sequence[str], **options: object) -> Walrus:
    """Builds the model in the published configuration, 1.29 billion parameters with 64 fields."""
    sizes = {"dim": 1408, "depth": 40, "heads": 16, "hidden": 2816, "middle": 352, "shared_scale": False}
    return Walrus(fields, **{**sizes, "highest": 128.0, "roll_latent": True, **options})
