"""Batches of many objects of which little is looked at."""

__all__ = ["Short"]

from collections.abc import Sequence

import torch

from aion.masking import BudgetMasking
from aion.tokens import TokenSequence, Vocabulary


class Short:
    """Splits some modalities of many objects into visible tokens and targets; of the others there is nothing.

    A spectrum or an image has hundreds of tokens, a number has one. In a batch with both, whose objects are few,
    numbers are seen too seldom to be learned; of numbers alone a batch of the same cost holds ten times the objects.

    Arguments:
        vocabulary: names of the modalities.
        objects: of a batch.
        modalities: names of those that are looked at.
        masking: keyword arguments of `aion.masking.BudgetMasking`.

    Raises:
        ValueError: for fewer than one object, an unknown modality (with the near misses), or what the masking refuses.
    """

    def __init__(self, vocabulary: Vocabulary, objects: int, modalities: Sequence[str], **masking: object) -> None:
        if objects < 1:
            msg = f"short: wanted at least one object in a batch, given {objects}"
            raise ValueError(msg)
        self.objects, self.masking = objects, BudgetMasking(vocabulary, **masking)
        self.modalities = torch.tensor([vocabulary.index(name) for name in modalities])

    def __call__(self, sequence: TokenSequence, generator: torch.Generator) -> tuple[TokenSequence, TokenSequence]:
        """Draws the visible tokens and the targets of every object that has two tokens of these modalities or more.

        Raises:
            ValueError: if no object has.
        """
        keep = torch.isin(sequence.modality, self.modalities.to(sequence.modality.device)) & sequence.valid
        rows = (keep.sum(1) > 1).nonzero()[:, 0]
        if not len(rows):
            msg = f"short: none of the {len(sequence)} objects has two tokens of its modalities: name more of them"
            raise ValueError(msg)
        return self.masking(sequence[rows].select(keep[rows]), generator)
