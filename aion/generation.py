r"""Draws tokens that were not observed, a few at a time, each time looking at those already drawn.

Asked for all tokens at once, the transformer gives the distribution of each by itself; drawing from those ignores that
they depend on each other. So some are drawn, become input like what was observed, and the rest is asked for again:

- **ROAR** (random order): at every step the next ones of an order drawn for each object.
- **MaskGIT**: at every step all are drawn and the most probable are kept, few at first.
- **one-pass**: all at once.

With **guidance** s the logits :math:`l_u + s\,(l_c - l_u)` are drawn from, where u was not shown the observations and c
was; both saw the tokens drawn so far. s = 1 is no guidance, larger values follow the observations more closely.

References:
    | MaskGIT: Masked Generative Image Transformer (Chang et al., 2022), arXiv 2202.04200
    | Classifier-Free Diffusion Guidance (Ho and Salimans, 2022), arXiv 2207.12598
    | 4M: Massively Multimodal Masked Modeling (Mizrahi et al., 2023), arXiv 2312.06647
    | AION-1: Omnimodal Foundation Model for Astronomical Sciences (Parker et al., 2025), arXiv 2510.17960
"""

__all__ = ["SCHEMES", "check", "codes", "draw", "ensemble", "generate", "nothing", "places", "schedule"]

import math

from collections.abc import Callable, Iterable
from numbers import Integral, Real

import torch

from torch import Tensor

from aion.observations import Observation, near_miss
from aion.tokenizers import Tokenizer
from aion.tokens import Tokens, TokenSequence, join
from aion.transformer import Transformer

SCHEMES = ("maskgit", "one-pass", "roar")


def ensemble(
    transformer: Transformer,
    tokenizer: Tokenizer,
    sequences: Iterable[TokenSequence],
    query: TokenSequence,
    like: Observation | None,
    members: int = 1,
    **options: object,
) -> list[Observation]:
    """Draws an observation of one modality for every object, several times.

    Arguments:
        transformer: in evaluation mode.
        tokenizer: of the modality.
        sequences: what was observed, the objects in batches.
        query: where the tokens wanted are, of all objects.
        like: the grid wanted, of all objects; None for the tokenizer's own.
        members: length of the list returned; each member is an observation of all objects.
        options: see `generate`.
    """
    drawn: list[list[Observation]] = [[] for _ in range(members)]
    start = 0
    for sequence in sequences:
        rows = slice(start, start + len(sequence))
        start, part = rows.stop, query[rows]
        ids = generate(
            transformer, sequence, part, codes(tokenizer), possible=tokenizer.possible, members=members, **options
        )
        for member, pieces in enumerate(drawn):
            tokens = Tokens(ids[:, member], part.position, part.valid)
            pieces.append(tokenizer.decode(tokens, None if like is None else like[rows]))
    return [pieces[0] if len(pieces) == 1 else tokenizer.observation.stack(pieces) for pieces in drawn]


def codes(tokenizer: Tokenizer) -> int:
    """Returns how many ids a tokenizer makes: a published vocabulary may have more."""
    return getattr(tokenizer, "codes", tokenizer.size)


def nothing(count: int, device: torch.device) -> TokenSequence:
    """Returns the tokens of objects of which nothing was observed: one each, not valid."""
    zero = torch.zeros(count, 1, dtype=torch.long, device=device)
    return TokenSequence(zero, zero, torch.zeros(count, 1, 2, device=device), zero.bool())


def places(tokenizer: Tokenizer, count: int) -> Tokens:
    """Returns tokens without meaning `(count, N)` where a tokenizer with a grid of its own, or components, has them.

    Raises:
        ValueError: if its tokens are where the observation is.
    """
    grid = (1, tokenizer.components) if hasattr(tokenizer, "components") else getattr(tokenizer, "grid", None)
    if grid is None:
        msg = f"generate: this tokenizer ({tokenizer.kind}) has no grid of its own: give like=, on the grid wanted"
        raise ValueError(msg)
    position = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float32) for n in grid)).expand(count, -1, -1)
    valid = torch.ones(position.shape[:2], dtype=torch.bool)
    return Tokens(torch.zeros_like(valid, dtype=torch.long), position, valid)


@torch.no_grad()
def generate(
    transformer: Transformer,
    visible: TokenSequence,
    query: TokenSequence,
    size: int,
    *,
    possible: Callable[[Tensor], Tensor | None] | None = None,
    members: int = 1,
    scheme: str = "roar",
    steps: int = 25,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    guidance: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draws the tokens that a query asks for.

    The encoder runs once per step at most, and the first step once for all members. Draws are taken object by object,
    so that with a generator on the CPU a batch cut in two gives what it would give whole.

    Arguments:
        transformer: in evaluation mode.
        visible: what was observed of B objects; length 0, or an object without valid tokens, is "nothing".
        query: one modality, the positions wanted `(B, M)`; its ids are not looked at.
        size: number of ids that have a meaning, `[0, size)`; no others are drawn.
        possible: tells which ids may stand at positions `(B, m, 2)`, `(B, m, size)`, or returns None if all may.
        members: number of draws E per object.
        scheme: one of `SCHEMES`.
        steps: most steps, at least 1; not looked at by `"one-pass"`. There are never more steps than tokens.
        temperature: by which logits are divided, at least 0; 0 takes the most probable id.
        top_k: draws from the `top_k` most probable ids only.
        top_p: draws from the fewest ids only that together have at least this probability, in (0, 1].
        guidance: s above.
        generator: source of the draws.

    Returns:
        Ids `(B, E, M)` in `[0, size)`; 0 where the query is not valid.

    Raises:
        TypeError: for options that are no numbers, or a seed in place of a generator.
        ValueError: for options out of range, or a query of several modalities.
    """
    check(members, scheme, steps, temperature, top_k, top_p, guidance)
    if not isinstance(generator, torch.Generator | None):
        msg = f"generate: generator must be a torch.Generator, given {generator!r}: torch.Generator().manual_seed(...)"
        raise TypeError(msg)
    if len(names := query.modality[query.valid].unique()) > 1:
        msg = f"generate: wanted a query of one modality, given {len(names)}"
        raise ValueError(msg)
    name = transformer.vocabulary.names[int(names[0]) if len(names) else 0]
    low = transformer.vocabulary.ranges[name][0]
    counts = schedule(query.valid.sum(1), 1 if scheme == "one-pass" else steps, cosine=scheme == "maskgit")
    rounds = steps if scheme == "maskgit" else 1  # of draws for one token
    device = generator.device if generator is not None else "cpu"
    shape = (len(query), members, 1 + rounds, query.ids.shape[1])
    noise = torch.rand(shape, generator=generator, device=device).to(query.ids.device).flatten(0, 1)
    everyone = torch.arange(len(query), device=noise.device).repeat_interleave(members)
    ids = torch.zeros_like(query.ids[everyone])
    known, counts = torch.zeros_like(ids, dtype=torch.bool), counts[:, everyone]
    for step, count in enumerate(counts):
        if not count.any():
            continue
        if len(query) < len(ids):  # nothing drawn yet: the same for all members
            index, logits = _ask(transformer, visible, query, known[::members], ids[::members], name, guidance)
            index, logits = index[everyone], logits[everyone]
            visible, query = visible[everyone], query[everyone]
        else:
            index, logits = _ask(transformer, visible, query, known, ids + low, name, guidance)
        left = (query.valid & ~known).gather(1, index)
        u, logits = noise[:, 1 + min(step, rounds - 1)].gather(1, index), logits[..., :size]
        position = query.position.gather(1, index[..., None].expand(-1, -1, 2))
        if possible is not None and (mask := possible(position)) is not None:
            logits = logits.masked_fill(~mask[..., :size], -math.inf)
        drawn, probability = draw(logits, u, temperature, top_k, top_p)
        first = noise[:, 0].gather(1, index) if scheme != "maskgit" else probability
        rank = torch.where(left, first, -1.0).argsort(dim=1, descending=True, stable=True).argsort(1)
        chosen = left & (rank < count[:, None])
        row, column = torch.arange(len(ids), device=ids.device)[:, None].expand_as(index)[chosen], index[chosen]
        ids[row, column], known[row, column] = drawn[chosen], True
    return ids.unflatten(0, (-1, members))


def check(
    members: int,
    scheme: str,
    steps: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    guidance: float,
) -> None:
    """Refuses options of `generate` that mean nothing.

    Raises:
        TypeError: for one that should be a number and is none.
        ValueError: for one that is out of range.
    """
    if scheme not in SCHEMES:
        msg = f"generate: unknown scheme {scheme!r}; {near_miss(scheme, SCHEMES)}"
        raise ValueError(msg)
    for key, value in (("members", members), ("steps", steps), ("top_k", 1 if top_k is None else top_k)):
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            msg = f"generate: {key} must be a whole number of at least 1, given {value!r}"
            raise ValueError(msg)
    numbers = {"temperature": temperature, "top_p": 1.0 if top_p is None else top_p, "guidance": guidance}
    for key, value in numbers.items():
        if not isinstance(value, Real):
            msg = f"generate: {key} must be a number, given {value!r}"
            raise TypeError(msg)
    for key, value, good in (
        ("temperature", temperature, 0 <= temperature < math.inf),
        ("top_p", top_p, top_p is None or 0 < top_p <= 1),
        ("guidance", guidance, math.isfinite(guidance)),
    ):
        if not good:
            msg = f"generate: {key} is out of range, given {value!r}"
            raise ValueError(msg)


def schedule(tokens: Tensor, steps: int, cosine: bool = False) -> Tensor:
    """Splits tokens `(B,)` over steps: how many of each object are drawn at each `(S, B)`.

    Arguments:
        tokens: number of tokens of each object.
        steps: most steps S.
        cosine: few at first and at the end instead of the same number at each step, the larger ones first.
    """
    if cosine:
        bounds = (1 + torch.cos(math.pi * torch.arange(steps + 1, dtype=torch.float64) / steps)) / 2
        wanted = (-bounds.diff()[:, None] * tokens.cpu()).round().long()
        wanted[-1] = tokens.cpu()
        total = torch.minimum(wanted.cumsum(0), tokens.cpu())
        counts = total.diff(dim=0, prepend=torch.zeros_like(total[:1]))
    else:
        each, more = tokens.cpu() // steps, tokens.cpu() % steps
        counts = each + (torch.arange(steps)[:, None] < more).long()
    return counts.to(tokens.device)


def draw(
    logits: Tensor, u: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> tuple[Tensor, Tensor]:
    """Draws ids from logits `(..., V)` by numbers `u` `(...)` uniform in [0, 1).

    `top_k` and `top_p` choose among the ids before the temperature acts.

    Returns:
        Ids `(...)` and the probability of each: that by which it was drawn, or its own for a temperature of 0.
    """
    logits = logits.double()
    if temperature == 0:
        probability, ids = logits.softmax(-1).max(-1)
        return ids, probability
    if top_k is not None and top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[..., -1:], -math.inf)
    if top_p is not None:
        ordered, order = logits.softmax(-1).sort(-1, descending=True)
        beyond = torch.zeros_like(ordered, dtype=torch.bool).scatter(-1, order, ordered.cumsum(-1) - ordered >= top_p)
        logits = logits.masked_fill(beyond, -math.inf)
    probabilities = ((logits - logits.max(-1, keepdim=True).values) / temperature).softmax(-1)
    cumulative = probabilities.cumsum(-1)
    # The first id whose cumulative probability is beyond u, so that one of probability 0 is never drawn.
    level = u.to(cumulative.dtype)[..., None] * cumulative[..., -1:]
    ids = torch.searchsorted(cumulative, level, right=True).clamp(max=logits.shape[-1] - 1)
    return ids[..., 0], probabilities.gather(-1, ids)[..., 0]


def _ask(
    transformer: Transformer,
    visible: TokenSequence,
    query: TokenSequence,
    known: Tensor,
    ids: Tensor,
    name: str,
    guidance: float,
) -> tuple[Tensor, Tensor]:
    """Asks for the tokens not yet known: which they are `(B, m)` and their logits `(B, m, size)`."""
    left = query.valid & ~known
    length = max(int(left.sum(1).max()), 1)
    index = (~left).to(torch.uint8).argsort(dim=1, stable=True)[:, :length]
    asked = query.gather(index, left.gather(1, index))
    given = join(visible, TokenSequence(ids, query.modality, query.position, known))
    if guidance == 1:
        sequence = given.select(given.valid)
    else:  # both in one batch: one run of the encoder
        own = torch.arange(given.ids.shape[1], device=ids.device) >= visible.ids.shape[1]
        twice = _stack(given, given)
        sequence = twice.select(torch.cat([given.valid, given.valid & own]))
        asked = _stack(asked, asked)
    # Never uniform: a published checkpoint generates with full attention even where its `forward` has not.
    hidden = transformer.decode(transformer.encode(sequence), sequence, asked, uniform=False)
    logits = transformer.logits(hidden, name).float()
    if guidance != 1:
        conditional, unconditional = logits.chunk(2)
        logits = unconditional + guidance * (conditional - unconditional)
    return index, logits


def _stack(*parts: TokenSequence) -> TokenSequence:
    """Joins batches of one length."""
    return TokenSequence(**{key: torch.cat([getattr(part, key) for part in parts]) for key in vars(parts[0])})
