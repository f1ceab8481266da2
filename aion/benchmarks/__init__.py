"""Scores of frozen encoders: tasks, what is scored on them, and honest cells.

    >>> from aion.benchmarks import choose
    >>> [task.name for task in choose("offline") if task.origin == "real"][:2]
    ['miles-labels', 'miles-unseen']

A task declares its data with a hash, its split and its score (`aion.benchmarks.tasks`). Anything with `embed` can be
scored (`aion.benchmarks.embedders`): a model, raw measurements, embeddings from a file. `run` makes one cell of each
pair, with an error, controls that should fail, and hashes of all that went in; `write_report` makes a page of them.
"""

__all__ = ["Task", "choose", "embedder", "evaluate", "run", "table", "write_report"]

from aion.benchmarks.embedders import embedder
from aion.benchmarks.evaluate import evaluate, run
from aion.benchmarks.report import table, write_report
from aion.benchmarks.task import Task
from aion.benchmarks.tasks import choose
