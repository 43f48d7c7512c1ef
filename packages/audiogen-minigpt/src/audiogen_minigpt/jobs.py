"""What the models of this package can be asked to do."""

from __future__ import annotations

from audiogen_core.jobs import Job
from audiogen_minigpt.options import Load, Options

GENERATE = Job(
    name="generate",
    title="A model of your own",
    summary="Make sound with a trained model.",
    package="audiogen-minigpt",
    load=Load,
    options=Options,
    conductor="audiogen_minigpt.generate:Generator",
    catalog="audiogen_minigpt.catalog:CATALOG",
    estimate="audiogen_minigpt.generate:estimate",
    sound="audiogen_minigpt.generate:sound",
    unit="frames",
    together=True,
)
