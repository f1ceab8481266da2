"""Cells as a table and as a page: plain HTML with its pictures inside, which needs no network and no server."""

__all__ = ["read_cells", "table", "write_report"]

import base64
import html
import io
import json

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aion.benchmarks.figures import draw, draw_curves
from aion.benchmarks.tasks import SUITES
from aion.whole import whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOWER = {"crps", "nmad", "outliers"}  # of which less is better
ORDER = {"real": 0, "simulated": 1, "published": 2}
NAMES = {"iou": "IoU", "ndcg@10": "nDCG@10", "nmad": "NMAD", "r2": "R²"}
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
        pictures = _pictures([c for c in own if c["status"] == "scored"], folder)
        facts = f"{task.origin}; {task.split}; {task.licence}; {task.citation}. {task.note}"
        body.append(f"<section><h2 id='{name}'>{name}</h2><p>{html.escape(task.question)}</p>")
        body.append(f"<p class=small>{html.escape(facts)}</p>{pictures}</section>")
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        "<link rel=icon href='data:,'>"
        f"<title>aion benchmark</title><style>{STYLE}</style><h1>Scores of frozen encoders</h1>"
        "<p>Errors are one standard deviation over bootstrap draws of the tested objects or over seeds. Simulated data "
        f"are marked so. A click on a heading sorts.</p>{''.join(body)}<script>{SORT}</script></html>"
    )
    path = folder / "report.html"
    with whole(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
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


def _pictures(cells: Sequence[dict], folder: Path) -> str:
    """Draws what the cells of a task found, as images inside the page."""
    found = [(cell, arrays) for cell in cells if (arrays := _arrays(cell, folder))]
    curves = [pair for pair in found if "score" in pair[1]]
    figures = [(f"{curves[0][0]['task']}, all models", draw_curves(*zip(*curves, strict=True)))] if curves else []
    figures += [(f"{cell['task']}, {cell['model']}", figure) for cell, arrays in found for figure in draw(cell, arrays)]
    return "".join(_inlined(caption, figure) for caption, figure in figures)


def _arrays(cell: dict, folder: Path) -> dict[str, np.ndarray]:
    """Reads what figures of a cell are drawn of; nothing if it is not there, or of another cell."""
    from safetensors import safe_open

    for path in folder.glob(f"{cell['task']}/*.safetensors"):
        with safe_open(path, framework="np") as file:
            if (file.metadata() or {}).get("key") == cell["key"]:
                arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                return arrays | {k: np.array(v) for k, v in json.loads(file.metadata()["classes"]).items()}
    return {}


def _inlined(caption: str, figure: "Figure") -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=80)
    data = base64.b64encode(stream.getvalue()).decode()
    return f"<figure><img alt='{html.escape(caption, quote=True)}' src='data:image/png;base64,{data}'></figure>"
