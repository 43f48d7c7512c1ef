"""A job as a form: its options as components of a page, and what was put into them as values.

Everything is read from the description of the options; an option that is added to a job is on the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import gradio as gr

from audiogen_core.errors import OptionError
from audiogen_core.jobs import Entry, Job, Run
from audiogen_core.options import Field, described
from audiogen_core.output import Output
from audiogen_core.studio import adapters
from audiogen_core.studio.library import Library
from audiogen_core.studio.studio import Asked, Studio
from audiogen_core.values import members, written

FORMATS = ("wav", "flac", "ogg", "mp3")

_EXACT = 2**53
"""Whole numbers from here on are not what a browser takes them for, and are texts."""

_TYPES = """
element.addEventListener('click', event => {
  const word = event.target.dataset.word, prompt = document.querySelector('#%s-prompt textarea');
  if (!word || !prompt) return;
  prompt.value = [prompt.value.trim(), word].filter(Boolean).join(' ');
  prompt.dispatchEvent(new Event('input'));
});
"""

_USUAL = ("as usual", "")
_YES_NO = [_USUAL, ("yes", "yes"), ("no", "no")]
_ABOUT_ALL = {each.name for each in described(Output)}


class Form:
    """The options of a job as components, made where this is called in a page."""

    def __init__(self, studio: Studio, job: Job, name: str, tab: gr.Tab) -> None:
        """
        name  of the form in the page
        tab   that it is in
        """
        self._studio, self.job, self.name, self.tab = studio, job, name, tab
        self.fields: dict[str, Field] = {each.name: each for each in _shown(job)}
        self.components: dict[str, gr.components.Component] = {}
        run = {each.name: each for each in described(Run)}
        plain = [each for each in self.fields.values() if not each.option.advanced]
        folded = [each for each in self.fields.values() if each.option.advanced]
        for each in plain:  # what the job is about comes first
            if each.option.argument:
                self._add(each)
        self.words = gr.HTML(self._words(self._usual_model()), js_on_load=_TYPES % name, elem_classes="about")
        self.unknown = gr.HTML(js_on_load=None, elem_id=f"{name}-unknown", elem_classes="about")
        self._add_model()
        self.adapters = {
            each.name: adapters.component(name, each, studio.adapters(job)) for each in job.adapters
        }
        self.components |= self.adapters
        self._add_all([e for e in plain if not e.option.group and e.option.role != "audio"])
        self._add_all([e for e in plain if not e.option.group and e.option.role == "audio"])
        with gr.Row(elem_classes="fields"):
            self.count = gr.Number(
                1,
                label="Variations",
                info=run["variations"].option.help,
                minimum=1,
                precision=0,
                min_width=140,
            )
            self.format = gr.Dropdown(
                [(each.upper(), each) for each in FORMATS], value="wav", label="File", min_width=140
            )
        groups = dict.fromkeys(each.option.group for each in plain if each.option.group)
        for group in sorted(groups, key=lambda each: each == _LAST):
            with gr.Accordion(group, open=False):
                self._add_all([each for each in plain if each.option.group == group])
        with gr.Accordion("Advanced", open=False):
            self._add_all(folded)
            channel = run["channel"]
            self.channel = gr.Dropdown(
                [_USUAL, *((each, each) for each in channel.option.choices)],
                value="",
                label="Channel",
                info=channel.option.help,
            )
        self.beside = [self.count, self.format, self.channel, self.fetch]
        self.inputs = [*self.components.values(), *self.beside]
        facts: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        followed = [*self.components.values(), self.about, self.fetch, self.words]
        self.model.change(self.follow_model, self.model, followed, **facts)
        if isinstance(prompt := self.components.get("prompt"), gr.Textbox):
            prompt.blur(self._tell_unknown, [prompt, self.model], self.unknown, **facts)

    def read(self, *values: Any) -> Asked:
        """What was put in. Raises OptionError."""
        given = dict(zip(self.components, values, strict=False))
        count, suffix, channel, fetch = values[len(given) :]
        understood = self._entry(given["model"])
        asked = {
            name: self._value(self.fields[name], value)
            for name, value in given.items()
            if _is_given(value) and self._understands(understood, name)
        }
        return Asked(
            values=asked,
            job=self.job.name,
            package=self.job.package,
            count=1 if count is None else count,
            channel=channel or None,
            format=suffix,
            fetch=bool(fetch),
        )

    def fill(self, values: Mapping[str, Any]) -> list[Any]:
        """What to show for values by name, as recipes have them; for what is not among them, the usual."""
        filled = {name: self._put(field, values.get(name)) for name, field in self.fields.items()}
        model = filled.get("model") or self._usual_model()
        filled["model"] = model
        shown = self._follow(model)
        shown |= {name: {"visible": bool(filled[name])} for name in self.adapters}
        return [gr.update(value=filled[name], **shown.get(name, {})) for name in self.components]

    def follow_model(self, name: str) -> list[Any]:
        """Show what a model understands, and hide the rest; tell of the model."""
        shown = self._follow(name)
        entry = self._entry(name)
        is_away = entry is not None and not entry.here
        return [
            *(gr.update(**shown[each]) if each in shown else gr.skip() for each in self.components),
            self._told(entry),
            gr.update(visible=is_away and not self._studio.offline, value=False),
            self._words(name),
        ]

    def refresh(self, model: str, *listed: adapters.Rows) -> list[Any]:
        """The models and adapters there are now: some were fetched or trained since the page was built."""
        here = self._studio.adapters(self.job)
        lists = [_listed(adapters.rows(here, adapters.texts(each))) for each in listed]
        shown = [gr.update(choices=self.choices(), value=model), *lists]
        return shown if lists else shown[0]

    def understanding(self, option: str, model: str) -> str:
        """The model; where it does not understand the option, one that does, here if possible."""
        entries = self.job.models()
        if any(each.name == model and option in each.options for each in entries):
            return model
        able = [each for each in entries if option in each.options]
        return next((each.name for each in able if each.here), able[0].name if able else model)

    def is_ready(self, field: Field) -> bool:
        """Whether a model that is here understands an option, or the clip of which it is a span."""
        name = field.option.of or field.name
        return any(each.here and self._understands(each, name) for each in self._models())

    def said(self, error: OptionError) -> str:
        """What was wrong, with options as the page calls them."""
        names = {
            name: field.label for name, field in self.fields.items() if "_" in name or name in error.names
        }
        words = "|".join(map(re.escape, names)) or "$^"
        return re.sub(
            rf"(?<![\w./'\"-])({words})(?![\w'\"-])", lambda word: f"“{names[word[0]]}”", str(error)
        )

    def _follow(self, model: str) -> dict[str, dict[str, Any]]:
        entry = self._entry(model)
        some = [name for name, field in self.fields.items() if field.option.some]
        return {name: {"visible": self._understands(entry, name)} for name in some}

    def _understands(self, entry: Entry | None, name: str) -> bool:
        is_some = name in self.fields and self.fields[name].option.some
        return entry is None or not is_some or name in entry.options

    def _entry(self, name: str) -> Entry | None:
        return next((each for each in self._models() if each.name == name), None)

    def _models(self) -> list[Entry]:
        return [*self.job.models(), *self._studio.trained(self.job)]

    def _usual_model(self) -> str:
        """That of the job if it is here, else the first that is."""
        usual = self.fields["model"].default
        entries = self._models()
        here = [each.name for each in entries if each.here]
        if usual in here or not here:
            return str(usual if isinstance(usual, str) else entries[0].name)
        return here[0]

    def choices(self) -> list[tuple[str, str]]:
        """The models, those that are here first."""
        entries = sorted(self._models(), key=lambda each: not each.here)
        return [(each.name if each.here else f"{each.name} (to be fetched)", each.name) for each in entries]

    def _add_model(self) -> None:
        usual = self._usual_model()
        entry = self._entry(usual)
        with gr.Column(elem_classes="model"):
            self.model = gr.Dropdown(self.choices(), value=usual, label="Model", elem_id=f"{self.name}-model")
            self.about = gr.HTML(self._told(entry), elem_classes="about", js_on_load=None)
            self.fetch = gr.Checkbox(
                False,
                label="Fetch it",
                info="Its files are fetched once, when it is first used.",
                visible=entry is not None and not entry.here and not self._studio.offline,
            )
        self.components["model"] = self.model

    def _told(self, entry: Entry | None) -> str:
        from audiogen_core.studio.show import model

        return "" if entry is None else model(entry, self._studio.offline)

    def _words(self, model: str) -> str:
        from audiogen_core.prompts import Prompts
        from audiogen_core.studio.show import words

        place = self.job.vocabulary(model)
        return "" if place is None else words(Prompts.read(place))

    def _tell_unknown(self, prompt: str, model: str) -> str:
        """What the model will say of a prompt, before it is asked to make anything."""
        from audiogen_core.studio.show import notes
        from audiogen_core.tokenizer import Tokenizer

        place = self.job.vocabulary(model)
        if place is None or not prompt.strip():
            return ""
        return notes(Tokenizer.load(place).not_followed(prompt))

    def _add_all(self, fields: list[Field]) -> None:
        if left := [each for each in fields if each.name not in self.components]:
            with gr.Row(elem_classes="fields"):
                for each in left:
                    self._add(each)

    def _add(self, field: Field) -> None:
        self.components[field.name] = component(
            self.name, field, self._understands(self._first(), field.name)
        )

    def _first(self) -> Entry | None:
        return self._entry(self._usual_model())

    def _value(self, field: Field, value: Any) -> Any:
        """What a component holds, as the option takes it. Raises OptionError."""
        option = field.option
        if option.role in ("audio", "file"):
            return received(self._studio.library, value, option.suffixes)
        if option.role == "adapter":
            return adapters.texts(value)
        if field.kind is bool:
            return value if isinstance(value, bool) else value == "yes"
        return _of_text(field, value) if isinstance(value, str) and field.kind is not str else value

    def _put(self, field: Field, value: Any) -> Any:
        """What a component shows for a value of an option."""
        if value is None:
            value = None if field.required else field.default
        if field.option.role in ("audio", "file"):
            return value
        if field.option.role == "adapter":
            return adapters.rows(self._studio.adapters(self.job), value or ())
        if field.kind is bool:
            if not field.optional:
                return bool(value)
            return "" if value is None else "yes" if value else "no"
        if value is None:
            return None if _is_number(field) else ""
        return value if _is_number(field) else _text(value)


def _listed(rows: adapters.Rows) -> Any:
    """A list of adapters, which is shown when there are some."""
    return gr.update(value=rows, visible=bool(rows))


_LAST = next(each.option.group for each in described(Output))
"""What is done to any clip, at the end."""


def received(library: Library, path: str, others: Sequence[str] = ()) -> str:
    """A file that came with the page, taken into the library: its name there. Raises as `Library.receive`."""

    def blocks() -> Iterator[bytes]:
        with Path(path).open("rb") as file:
            while block := file.read(1 << 20):
                yield block

    return library.receive(Path(path).name, blocks(), others)


def _shown(job: Job) -> list[Field]:
    """Options a page asks for: not those of Python alone, nor those of the machine that the server is on."""
    fields = [*described(job.options), *described(job.load)]
    return [
        each
        for each in fields
        if (
            each.option.role in ("value", "audio", "file", "adapter")
            and not (each.option.local and each in described(job.load))
        )
        or each.name == "model"
    ]


def component(place: str, field: Field, visible: bool = True) -> gr.components.Component:
    """What an option is asked with. `place` begins its name in the page."""
    told = field.option
    facts: dict[str, Any] = {
        "label": field.label + (f" ({told.unit})" if told.unit and told.parse is None else ""),
        "visible": visible,
        "elem_id": f"{place}-{field.name}",
        "min_width": 200,
    }
    if told.role == "audio":
        sources: list[Any] = ["upload", "microphone"]
        return gr.Audio(sources=sources, type="filepath", buttons=["download"], elem_classes="clip", **facts)
    if told.role == "file":
        kinds = ["audio", *told.suffixes]
        facts["label"] += f": {told.help}"
        return gr.File(file_types=kinds, type="filepath", height=110, elem_classes="drop", **facts)
    facts["info"] = " ".join(part for part in (told.help, _range(field)) if part)
    value = None if field.required else field.default
    if field.kind is bool:
        if not field.optional:
            return gr.Checkbox(bool(value), **facts)
        return gr.Dropdown(_YES_NO, value="" if value is None else "yes" if value else "no", **facts)
    if field.words and not _is_mixed(field):
        choices = [*([_USUAL] if field.optional else []), *((each, each) for each in field.words)]
        return gr.Dropdown(choices, value="" if value is None else str(value), **facts)
    if _is_number(field):
        step = 1.0 if field.kind is int else 0.1
        precision = 0 if field.kind is int else None
        return gr.Number(value, precision=precision, minimum=told.ge, maximum=told.le, step=step, **facts)
    lines = 3 if told.argument else 1
    hint = _shape(field) or ("as usual" if field.optional and field.kind is not str else "")
    return gr.Textbox(
        "" if value is None else _text(value), placeholder=hint, lines=lines, max_lines=max(lines, 4), **facts
    )


def _is_number(field: Field) -> bool:
    """Whether it is always a number: a field of numbers shows 0 where nothing was said."""
    limit = field.option.lt or field.option.le
    is_exact = field.kind is float or (field.kind is int and not (limit is not None and limit > _EXACT))
    return is_exact and not field.optional and not field.required


def _is_mixed(field: Field) -> bool:
    """Whether it takes other values beside the words that are allowed."""
    return any(each in (int, float) for each in get_args(field.kind)) or field.option.parse is not None


def _is_span(field: Field) -> bool:
    """Whether it is one pair of numbers, or one number."""
    return field.repeated is None and (get_origin(field.kind) is tuple or float in members(field.kind))


def _shape(field: Field) -> str:
    """How values are written that are no single text."""
    if field.repeated is not None:
        return "1 2 3" if field.repeated in (int, float) else "START:END ..."
    return "START:END" if get_origin(field.kind) is tuple else ""


def _range(field: Field) -> str:
    shown = field.option.range_shown
    return f"{shown[0].upper()}{shown[1:]}." if shown else ""


def _of_text(field: Field, text: str) -> Any:
    """The value that a text stands for: as the command reads it, or numbers, with spaces between several.

    What may be a text stays one: the command may take it for the name of a file, which is none of a page's.
    """
    if str in members(field.kind):
        return text
    if field.option.parse is not None:
        return field.parse(text)
    if _DECIMAL.fullmatch(text.strip()) and field.repeated is None and not _takes_several(field):
        text = text.replace(",", ".")  # as half of the world writes it
    if field.is_time and field.repeated is None:
        try:
            return field.time(text)
        except OptionError as error:
            raise OptionError(f"{field.label}: {error}", field.name) from None
    several = [field.parse(each) if ":" in each else _number(each) for each in text.replace(",", " ").split()]
    if any(isinstance(each, str) for each in several) and field.repeated is None:
        return text
    is_tuple = len(several) > 1 or (_takes_several(field) and not _is_span(field))
    return tuple(several) if is_tuple else several[0]


_DECIMAL = re.compile(r"\d+,\d+")


def _takes_several(field: Field) -> bool:
    return any(get_origin(each) is tuple for each in (field.kind, *members(field.kind)))


def _number(text: str) -> float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _text(value: Any) -> str:
    """A value as it is written in a field of text: spans with a colon, several with a space."""
    if isinstance(value, list | tuple):
        inner = any(isinstance(each, list | tuple) for each in value)
        return (" " if inner or len(value) != 2 else ":").join(_text(each) for each in value)
    return written(value) if isinstance(value, float) else str(value)


def _is_given(value: Any) -> bool:
    return value is not None and value != ""
