"""Adapters in a form: each with a slider of its strength, from which an option of PATH:STRENGTH is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from audiogen_core.lora import Asked
from audiogen_core.options import Field
from audiogen_core.values import written

Rows = list[dict[str, Any]]
"""What the list holds, in order: "name" and "strength"."""

_MOST = 2.0
"""Where the slider ends."""

_LIST = """
<span class="label">{label}</span><p class="note">{help}</p>
{{{{#if value.length}}}}<ul class="adapters">{{{{#each value}}}}
<li><label><span>{{{{this.name}}}}</span>
<input type="range" min="0" max="{most:g}" step="0.05"
  value="{{{{this.strength}}}}" data-index="{{{{@index}}}}">
<output>{{{{this.strength}}}}</output></label></li>
{{{{/each}}}}</ul>{{{{else}}}}<p class="note">None is here.</p>{{{{/if}}}}
"""

_SLIDES = """
element.addEventListener('input', event => {
  event.target.nextElementSibling.textContent = event.target.value;
});
element.addEventListener('change', event => {
  const index = Number(event.target.dataset.index), strength = Number(event.target.value);
  props.value = props.value.map((each, place) => (place === index ? {...each, strength} : each));
  requestAnimationFrame(() => element.querySelector(`[data-index="${index}"]`).focus());
});
"""


def component(place: str, field: Field, here: Mapping[str, Path]) -> gr.HTML:
    """The list of the adapters that are here, none of which is used yet. `place` begins its name."""
    return gr.HTML(
        rows(here),
        html_template=_LIST.format(label=escape(field.label), help=escape(field.option.help), most=_MOST),
        js_on_load=_SLIDES,
        elem_id=f"{place}-{field.name}",
        elem_classes="adapting",
        visible=bool(here),
    )


def rows(here: Mapping[str, Path], asked: Sequence[str] = ()) -> Rows:
    """A row for each adapter that is here, as strong as it is asked for by its name or place; then others
    that are asked for.
    """
    strengths = {str(each.path): each.strength for each in map(Asked.of, asked)}
    listed: Rows = []
    for name, path in here.items():
        own = strengths.pop(name, 0.0), strengths.pop(str(path), 0.0)
        listed.append({"name": name, "strength": max(own, key=abs)})
    return listed + [{"name": path, "strength": strength} for path, strength in strengths.items()]


def texts(listed: Rows | None) -> list[str]:
    """The adapters that are used, as the option takes them."""
    return [f"{row['name']}:{written(row['strength'])}" for row in listed or () if row["strength"]]
