"""The simulation foundation model that steering was invented on, the solvers that make its data, and its data format."""

__all__ = ["flow", "mixing", "normalise", "patching", "walrus"]
