"""What the published tokenizers have in common.

They sit on fixed grids: an image is 96 x 96 pixels, a spectrum 8704 pixels, whatever was observed. A token's position
is its place on that grid, (row, column) of an image or map and (0, n) of a sequence, which is how the published
transformer numbers them; see `aion.official.grid`.

With `parity=True` tokens are what the published package makes of the same numbers, also where that is not what one
would want: every place of the grid has a valid token, measured or not, and what cannot be expressed saturates silently.
The default marks the places where nothing was measured as not valid, and warns of or refuses what saturates.
"""

__all__ = ["PublishedTokenizer"]

from abc import abstractmethod
from typing import ClassVar

import torch

from torch import Tensor

from aion.tokenizers.base import Tokenizer


class PublishedTokenizer(Tokenizer):
    """Turns observations into the tokens of a published checkpoint.

    Subclasses set `codec`, and `adjustable`: those of their keyword arguments that say how a tokenizer is used and are
    no part of a published configuration. The state dict holds the published tensors, under their published names less
    the leading underscores.

    Arguments:
        vocabulary: number of ids that the transformer embeds; None for those that the tokenizer makes.
        parity: whether to do what the published package does where that is questionable.
        config: the published configuration, and the other adjustable arguments.
    """

    codec: ClassVar[str]
    adjustable: ClassVar[frozenset[str]] = frozenset({"kind", "parity", "vocabulary"})

    def __init__(self, *, vocabulary: int | None, parity: bool, **config: object) -> None:
        super().__init__(vocabulary=vocabulary, parity=parity, **config)
        self.parity = parity
        self._vocabulary = vocabulary

    @property
    @abstractmethod
    def codes(self) -> int:
        """Returns the number of ids that the tokenizer makes."""

    @property
    def size(self) -> int:
        """Returns the number of ids of the transformer's vocabulary."""
        return self._vocabulary or self.codes

    @property
    def published_config(self) -> dict:
        """Returns the configuration as published."""
        return {key: value for key, value in self.config.items() if key not in self.adjustable}

    def verify(self) -> None:
        """Refuses published tensors that contradict the configuration or that cannot be right."""
        if self.codes > self.size:
            msg = f"{self.codec}: makes {self.codes} ids, the vocabulary has room for {self.size}"
            raise ValueError(msg)

    def _book(self, values: Tensor) -> Tensor:
        """Completes a codebook `(codes, d)` by the ids that are never made, told apart by one more column."""
        book = values.new_zeros(self.size, values.shape[1] + 1)
        book[: self.codes, :-1] = values
        book[self.codes :, -1] = torch.arange(1, self.size - self.codes + 1, device=book.device)
        return book
