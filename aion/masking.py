r"""Which tokens a training step shows and which it asks for.

**Shown.** One modality of the object is drawn first and a uniform number of its tokens is shown; the rest of the budget
is filled uniformly from all other modalities. Where the budget holds whole objects this alone would never show a
catalogue without a spectrum, or a spectrum without a catalogue; with `together` some modalities only are offered.
**Asked for**, among what is not shown: one modality without constraint, and of every other a share drawn from
:math:`\mathrm{Beta}(\alpha, 1)`, skewed towards few tokens like the last steps of iterative decoding. If that is more
than the budget, a uniform choice of it is asked for.

References:
    | AION-1: Omnimodal Foundation Model for Astronomical Sciences (Parker et al., 2025), arXiv 2510.17960
"""

__all__ = ["BudgetMasking"]

import math

from collections.abc import Mapping, Sequence

import torch

from torch import Tensor

from aion.tokens import TokenSequence, Vocabulary


class BudgetMasking:
    """Splits sequences into visible tokens and targets, within budgets.

    Arguments:
        vocabulary: names of the modalities.
        input_budget: most tokens shown per object; a pair `(low, high)` draws the budget anew for every batch.
        target_budget: most tokens asked for per object.
        alpha: first parameter of the Beta distribution of target shares; the second is 1.
        hide: probability, by name, with which a modality is not offered as input at all, so that it is a target.
        together: sets of modalities that come together, such as the columns of one catalogue. Each set is offered with
            a probability that is drawn uniformly for the object; all are if none was drawn. Half of the objects show
            what is offered whole, as far as the budget goes; in the others the modalities are thinned out once more,
            each by itself, in the same way, and one is shown in part, as above.

    Raises:
        ValueError: for budgets that are not whole or below 1, a probability beyond 0 to 1, an unknown modality in
            `hide` or `together`, or one that stands there twice.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        input_budget: int | Sequence[int] = 256,
        target_budget: int = 128,
        alpha: float = 0.1,
        hide: Mapping[str, float] | None = None,
        together: Sequence[Sequence[str]] = (),
    ) -> None:
        ends = list(input_budget) if isinstance(input_budget, Sequence) else [input_budget] * 2
        whole = all(isinstance(budget, int) and budget >= 1 for budget in (*ends, target_budget))
        if not whole or len(ends) != 2 or ends[0] > ends[1] or not 0 < alpha < math.inf:
            msg = (
                "BudgetMasking: wanted whole budgets >= 1 and alpha > 0, and of a pair the smaller one first, given "
                f"{input_budget}, {target_budget}, {alpha}"
            )
            raise ValueError(msg)
        self.low, self.high = ends
        self.target_budget, self.alpha, self.modalities = target_budget, alpha, len(vocabulary.names)
        self.hide = torch.zeros(self.modalities)
        for name, probability in (hide or {}).items():
            if not 0 <= probability <= 1:
                msg = f"BudgetMasking: hide holds probabilities from 0 to 1, given {probability} for {name!r}"
                raise ValueError(msg)
            self.hide[vocabulary.index(name)] = probability
        named = [name for names in together for name in names]
        if len(set(named)) < len(named):
            msg = f"BudgetMasking: a modality comes together with others once, given {sorted(named)}"
            raise ValueError(msg)
        self.sets = torch.zeros(len(together), self.modalities, dtype=torch.bool)
        for row, names in zip(self.sets, together, strict=True):
            row[[vocabulary.index(name) for name in names]] = True

    def __call__(self, sequence: TokenSequence, generator: torch.Generator) -> tuple[TokenSequence, TokenSequence]:
        """Draws the visible tokens and the targets of every object.

        Every object keeps at least one visible token and, unless it has a single one in all, one to ask for.

        Arguments:
            sequence: the tokens of a batch of objects.
            generator: source of the draws, on any device.
        """
        draw = _Draw(sequence, self.modalities, generator)
        budget = int(draw.uniform(()) * (self.high - self.low + 1)) + self.low
        visible = self._visible(draw, (draw.valid.sum(1, keepdim=True) - 1).clamp(1, budget))
        target = self._target(draw, visible)
        return sequence.select(visible), sequence.select(target)

    def _visible(self, draw: "_Draw", budget: Tensor) -> Tensor:
        hidden = draw.uniform((draw.batch, self.modalities)) < self.hide.to(draw.device)
        offered = draw.keep(draw.valid, hidden)
        part = torch.ones(draw.batch, 1, dtype=torch.bool, device=draw.device)
        if len(self.sets):
            part, sets = draw.uniform((draw.batch, 1)) < 0.5, self.sets.to(draw.device)
            offered = draw.keep(offered, (draw.scarce(len(sets))[..., None] & sets).any(1))
            offered = draw.keep(offered, draw.scarce(self.modalities) & sets.any(0) & part)
        first = draw.modality_among(offered)
        inside = offered & (draw.modality == first)
        most = inside.sum(1, keepdim=True).minimum(budget)
        count = torch.where(part, (draw.uniform((draw.batch, 1)) * most).floor() + 1, most)
        shown = draw.first(inside, count)
        return shown | draw.first(offered & ~inside, (budget - shown.sum(1, keepdim=True)).clamp(min=0))

    def _target(self, draw: "_Draw", visible: Tensor) -> Tensor:
        left = draw.valid & ~visible
        free = draw.modality_among(left)
        share = draw.uniform((draw.batch, self.modalities)) ** (1 / self.alpha)  # inverse of the Beta(alpha, 1) CDF
        counts = torch.zeros(draw.batch, self.modalities, device=draw.device)
        counts.scatter_add_(1, draw.modality, left.float())
        allowed = (share * counts).ceil().gather(1, draw.modality)
        inside = left & ((draw.modality == free) | (draw.rank_within_modality(left) < allowed))
        return draw.first(inside, torch.full((draw.batch, 1), float(self.target_budget), device=draw.device))


class _Draw:
    """Holds the random order of the tokens of one batch and answers which come first."""

    def __init__(self, sequence: TokenSequence, modalities: int, generator: torch.Generator) -> None:
        self.valid, self.modality, self.modalities = sequence.valid, sequence.modality, modalities
        self.batch, self.device = len(sequence), sequence.ids.device
        self.generator = generator
        self.order = self.uniform(sequence.ids.shape)

    def uniform(self, shape: Sequence[int]) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.generator.device).to(self.device)

    def scarce(self, count: int) -> Tensor:
        """Draws which of so many are away `(B, count)`, each with a probability that is uniform over objects."""
        return self.uniform((self.batch, count)) > self.uniform((self.batch, 1))

    def keep(self, tokens: Tensor, away: Tensor) -> Tensor:
        """Leaves out the tokens `(B, N)` of modalities that are away `(B, M)`, unless none would remain."""
        left = tokens & ~away.gather(1, self.modality)
        return torch.where(left.any(1, keepdim=True), left, tokens)

    def modality_among(self, tokens: Tensor) -> Tensor:
        """Draws one modality `(B, 1)`, each that has a token among those given being as likely."""
        present = torch.zeros(self.batch, self.modalities, device=self.device)
        present.scatter_add_(1, self.modality, tokens.float())
        return torch.where(present > 0, self.uniform(present.shape), -1.0).argmax(1, keepdim=True)

    def first(self, tokens: Tensor, count: Tensor) -> Tensor:
        """Picks the first `count` `(B, 1)` of the given tokens `(B, N)` in random order."""
        rank = torch.where(tokens, self.order, 2.0).argsort(1).argsort(1)
        return tokens & (rank < count)

    def rank_within_modality(self, tokens: Tensor) -> Tensor:
        """Ranks the given tokens by the random order among those of their own modality."""
        key = torch.where(tokens, self.modality + self.order, float(self.modalities))
        rank = key.argsort(1).argsort(1)
        counts = torch.zeros(self.batch, self.modalities, device=self.device)
        counts.scatter_add_(1, self.modality, tokens.float())
        before = counts.cumsum(1) - counts
        return rank - before.gather(1, self.modality)
