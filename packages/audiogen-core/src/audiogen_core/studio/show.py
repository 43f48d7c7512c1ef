"""What the page says of models, works and clips, as HTML. All texts from outside are escaped."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from audiogen_core.jobs import Entry
from audiogen_core.prompts import Prompts
from audiogen_core.recipe import Recipe
from audiogen_core.studio.library import Clip
from audiogen_core.studio.queue import Work
from audiogen_core.studio.training import Progress

KEPT_AS = ("wav", "flac", "ogg", "mp3")

HASHED = re.compile(r"[0-9a-f]{24}")
"""What a clip that was brought in is called, which says nothing to anybody."""

WORDS = 14
"""Words for one thing that are shown before the rest is asked for."""


def model(entry: Entry, offline: bool) -> str:
    """Licence, size, and whether it is here."""
    size = "size unknown" if entry.size is None else f"{entry.size / 1e6:,.0f} MB"
    where = "here" if entry.here else "not here, and the server is offline" if offline else "to be fetched"
    kind = "here" if entry.here else "away"
    facts = f'<span class="badge {kind}">{where}</span> {escape(entry.license)} · {size}'
    return f'<p class="facts">{facts}</p><p class="note">{escape(entry.note)}</p>'


class Pace:
    """How long the rest of a work will take, told from what has been done of the same thing so far."""

    def __init__(self) -> None:
        self._doing, self._since, self._from = "", 0.0, 0.0

    def left(self, work: Work) -> float | None:
        """Seconds, or None while that is not known."""
        now = time.monotonic()
        if work.doing != self._doing or work.done < self._from:
            self._doing, self._since, self._from = work.doing, now, work.done
        done = work.done - self._from
        if done <= 0 or work.total <= work.done:
            return None
        return (now - self._since) * (work.total - work.done) / done


def work(now: Work, before: int, pace: Pace, unit: str) -> str:
    """How a work goes on.

    before  works that are done before it
    unit    in which its progress is told
    """
    if now.state == "failed":
        return f'<div class="status failed" role="alert">{escape(now.error)}</div>'
    if now.state == "cancelled":
        return '<div class="status" role="status">Cancelled.</div>'
    if now.state == "done":
        took = f"Done in {_time(now.ended - now.begun)}."
        return f'<div class="status done" role="status">{took}{notes(now.notes)}</div>'
    if now.state == "waiting":
        text = "Starts soon" if not before else f"Waits for {before} other{'s' if before > 1 else ''}"
        return f'<div class="status" role="status">{text}<progress></progress></div>'
    doing = escape(now.doing.capitalize() or "Starting")
    if now.total <= 0:
        return f'<div class="status" role="status">{doing}<progress></progress></div>'
    of = f"{now.done:.3g} of {now.total:.3g} {escape(unit)}" if now.total < 1e6 else ""
    left = pace.left(now)
    eta = "" if left is None else f" · {_time(left)} left"
    if len(now.files) > 1:
        doing = f"{doing} {min(sum(bool(c['name']) for c in now.clips) + 1, len(now.files))}/{len(now.files)}"
    bar = f'<progress max="{now.total:g}" value="{now.done:g}"></progress>'
    return f'<div class="status" role="status"><span>{doing}</span> <span>{of}{eta}</span>{bar}</div>'


def wrong(sentence: str) -> str:
    """What was wrong with what was asked for."""
    return f'<div class="status failed" role="alert">{escape(" ".join(sentence.split()))}</div>'


def live(now: Work) -> str:
    """A player for what is being made."""
    source = f"v1/jobs/{quote(now.id)}/sound"
    return (
        f'<div class="live" data-source="{source}"><button type="button" aria-label="Play">▶</button>'
        '<span class="badge">live</span> heard while it is made <span class="time"></span></div>'
    )


def cards(clips: Iterable[Clip], picked: str, told: Mapping[str, Mapping[str, Any]]) -> str:
    """Clips side by side, one of them picked.

    told  by name, what is known of clips beside what their files say: confidence, faults
    """
    clips = list(clips)
    sure = {
        each.name: told[each.name]["confidence"]
        for each in clips
        if told.get(each.name, {}).get("confidence") is not None
    }
    surest = max(sure, key=lambda name: sure[name]) if len(sure) > 1 else ""
    drawn = "".join(_card(each, each.name == picked, told, surest) for each in clips)
    return f'<div class="cards">{drawn}</div>'


def _card(clip: Clip, is_picked: bool, told: Mapping[str, Mapping[str, Any]], surest: str) -> str:
    source, called, known = f"v1/clips/{quote(clip.name)}", escape(title(clip)), told.get(clip.name, {})
    facts = [_length(clip), f"{clip.sample_rate / 1000:g} kHz", "stereo" if clip.channels == 2 else "mono"]
    if clip.recipe is not None:
        facts = [clip.recipe.model, f"seed {clip.recipe.seed}", *facts]
    if clip.name == surest:
        facts.append("the model is surest of this one")
    faults = "".join(f'<p class="fault">{escape(each)}</p>' for each in known.get("faults", ()))
    kept = "".join(f'<a href="{source}?format={each}" download>{each.upper()}</a>' for each in KEPT_AS)
    return (
        f'<article class="card{" picked" if is_picked else ""}">'
        f'<button type="button" class="pick" data-clip="{escape(clip.name)}"'
        f' aria-pressed="{str(is_picked).lower()}">{called}</button>'
        f'<div class="picture"><img src="{source}/picture" alt="Waveform and spectrogram"><i></i></div>'
        f'<audio controls preload="metadata" src="{source}" aria-label="{called}"></audio>'
        f'<p class="facts">{escape(" · ".join(facts))}</p>{faults}'
        f'<p class="keep">Keep as {kept}</p>{_recipe(clip.recipe)}</article>'
    )


def rows(clips: list[Clip], most: int) -> str:
    """Clips as a list, from the newest on."""
    if not clips:
        return '<p class="note">Nothing here yet. What is made is kept here, and stays.</p>'
    shown = "".join(_row(each) for each in clips[:most])
    more = len(clips) - most
    rest = f'<p class="note">And {more} more: search for them.</p>' if more > 0 else ""
    return f'<ul class="rows">{shown}</ul>{rest}'


def _row(clip: Clip) -> str:
    made = time.strftime("%d %b %H:%M", time.localtime(clip.created))
    facts = [made, _length(clip)]
    if clip.recipe is not None:
        facts = [
            str(clip.recipe.settings.get("command", clip.recipe.package)),
            f"seed {clip.recipe.seed}",
            *facts,
        ]
    return (
        f'<li><button type="button" class="pick" data-clip="{escape(clip.name)}">'
        f"<b>{escape(title(clip))}</b><span>{escape(' · '.join(facts))}</span></button></li>"
    )


def works(waiting: list[Work]) -> str:
    """What runs and what waits."""
    if not waiting:
        return ""
    items = "".join(
        f"<li><span><b>{escape(each.job)}</b> {escape(each.state)}</span>"
        f'<button type="button" class="cancel" data-work="{escape(each.id)}">Cancel</button></li>'
        for each in waiting
    )
    return f'<ul class="works">{items}</ul>'


def training(now: Progress) -> str:
    """How a training goes: its loss, and the clips it made by the way."""
    steps = [record for record in now.records if record["kind"] == "train" and record.get("loss") is not None]
    facts: list[str] = [now.state]
    if steps:
        facts += [f"step {steps[-1]['step']}", f"loss {steps[-1]['loss']:.3f}"]
        if now.state == "running" and steps[-1].get("seconds_left") is not None:
            facts.append(f"{_time(steps[-1]['seconds_left'])} left")
    load = "none" if now.state == "running" else "metadata"  # drawn anew at every step, lengths can wait
    heard = "".join(
        f'<li><span>{escape(each)}</span><audio controls preload="{load}" aria-label="{escape(each)}" '
        f'src="v1/trainings/{quote(now.name)}/samples/{quote(each)}"></audio></li>'
        for each in reversed(now.samples[-6:])
    )
    bar = "<progress></progress>" if now.state == "running" else ""
    lines = [escape(now.said)]
    if now.left_out:
        lines.append(f"Left out: {escape(', '.join(now.left_out))}")
    if now.state == "done":
        lines.append(f'<a href="v1/trainings/{quote(now.name)}/report" target="_blank">The report</a>')
    return (
        f'<div class="status" role="status"><span><b>{escape(now.name)}</b></span>'
        f"<span>{escape(' · '.join(facts))}</span>{bar}"
        + "".join(f"<p class='note'>{each}</p>" for each in lines)
        + "</div>"
        f'{_curve(now.records)}<ul class="samples">{heard}</ul>'
    )


def _curve(records: Sequence[Mapping[str, Any]]) -> str:
    """Loss over steps, of training and of what is held out, as an SVG."""
    lines = {
        kind: [(each["step"], each["loss"]) for each in records if each["kind"] == kind and each.get("loss")]
        for kind in ("train", "eval")
    }
    points = [point for line in lines.values() for point in line]
    if len(lines["train"]) < 2:
        return ""
    right, top = max(step for step, _ in points), max(loss for _, loss in points)
    low = min(loss for _, loss in points)
    span = max(top - low, 1e-9)
    drawn = "".join(
        f'<polyline class="{kind}" points="'
        + " ".join(f"{600 * step / right:.1f},{150 - 140 * (loss - low) / span:.1f}" for step, loss in line)
        + '"/>'
        for kind, line in lines.items()
    )
    told = f"Loss from {lines['train'][0][1]:.2f} to {lines['train'][-1][1]:.2f} in {right} steps"
    return (
        f'<figure class="curve"><svg viewBox="-4 0 608 156" role="img" aria-label="{told}">{drawn}</svg>'
        f"<figcaption>{told}; thick: on what is held out</figcaption></figure>"
    )


def title(clip: Clip) -> str:
    """What a clip is called: by its prompt, else by its job and the clip it was made of, else by its file."""
    settings = {} if clip.recipe is None else clip.recipe.settings
    prompt, command = settings.get("prompt"), settings.get("command")
    if isinstance(prompt, str) and prompt.strip():
        return prompt
    if clip.recipe is None or not isinstance(command, str):
        return clip.name
    went_in = (settings.get(each) for each in clip.recipe.inputs)
    of = next((Path(each).stem for each in went_in if isinstance(each, str)), "")
    of = "" if HASHED.fullmatch(of) else of
    return f"{command} of {of}" if of else command


def package(name: str, install: str, reason: str) -> str:
    """A package that is not installed, or does not start."""
    if reason:
        return f"<p>{escape(name)} is installed, but does not start:</p><pre>{escape(reason)}</pre>"
    return f"<p>{escape(name)} is not installed. It is by</p><pre>{escape(install)}</pre>"


def _recipe(recipe: Recipe | None) -> str:
    if recipe is None:
        return '<p class="note">Carries no recipe.</p>'
    facts = {"package": f"{recipe.package} {recipe.version}", "model": recipe.model, "seed": recipe.seed}
    listed = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
        for name, value in {**facts, **recipe.settings}.items()
    )
    return f"<details><summary>Recipe</summary><dl>{listed}</dl></details>"


def notes(said: Iterable[str]) -> str:
    """What is worth knowing of a work, or of a prompt before one."""
    # the sentence is the command's, and here the words stand on the page
    told = (each.replace("by `audiogen-mlx prompts`", "below the prompt") for each in said)
    return "".join(f'<p class="note">{escape(each)}</p>' for each in told)


def words(prompts: Prompts | None) -> str:
    """The words that a small model knows, each of which goes into the prompt when it is clicked."""
    if prompts is None:
        return ""
    groups = ((about, list(names)) for about, names in prompts.knows.items())
    told = "".join(
        f"<div><b>{escape(about)}</b>{''.join(map(_word, names[:WORDS]))}"
        + (
            f"<details><summary>more</summary>{''.join(map(_word, names[WORDS:]))}</details>"
            * (len(names) > WORDS)
        )
        + "</div>"
        for about, names in groups
    )
    return f'<div class="words">{told}</div>'


def _word(word: str) -> str:
    return f'<button type="button" data-word="{escape(word)}">{escape(word)}</button>'


def _length(clip: Clip) -> str:
    return f"{clip.seconds:.1f} s" if clip.seconds < 60 else _time(clip.seconds)


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{max(seconds, 0):.0f} s" if seconds >= 10 else f"{max(seconds, 0):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02} min"
