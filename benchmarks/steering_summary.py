"""The tables of `steering.py flows`: means over seeds with standard deviations, and what was to be reached."""

__all__ = ["summary"]

from collections.abc import Mapping, Sequence
from statistics import mean, stdev

from steering_flows import AT, DIAGNOSTICS, REGIMES

STRICT = ("covariance", "split_half")  # controls that p-values and ratios are to be reached against
Found = Mapping[tuple, Mapping | None]


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Writes a mean and the standard deviation over seeds."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{mean(known):+.{digits}f}" + (f" ± {stdev(known):.{digits}f}" if len(known) > 1 else "")


def row_of(found: Found, source: str, target: str, regime: str, seed: int) -> dict | None:
    """Returns what was measured of a regime at the strength of comparison, with whatever controls are there."""
    cell = found.get((source, target, regime, "dose", seed))
    if cell is None:
        return None
    name, known = next(iter(DIAGNOSTICS[target])), cell["regime"]
    response = known["responses"][name]
    i = response["strengths"].index(AT)
    row = {"odd": response["odd"][i], "even": response["even"][i], "success": response["success"][i]}
    row |= {"spearman": response["spearman"], "slope": response["slope_interval"][0]}
    cells = {kind: found.get((source, target, regime, kind, seed)) for kind in STRICT}
    nulls = [cell["regime"]["nulls"][kind][name] for kind, cell in cells.items() if cell is not None]
    whole = len(nulls) == len(STRICT)
    row["p"] = max(null["p"] for null in nulls) if whole else None
    row["ratio"] = min(null["ratio"] for null in nulls) if whole else None
    return row


def doses(found: Found, source: str, target: str, seeds: int) -> list[str]:
    """Lists the effect on the target diagnostic by regime, a line each."""
    lines = []
    for regime in REGIMES[target]:
        rows = [row for s in range(seeds) if (row := row_of(found, source, target, regime, s)) is not None]
        if not rows:
            continue
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        cells = [f"{source} → {target}", regime, f"{len(rows)}", spread(columns["odd"]), spread(columns["even"])]
        cells += [spread(columns["spearman"], 2), f"{sum(slope > 0 for slope in columns['slope'])}"]
        cells += [f"{100 * mean(columns['success']):.0f} %", spread(columns["p"], 4).replace("+", "")]
        cells += [spread(columns["ratio"], 1)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def reached(found: Found, source: str, seeds: int) -> list[str]:
    """Says of each aim by regime in how many seeds it was reached."""
    aims = {
        "Spearman >= .9": lambda row: row["spearman"] >= 0.9,
        "p < .01 against both": lambda row: row["p"] is not None and row["p"] < 0.01,
        "3 times the nulls": lambda row: row["ratio"] is not None and row["ratio"] >= 3,
        "90 % of flows": lambda row: row["success"] >= 0.9,
    }
    lines = ["| regime | " + " | ".join(aims) + " |", "|---|" + "---|" * len(aims)]
    for regime in REGIMES[source]:
        rows = [row for s in range(seeds) if (row := row_of(found, source, source, regime, s)) is not None]
        cells = (f"{sum(bool(test(row)) for row in rows)} of {len(rows)}" for test in aims.values())
        lines.append(f"| {regime} | {' | '.join(cells)} |")
    return lines


def sweeps(found: Found, source: str, seeds: int) -> list[str]:
    """Lists the effect by layer and regime."""
    name, lines = next(iter(DIAGNOSTICS[source])), []
    layers = dict.fromkeys(key[2] for key in found if key[0] == "sweep" and key[1] == source)
    for layer in layers:
        for regime in REGIMES[source]:
            known = [cell["regimes"][regime] for s in range(seeds) if (cell := found["sweep", source, layer, s])]
            if known:
                nulls = [[null[name]["ratio"] for null in each["nulls"].values()] for each in known]
                odd = spread([each["responses"][name]["odd"][0] for each in known])
                lines.append(f"| {layer} | {regime} | {odd} | {spread([min(each) for each in nulls], 1)} |")
    return lines


def summary(found: Found, sources: Sequence[str], systems: Sequence[str], seeds: int) -> str:
    """Writes all tables."""
    head = ["direction", "regime", "seeds", f"odd effect at {AT:g}", "even", "Spearman", "slopes above 0", "success"]
    head += ["highest p", "lowest ratio"]
    parts = []
    for source in sources:
        layers = [cell["layer"] for s in range(seeds) if (cell := found["layer", source, s])]
        parts += [f"## {source}: {', '.join(REGIMES[source])}\n\nLayers chosen: {', '.join(layers) or '-'}."]
        rows = [
            line for t in sorted(systems, key=lambda name: name != source) for line in doses(found, source, t, seeds)
        ]
        parts.append("\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows]))
        parts.append("Seeds in which each aim was reached:\n\n" + "\n".join(reached(found, source, seeds)))
        parts.append(
            "| layer | regime | odd effect | lowest ratio |\n|---|---|---|---|\n"
            + "\n".join(sweeps(found, source, seeds))
        )
        angles = [cell["cosines"] for s in range(seeds) if (cell := found["cosines", source, s])]
        if angles:
            listed = (f"| {name} | {spread([each[name] for each in angles], 2)} |" for name in angles[0])
            parts.append("| concept | cosine |\n|---|---|\n" + "\n".join(listed))
    return "\n\n".join(parts) + "\n"
