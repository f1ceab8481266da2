"""Runs a frozen model over whole surveys: files, folders of Parquet shards, data sets of the Hub.

    >>> from aion.survey import Job, embed_survey
    >>> report = embed_survey(["sky.parquet"], "embeddings.parquet", Job(predict=("redshift",)))  # doctest: +SKIP

`embed_survey` is the driver of `aion embed`; its output is what `aion search` and `aion explore` read.
"""

__all__ = ["Job", "Report", "embed_survey", "preview"]

from aion.survey.driver import Job, embed_survey, preview
from aion.survey.manifest import Report
