"""Cells as a table and as a page: plain HTML with its pictures inside, which needs no network and no server."""

__all__ = ["read_cells", "table", "write_report"]

import base64
import html
import io
import json
import secrets

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aion.benchmarks.tasks import SUITES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, BLUE, ORANGE = "#333333", "#0072B2", "#D55E00"
LOWER = {"crps", "nmad", "outliers"}  # of which less is better
ORDER = {"real": 0, "simulated": 1, "published": 2}
HISTOGRAMS = {"ndcg": "nDCG@10 of a query", "pit": "PIT", "rank": "rank of the partner"}
NAMES = {"ndcg@10": "nDCG@10", "nmad": "NMAD", "r2": "R²"}
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse}th,td{padding:.25em .7em;text-align:right;border-bottom:1px solid #ddd}
th:first-child,td:first-child,td.text,th.text{text-align:left}th{cursor:pointer;background:#f4f4f4}
img{max-width:100%}section{margin:2.5em 0}.simulated td:nth-child(2){color:#a40}p.small{color:#555;font-size:13px}"""
SORT = """for(const head of document.querySelectorAll('th'))head.onclick=()=>{
const body=head.closest('table').tBodies[0],i=head.cellIndex,value=row=>row.cells[i].textContent,
rows=[...body.rows],sign=head.dataset.sign=-(head.dataset.sign||-1);
rows.sort((a,b)=>{const x=value(a),y=value(b);
return sign*(isNaN(x)||isNaN(y)||x===''||y===''?String(x).localeCompare(y):x-y)});
body.append(...rows)}"""


def read_cells(folder: Path | str) -> list[dict]:
    """Reads all cells below a folder, in the order of the tasks, then by model."""
    place = {task.name: i for i, task in enumerate(SUITES["all"])}
    cells = [json.loads(path.read_text()) for path in Path(folder).glob("*/*.json")]
    cells = [cell for cell in cells if cell.get("task") in place and "key" in cell]
    return sorted(cells, key=lambda cell: (place[cell["task"]], cell["model"]))


def table(cells: Sequence[dict]) -> str:
    """Writes cells as a Markdown table: a row per task, a column per model, controls of the first that has any."""
    models = sorted({cell["model"] for cell in cells}, key=lambda name: (name == "raw", name))
    tasks = list(dict.fromkeys((cell["task"], cell["origin"], cell["metric"]) for cell in cells))
    found = {(cell["task"], cell["model"]): cell for cell in cells}
    heads = ["task", "data", "score", *models, "controls: shuffled labels, random weights, masks only"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for task, origin, metric in tasks:
        own = [found.get((task, model)) for model in models]
        control = next((c["controls"] for c in own if c and c.get("controls")), {})
        controls = [_number(control.get(name)) for name in _CONTROLS]
        less = " (less is better)" if metric in LOWER else ""
        row = [f"`{task}`", origin, NAMES.get(metric, metric) + less, *(_entry(c) for c in own)]
        lines.append("| " + " | ".join([*row, ", ".join(controls) if control else "none apply"]) + " |")
    return "\n".join(lines) + "\n"


def _entry(cell: dict | None) -> str:
    if cell is None:
        return "not run"
    return _number(cell["scores"][cell["metric"]]) if cell["status"] == "scored" else cell["status"]


def _number(value: Sequence[float] | None) -> str:
    if value is None:
        return "none"
    digits = 4 if abs(value[0]) < 0.1 else 3
    return f"{value[0]:.{digits}f} ± {value[1]:.{digits}f}"


def write_report(cells: Sequence[dict], folder: Path | str) -> Path:
    """Writes `report.html` of cells whose arrays lie below a folder, and returns its path."""
    folder = Path(folder)
    tasks = {task.name: task for task in SUITES["all"]}
    body = [f"<table><thead><tr>{''.join(f'<th>{h}</th>' for h in _HEADS)}</tr></thead><tbody>"]
    body += [_row(cell) for cell in sorted(cells, key=lambda c: ORDER[c["origin"]])]
    body.append("</tbody></table>")
    for name in dict.fromkeys(cell["task"] for cell in cells):
        task, own = tasks[name], [c for c in cells if c["task"] == name]
        pictures = [_picture(cell, folder) for cell in own if cell["status"] == "scored"]
        facts = f"{task.origin}; {task.split}; {task.licence}; {task.citation}. {task.note}"
        body.append(f"<section><h2 id='{name}'>{name}</h2><p>{html.escape(task.question)}</p>")
        body.append(f"<p class=small>{html.escape(facts)}</p>{''.join(pictures)}</section>")
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        "<link rel=icon href='data:,'>"
        f"<title>aion benchmark</title><style>{STYLE}</style><h1>Scores of frozen encoders</h1>"
        "<p>Errors are one standard deviation over bootstrap draws of the tested objects or over seeds. Simulated data "
        f"are marked so. A click on a heading sorts.</p>{''.join(body)}<script>{SORT}</script></html>"
    )
    path = folder / "report.html"
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)
    return path


_HEADS = (
    "task",
    "data",
    "model",
    "score",
    "value",
    "error",
    "objects",
    "shuffled labels",
    "random weights",
    "masks only",
)
_CONTROLS = _HEADS[7:]


def _row(cell: dict) -> str:
    controls, scored = cell.get("controls", {}), cell["status"] == "scored"
    value, error = cell["scores"][cell["metric"]] if scored else ("", "")
    cells = [
        f"<a href='#{cell['task']}'>{cell['task']}</a>",
        cell["origin"],
        html.escape(cell["model"]),
        cell["metric"],
    ]
    cells += [
        _shown(value) if scored else f"{cell['status']}: {html.escape(cell['why'])}",
        _shown(error),
        cell.get("tested", ""),
    ]
    cells += [_shown(controls[n][0]) if n in controls else "" for n in _CONTROLS]
    return f"<tr class={cell['origin']}>" + "".join(f"<td>{c}</td>" for c in cells) + "</tr>"


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4f}"


def _picture(cell: dict, folder: Path) -> str:
    """Draws what a cell found, as an image inside the page."""
    from safetensors import safe_open

    for path in folder.glob(f"{cell['task']}/*.safetensors"):
        with safe_open(path, framework="np") as file:
            if (file.metadata() or {}).get("key") != cell["key"]:
                continue
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            arrays |= {k: np.array(v) for k, v in json.loads(file.metadata()["classes"]).items()}
        stream = io.BytesIO()
        figure = draw(cell, arrays)
        figure.savefig(stream, format="png", dpi=80)
        data = base64.b64encode(stream.getvalue()).decode()
        caption = html.escape(f"{cell['task']}, {cell['model']}")
        return f"<figure><img alt='{caption}' src='data:image/png;base64,{data}'></figure>"
    return ""


def draw(cell: dict, arrays: dict[str, np.ndarray]) -> "Figure":
    """Draws the arrays of a cell: scatter, confusion, PIT, a curve or a histogram, each with its axes named."""
    from matplotlib.figure import Figure

    labels = [key.removeprefix("truth ") for key in arrays if key.startswith("truth ")]
    panels = [*labels, *(key for key in (*HISTOGRAMS, "score") if key in arrays)]
    figure = Figure(figsize=(4.2 * len(panels), 3.9), layout="constrained")
    figure.suptitle(f"{cell['task']} ({cell['origin']}), {cell['model']}", color=INK)
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        if name in labels:
            truth, guess = arrays[f"truth {name}"], arrays[f"prediction {name}"]
            (_confusion if truth.dtype.kind in "US" else _scatter)(axes, name, truth, guess)
        elif name == "score":
            axes.errorbar(
                arrays["labels"], arrays["score"][:, 0], arrays["score"][:, 1], color=BLUE, marker="o", capsize=3
            )
            axes.set(xscale="log", xlabel="labelled objects", ylabel=cell["metric"])
        else:
            count = 10 if name == "pit" else 20
            axes.hist(arrays[name], bins=count, range=(0, 1) if name == "pit" else None, color=BLUE)
            if name == "pit":
                axes.axhline(len(arrays[name]) / count, color=ORANGE)
            axes.set(xlabel=HISTOGRAMS[name], ylabel="objects")
    return figure


def _scatter(axes, name: str, truth: np.ndarray, guess: np.ndarray) -> None:
    low, high = np.percentile(np.concatenate([truth, guess]), [0.5, 99.5])
    axes.plot([low, high], [low, high], color=ORANGE, lw=1)
    axes.plot(truth, guess, ".", color=BLUE, ms=4, alpha=min(1.0, 300 / len(truth) + 0.1), mew=0)
    pad = 0.03 * (high - low)
    axes.set(
        xlabel=f"true {name}", ylabel=f"predicted {name}", xlim=(low - pad, high + pad), ylim=(low - pad, high + pad)
    )


def _confusion(axes, name: str, truth: np.ndarray, guess: np.ndarray) -> None:
    classes = np.unique(np.concatenate([truth, guess]))
    count = np.array([[((truth == t) & (guess == g)).sum() for g in classes] for t in classes])
    share = count / np.maximum(count.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), number in np.ndenumerate(count):
        axes.text(
            column, row, str(number), ha="center", va="center", color="white" if share[row, column] > 0.5 else INK
        )
    axes.set_xticks(range(len(classes)), classes, rotation=45)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel=f"predicted {name}", ylabel=f"true {name}")
