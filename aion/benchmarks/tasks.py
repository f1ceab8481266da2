"""All tasks, by suite: real data first, then simulated; what must be fetched is a suite of its own."""

__all__ = ["ROOT", "SUITES", "TASKS", "choose"]

from collections.abc import Iterable
from pathlib import Path

from aion.benchmarks.published import PUBLISHED
from aion.benchmarks.real import REAL
from aion.benchmarks.simulated import SIMULATED
from aion.benchmarks.task import Task
from aion.observations import near_miss

ROOT = Path(__file__).resolve().parents[2]  # of a checkout
TASKS = (*REAL, *SIMULATED)
SUITES = {"offline": TASKS, "published": PUBLISHED, "all": (*TASKS, *PUBLISHED)}


def choose(suite: str = "offline", names: Iterable[str] = ()) -> tuple[Task, ...]:
    """Returns the tasks of a suite, or those named, in their order.

    Raises:
        ValueError: for a suite or a name that is not known (with the near misses).
    """
    if suite not in SUITES:
        msg = f"no suite {suite!r}; {near_miss(suite, SUITES)}"
        raise ValueError(msg)
    known = {task.name: task for task in SUITES["all"]}
    for name in names:
        if name not in known:
            msg = f"no task {name!r}; {near_miss(name, known)}"
            raise ValueError(msg)
    return tuple(known[name] for name in dict.fromkeys(names)) or SUITES[suite]
