"""The page: a tab for each job, what is being made and was made beside it, and the library.

A tab is the form of a job (`form`), made from its description; what is shown of works and clips is HTML
(`show`). The page asks the studio what the service asks it, and plays and keeps clips by the service's paths.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr
from fastapi import FastAPI

from audiogen_core import jobs
from audiogen_core.errors import AudiogenError, OptionError
from audiogen_core.jobs import Job, Training
from audiogen_core.options import Field
from audiogen_core.studio import show
from audiogen_core.studio.form import Form, received
from audiogen_core.studio.queue import ENDED, Work
from audiogen_core.studio.studio import Studio, clips_of
from audiogen_core.studio.trainer import Trainer
from audiogen_core.values import written

OFTEN = 0.15
"""Seconds between two looks at a work, at least."""

ROWS = 40
"""Clips that the library shows at once."""

_ALIKE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": True}
"""What all events of the page have in common."""

_PICKS = """
element.addEventListener('click', event => {
  const button = event.target.closest('[data-clip]');
  if (button) trigger('click', {clip: button.dataset.clip});
});
"""

_SURE = "(...given) => { if (!confirm('Delete this clip for good?')) throw new Error('kept'); return given; }"
_HANDS_OVER = "watch('value', () => audiogen.handOver(element));"
_HEARS = "watch('value', () => audiogen.hear(element));"

_CANCELS = """
element.addEventListener('click', event => {
  const button = event.target.closest('[data-work]');
  if (button) trigger('click', {work: button.dataset.work});
});
"""


def mount(app: FastAPI, studio: Studio) -> None:
    """Put the page at the root of the service."""
    os.environ["GRADIO_TEMP_DIR"] = str(studio.library.folder / "page")
    style = resources.files("audiogen_core.studio") / "page.css"
    script = resources.files("audiogen_core.studio") / "page.js"
    fonts = ["system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif"]
    gr.mount_gradio_app(
        app,
        Page(studio).blocks,
        path="/",
        footer_links=[],
        run_history=False,
        allowed_paths=[str(studio.library.folder / each) for each in ("clips", "uploads")],
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=gr.themes.Base(
            primary_hue="violet",
            neutral_hue="slate",
            radius_size="lg",
            font=fonts,
            font_mono=["ui-monospace", "monospace"],
        ),
        css=style.read_text(encoding="utf-8"),
        head=f"<script>{script.read_text(encoding='utf-8')}</script>",
    )


class Page:
    """The components of the page and what they do."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._followed: dict[str, str] = {}  # the work that each session looks at
        self._trainers: list[Trainer] = []
        self.forms: dict[str, Form] = {}
        self._makes: dict[str, gr.Button] = {}
        every = sorted(jobs.every(), key=lambda job: not studio.has_model(job))
        ready = [job for job in every if studio.has_model(job)]
        self._titles: dict[str, str] = {}
        with gr.Blocks(title="audiogen studio", analytics_enabled=False, fill_width=True) as self.blocks:
            self._shown, self._picked, self._work = gr.State([]), gr.State(""), gr.State("")
            gr.HTML("<h1>audiogen <span>studio</span></h1>", js_on_load=None, elem_classes="head")
            with gr.Row(elem_classes="rooms"):
                with (
                    gr.Column(scale=3, min_width=340),
                    gr.Tabs(
                        elem_classes="tabs", selected=next((job.name for job in every), "library")
                    ) as self._tabs,
                ):
                    self._library()
                    self._jobs(ready)
                    self._trainings()
                    self._jobs(every[len(ready) :])
                    self._packages()
                with gr.Column(scale=2, min_width=340, elem_classes="stage"):
                    self._stage()
            self._events()
        self.blocks.queue(default_concurrency_limit=None)

    # What is there

    def _jobs(self, every: list[Job]) -> None:
        for job in every:
            name, title = job.name, job.title
            if name in self.forms:  # another package's, of the same name
                whose = job.package.removeprefix("audiogen-")
                name, title = f"{name}-{whose}", f"{title} ({whose})"
            self._titles[name] = title
            with gr.Tab(title, id=name) as tab:
                gr.HTML(f'<p class="note">{job.summary}</p>', js_on_load=None)
                self.forms[name] = Form(self._studio, job, name, tab)
                self._makes[name] = gr.Button(
                    "Make", variant="primary", elem_id=f"{name}-make", elem_classes="make"
                )

    def _trainings(self) -> None:
        alike: dict[str, list[Training]] = {}
        for training in jobs.trainings():
            alike.setdefault(training.title, []).append(training)
        for title, several in alike.items():
            with gr.Tab(title, id=several[0].name):
                if len(several) == 1:
                    self._trainer(several[0])
                    continue
                with gr.Tabs(elem_classes="tabs"):
                    for training in several:
                        with gr.Tab(jobs.find(training.job, training.package).title, id=training.name):
                            self._trainer(training)

    def _trainer(self, training: Training) -> None:
        self._trainers.append(Trainer(self._studio, training, self._followed))

    def _library(self) -> None:
        with gr.Tab("Library", id="library") as self._library_tab:
            self._works = gr.HTML(js_on_load=_CANCELS, elem_id="works")
            self._drop = gr.File(
                label="Drop a clip here: to use it, or to see and repeat its recipe",
                type="filepath",
                height=110,
                elem_id="drop",
                elem_classes="drop",
            )
            self._search = gr.Textbox(
                label="Search", placeholder="words of a prompt, a model, a seed", elem_id="search"
            )
            self._rows = gr.HTML(js_on_load=_PICKS, elem_id="rows")

    def _packages(self) -> None:
        here = {job.package for job in jobs.every()}
        broken = jobs.broken(imports=False)
        for name in dict.fromkeys([*jobs.FAMILY, *broken]):
            if name in broken or name not in here:
                with gr.Tab(name.removeprefix("audiogen-"), id=name):
                    gr.HTML(
                        show.package(name, jobs.FAMILY.get(name, ""), broken.get(name, "")),
                        js_on_load=None,
                        elem_classes="package",
                    )

    def _stage(self) -> None:
        self._status = gr.HTML(elem_id="status", js_on_load=None)
        self._cancel = gr.Button("Cancel", visible=False, elem_id="cancel", size="sm")
        self._live = gr.HTML(elem_id="live", js_on_load=_HEARS)
        self._cards = gr.HTML(
            '<p class="empty">What you make is heard here.</p>',
            js_on_load=_PICKS + _HANDS_OVER,
            elem_id="cards",
        )
        with gr.Column(visible=False, elem_id="use") as self._use:
            gr.HTML("<h2>Use this clip</h2>", js_on_load=None)
            with gr.Row(elem_classes="verbs"):
                self._again = gr.Button("Again with this seed", size="sm", elem_id="again")
                self._replay = gr.Button("The same once more", size="sm", elem_id="replay")
                self._delete = gr.Button("Delete", size="sm", variant="stop", elem_id="delete")
            self._verbs: list[tuple[gr.Button, Form, Field]] = []
            self._from: gr.components.Component = gr.State(None)  # where no job takes a span
            self._to: gr.components.Component = gr.State(None)
            verbs = [
                (each.option.verb, form, each)
                for form in self.forms.values()
                for each in form.fields.values()
                if each.option.verb
            ]
            verbs.sort(key=lambda each: not each[1].is_ready(each[2]))
            if self._studio.offline:  # what no model here can do, none can be fetched for
                verbs = [each for each in verbs if each[1].is_ready(each[2])]
            for verb in dict.fromkeys(verb for verb, _, _ in verbs):
                with gr.Row(elem_classes="verbs"):
                    gr.HTML(f"<span>{verb} in</span>", js_on_load=None)
                    if any(each.option.of for named, _, each in verbs if named == verb):
                        self._from = gr.Number(0, label="from", minimum=0, min_width=70, elem_classes="time")
                        self._to = gr.Number(1, label="to", minimum=0, min_width=70, elem_classes="time")
                    for named, form, field in verbs:
                        if named == verb:
                            name = f"use-{form.name}-{field.name}"
                            button = gr.Button(self._titles[form.name], size="sm", elem_id=name)
                            self._verbs.append((button, form, field))

    # What happens

    def _events(self) -> None:
        view = [self._shown, self._picked, self._cards, self._use, self._again, self._replay]
        stage = [self._status, self._live, self._cancel, self._work, *view]
        clips = [self._shown, self._picked]
        for name, button in self._makes.items():
            form = self.forms[name]
            facts = {**_ALIKE, "trigger_mode": "multiple"}
            button.click(self._maker(form), form.inputs, stage, **facts)
            for each in form.fields.values():
                if each.option.argument and isinstance(form.components[each.name], gr.Textbox):
                    form.components[each.name].submit(self._maker(form), form.inputs, stage, **facts)
        self._cancel.click(self._end, self._work, None, **_ALIKE)
        self._replay.click(self._make_again, clips, stage, **_ALIKE)
        self._cards.click(self._pick_shown, self._shown, view, **_ALIKE)
        self._rows.click(self._pick, None, view, **_ALIKE)
        self._works.click(self._end_picked, None, self._works, **_ALIKE)
        listed = [self._rows, self._works]
        # One event, so that no answer to what was searched for before comes after the last one.
        searched = [self._search.change, self._library_tab.select]
        gr.on(searched, self._list, self._search, listed, trigger_mode="always_last", **_ALIKE)
        self._drop.upload(self._dropped, self._drop, [self._status, self._drop, *view], **_ALIKE)
        self._delete.click(
            self._remove,
            [*clips, self._search],
            [*view, *listed],
            js=_SURE,
            **_ALIKE,
        )
        everything = [each for form in self.forms.values() for each in form.components.values()]
        self._again.click(self._edit, self._picked, [self._status, self._tabs, *everything], **_ALIKE)
        for button, form, field in self._verbs:
            target = form.components[field.option.of or field.name]
            span = [form.components[field.name]] if field.option.of else []
            button.click(
                self._giver(form, field),
                [self._picked, form.model, self._from, self._to],
                [self._status, self._tabs, form.model, target, *span],
                **_ALIKE,
            )
        self.blocks.load(self._resume, None, [*listed, *stage], **_ALIKE)
        for trainer in self._trainers:
            self.blocks.load(trainer.opened, None, [trainer.which, trainer.shown], **_ALIKE)
        for form in self.forms.values():
            own = [form.model, *form.adapters.values()]
            for happens in (self.blocks.load, form.tab.select):
                happens(form.refresh, own, own, **_ALIKE)

    def _maker(self, form: Form) -> Callable[..., Iterator[list[Any]]]:
        def make(request: gr.Request, *values: Any) -> Iterator[list[Any]]:
            try:
                work = self._studio.accept(form.read(*values))
            except OptionError as error:
                yield self._refused(OptionError(form.said(error)))
                return
            except AudiogenError as error:
                yield self._refused(error)
                return
            yield from self._follow(work, request)

        return make

    def _make_again(self, names: list[str], picked: str, request: gr.Request) -> Iterator[list[Any]]:
        try:
            recipe = self._studio.library.clip(picked).recipe
            if recipe is None:
                raise OptionError(f"{picked} carries no recipe")
            path = self._studio.library.path(picked)
            work = self._studio.replay(recipe, path.suffix)
        except AudiogenError as error:
            yield self._refused(error)
            return
        yield from self._follow(work, request, beside=names)

    def _follow(
        self, work: Work, request: gr.Request, beside: list[str] | None = None
    ) -> Iterator[list[Any]]:
        """Tell how a work goes on until it ends, or the session looks at another."""
        session = str(request.session_hash)
        self._followed[session] = work.id
        pace, is_heard, unit = show.Pace(), False, jobs.find(work.job, work.package).unit
        nothing = [gr.skip()] * 6
        yield [show.work(work, 0, pace, unit), "", gr.update(visible=True), work.id, *nothing]
        told = None
        while self._followed.get(session) == work.id:
            now = self._studio.queue.get(work.id)
            if now.state in ENDED:
                del self._followed[session]
                view = nothing
                if now.state == "done":
                    view = self._view([*now.files, *(beside or ())], now.files[0])
                yield [show.work(now, 0, pace, unit), gr.skip(), gr.update(visible=False), work.id, *view]
                return
            if now != told:
                told = now
                heard = gr.skip()
                if now.clips and not is_heard:
                    heard, is_heard = show.live(now), True
                before = sum(e.state not in ENDED and e.id < now.id for e in self._studio.queue.all())
                yield [show.work(now, before, pace, unit), heard, gr.skip(), gr.skip(), *nothing]
            with self._studio.queue.changed:
                self._studio.queue.changed.wait(OFTEN)

    def _resume(self, request: gr.Request) -> Iterator[list[Any]]:
        """What the page shows when it is opened: the library, and what is being made."""
        listed = self._list("")
        yield [*listed, *[gr.skip()] * 10]
        going = [work for work in self._studio.queue.all() if work.state not in ENDED]
        if going:
            for stage in self._follow(going[0], request):
                yield [gr.skip(), gr.skip(), *stage]

    def _end(self, name: str) -> None:
        if name:
            self._studio.cancel(name)

    def _end_picked(self, event: gr.EventData) -> str:
        self._studio.cancel(event.work)
        return self._going()

    def _list(self, search: str) -> list[Any]:
        return [show.rows(self._studio.library.clips(search), ROWS), self._going()]

    def _going(self) -> str:
        going = [work for work in self._studio.queue.all() if work.state not in ENDED]
        return show.works(going[:ROWS])

    def _pick(self, event: gr.EventData) -> list[Any]:
        return self._view([event.clip], event.clip)

    def _pick_shown(self, names: list[str], event: gr.EventData) -> list[Any]:
        return self._view(names, event.clip)

    def _dropped(self, path: str | None) -> list[Any]:
        if path is None:
            return [gr.skip()] * 8
        try:
            name = received(self._studio.library, path)
        except AudiogenError as error:
            return [show.wrong(str(error)), None, *[gr.skip()] * 6]
        return ["", None, *self._view([name], name)]

    def _remove(self, names: list[str], picked: str, search: str) -> list[Any]:
        try:
            self._studio.library.delete(picked)
        except AudiogenError:
            return [*[gr.skip()] * 8]  # what was brought in stays: others may have been made of it
        left = [name for name in names if name != picked]
        return [*self._view(left, left[0] if left else ""), *self._list(search)]

    def _view(self, names: list[str], picked: str) -> list[Any]:
        """What shows clips: those of these names that are there."""
        clips = []
        for name in names:
            try:
                clips.append(self._studio.library.clip(name))
            except AudiogenError:
                continue
        told = {clip["name"]: clip for work in self._studio.queue.all() for clip in work.clips}
        names = [clip.name for clip in clips]
        picked = picked if picked in names else next(iter(names), "")
        recipe = next((clip.recipe for clip in clips if clip.name == picked), None)
        made_by = None if recipe is None else (recipe.package, recipe.settings.get("command"))
        known = made_by in {(form.job.package, form.job.name) for form in self.forms.values()}
        made = gr.update(visible=known)
        cards = show.cards(clips, picked, told) if clips else ""
        return [names, picked, cards, gr.update(visible=bool(clips)), made, made]

    def _refused(self, error: AudiogenError) -> list[Any]:
        return [show.wrong(str(error)), gr.skip(), gr.update(visible=False), *[gr.skip()] * 7]

    def _edit(self, picked: str) -> list[Any]:
        """The form of the job that made a clip, filled in as it was."""
        try:
            clip = self._studio.library.clip(picked)
            if clip.recipe is None:
                raise OptionError(f"{picked} carries no recipe")
            job = jobs.job_of(clip.recipe)
            values = {**clip.recipe.settings, "model": clip.recipe.model, "seed": clip.recipe.seed}
            values = {job.renamed.get(name, name): value for name, value in values.items()}
            for name, digest in clips_of(job, clip.recipe):
                values[job.renamed.get(name, name)] = str(self._studio.library.holding(digest))
        except AudiogenError as error:
            return [show.wrong(str(error)), *[gr.skip()] * (1 + self._count())]
        filled: list[Any] = []
        for form in self.forms.values():
            filled += form.fill(values) if form.job is job else [gr.skip()] * len(form.components)
        name = next((form.name for form in self.forms.values() if form.job is job), job.name)
        return ["", gr.update(selected=name), *filled]

    def _count(self) -> int:
        return sum(len(form.components) for form in self.forms.values())

    def _giver(self, form: Form, field: Field) -> Callable[..., list[Any]]:
        """Puts a clip into an option of a job; and a span of it into another, where that is what is asked."""

        def give(picked: str, model: str, start: float | None, end: float | None) -> list[Any]:
            span = [f"{written(start or 0)}:{written(end or 0)}"] if field.option.of else []
            try:
                path = str(self._studio.library.path(picked))
            except AudiogenError as error:
                return [show.wrong(str(error)), *[gr.skip()] * (3 + len(span))]
            able = form.understanding(field.option.of or field.name, model)
            target = gr.update(value=path, visible=True)
            return ["", gr.update(selected=form.name), able, target, *span]

        return give
