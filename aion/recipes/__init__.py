"""Recipes: a TOML file in, a trained bundle or a trained tokenizer out.

The recipe of a bundle names the simulated sky or data, the tokenizers (each with the modalities it reads; `stored` for
one that is there already), the transformer, the masking (and that of short batches, if there are any) and how long
each part is trained. That of a tokenizer names the tokenizer and its sources, each with a weight: modalities of the
sky or of data, pairs of two of them, or what a reader given to `train_tokenizer` reads. That of a family of
tokenizers, which are fitted to values and have nothing to train, names the modalities and what all have in common.
Every value is a keyword argument of the class or function it is for, so that a misspelt one is an error. Objects of
the sky are numbered: each part trains on its own range of indices, and what is below `HELD_OUT` is never trained on.
"""

__all__ = [
    "HELD_OUT",
    "fit_family",
    "is_family",
    "load",
    "load_family",
    "load_tokenizer",
    "mixture",
    "train_recipe",
    "train_tokenizer",
]

from aion.recipes.bundle import train_recipe
from aion.recipes.part import HELD_OUT
from aion.recipes.reading import is_family, load, load_family, load_tokenizer
from aion.recipes.tokenizer import fit_family, mixture, train_tokenizer
