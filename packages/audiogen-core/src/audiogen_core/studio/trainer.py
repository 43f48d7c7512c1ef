"""A training as a tab of the page: clips and what is said of them, options, how it goes and what is heard.

Everything is read from the description of the training; an option that is added to it is on the page.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from audiogen_core import jobs
from audiogen_core.dataset import captions
from audiogen_core.errors import AudiogenError
from audiogen_core.jobs import Training
from audiogen_core.options import Field
from audiogen_core.studio import show
from audiogen_core.studio.form import component
from audiogen_core.studio.studio import Studio

SELDOM = 1.0
"""Seconds between two looks at a training."""

_ALIKE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": True}

Followed = dict[str, str]
"""What each session looks at."""


class Trainer:
    """The tab of a training, made where this is called in a page."""

    def __init__(self, studio: Studio, training: Training, followed: Followed) -> None:
        self._studio, self.training, self._followed = studio, training, followed
        self.fields: list[Field] = jobs.imported(training.options)()
        gr.HTML(f'<p class="note">{training.summary}</p>', js_on_load=None)
        name = training.name
        self.clips = gr.File(
            label="Clips to learn from",
            file_count="multiple",
            file_types=["audio"],
            type="filepath",
            height=150,
            elem_id=f"{name}-clips",
            elem_classes="drop",
        )
        self.captions = gr.Dataframe(
            headers=["clip", "what is heard"],
            type="array",
            column_count=2,
            static_columns=[0],
            wrap=True,
            show_label=False,
            visible=False,
            elem_id=f"{name}-captions",
            elem_classes="captions",
        )
        self.name = gr.Textbox("", label="Name", placeholder="mine", elem_id=f"{name}-name")
        self.asked: dict[str, gr.components.Component] = {}
        self._add([each for each in self.fields if not each.option.group])
        for group in dict.fromkeys(each.option.group for each in self.fields if each.option.group):
            with gr.Accordion(group, open=False):
                self._add([each for each in self.fields if each.option.group == group])
        begin = gr.Button(training.title, variant="primary", elem_id=f"{name}-begin")
        with gr.Row(elem_classes="verbs"):
            self.which = gr.Dropdown([], label="Trainings", elem_id=f"{name}-which", min_width=200)
            go_on = gr.Button("Go on", size="sm", elem_id=f"{name}-go-on")
            stop = gr.Button("Stop", size="sm", elem_id=f"{name}-stop")
        self.shown = gr.HTML(js_on_load=None, elem_id=f"{name}-shown")
        facts = {**_ALIKE, "trigger_mode": "multiple"}
        given = [self.clips, self.captions, self.name, *self.asked.values()]
        begin.click(self._train, given, [self.which, self.shown], **facts)
        go_on.click(self._go_on, self.which, self.shown, **facts)
        stop.click(studio.trainings.stop, None, None, **_ALIKE)
        self.which.input(self._watch, self.which, self.shown, **facts)
        if training.captions:
            self.clips.change(self._caption, self.clips, self.captions, **_ALIKE)

    def opened(self, request: gr.Request) -> Iterator[list[Any]]:
        """What `which` and `shown` hold when the page is opened: the newest of the trainings."""
        names = self._studio.trainings.names(self.training)
        if not names:
            return
        for shown in self._watch(names[0], request):
            yield [gr.update(choices=names, value=names[0]), shown]

    def _add(self, fields: list[Field]) -> None:
        with gr.Row(elem_classes="fields"):
            for each in fields:
                if each.option.role == "place":
                    self.asked[each.name] = self._models(each)
                else:
                    self.asked[each.name] = component(self.training.name, each)

    def _models(self, field: Field) -> gr.Dropdown:
        """The models that learn: those that are here."""
        entries = jobs.find(self.training.job, self.training.package).models()
        here = [each.name for each in entries if each.here]
        return gr.Dropdown(
            here,
            value=next((each for each in here if each == field.default), next(iter(here), None)),
            label=field.label,
            info=field.option.help,
            elem_id=f"{self.training.name}-{field.name}",
            min_width=200,
        )

    def _caption(self, clips: list[str] | None) -> Any:
        """What is known of each clip, to be edited."""
        if not clips:
            return gr.update(value=[], visible=False)
        told = [captions(Path(each).parent, [Path(each).name])[Path(each).name].text for each in clips]
        rows = [[Path(each).name, text] for each, text in zip(clips, told, strict=True)]
        return gr.update(value=rows, visible=True)

    def _train(
        self, clips: list[str] | None, rows: list[list[str]], name: str, request: gr.Request, *values: Any
    ) -> Iterator[list[Any]]:
        fields = {each.name: each for each in self.fields}
        asked = [
            word
            for each, value in zip(self.asked, values, strict=True)
            for word in _said(fields[each], value)
        ]
        told = [row[1] for row in rows] if self.training.captions and clips else []
        try:
            trainings = self._studio.trainings
            begun = trainings.begin(self.training, name, [Path(each) for each in clips or ()], asked, told)
        except AudiogenError as error:
            yield [gr.skip(), show.wrong(str(error))]
            return
        names: Any = gr.update(choices=trainings.names(self.training), value=begun)
        for shown in self._watch(begun, request):
            yield [names, shown]
            names = gr.skip()

    def _go_on(self, name: str, request: gr.Request) -> Iterator[str]:
        try:
            self._studio.trainings.go_on(name)
        except AudiogenError as error:
            yield show.wrong(str(error))
            return
        yield from self._watch(name, request)

    def _watch(self, name: str, request: gr.Request) -> Iterator[str]:
        """Tell how a training goes while it does, or until the session looks at another of its kind."""
        session = f"{self.training.name} of {request.session_hash}"
        self._followed[session] = name
        told = ""
        while self._followed.get(session) == name:
            try:
                now = self._studio.trainings.progress(name)
            except AudiogenError as error:
                yield show.wrong(str(error))
                return
            if (shown := show.training(now)) != told:
                told = shown
                yield shown
            if now.state != "running":
                return
            time.sleep(SELDOM)


def _said(field: Field, value: Any) -> list[str]:
    """An option as the command takes it: nothing where it is as it is anyway."""
    if value in (None, "", field.default):
        return []
    if field.kind is bool:
        return [field.flag if value else field.option.no]
    if field.repeated is not None:
        return [part for word in str(value).split() for part in (field.flag, word)]
    return [field.flag, str(value)]
