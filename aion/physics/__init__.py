"""The simulation foundation model that steering was invented on, the solvers of its data, and its data format."""

__all__ = [
    "acoustics",
    "builders",
    "convection",
    "flow",
    "fluid",
    "metrics",
    "mixing",
    "normalise",
    "patching",
    "published",
    "reaction",
    "recipe",
    "rollout",
    "sampling",
    "spectral",
    "systems",
    "turbulence",
    "walrus",
    "well",
]
