"""What the models of this package can be asked to do."""

from __future__ import annotations

from audiogen_core.jobs import Job, Training
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

TRAIN = Training(
    name="train",
    title="Train",
    summary="Make a small model of your own out of clips: encode them, train, and hear what comes of it.",
    package="audiogen-minigpt",
    job="generate",
    module="audiogen_minigpt",
    verb="run",
    options="audiogen_minigpt.settings:plain",
    diary="audiogen_core.training.metrics:read",
)
