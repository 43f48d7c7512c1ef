"""Requests that schemathesis makes of the service's own description: whatever comes, no answer is a 5xx."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from audiogen_core.studio.service import application
from audiogen_core.studio.studio import Studio
from support import tones

KNOWN = ("input", "response_format", "stream", "fetch", "channel")


@pytest.mark.parametrize("examples", [8, pytest.param(300, marks=pytest.mark.slow)])
def test_no_answer_is_a_server_error(examples: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tones.install(tmp_path / "installed", monkeypatch)
    studio = Studio(tmp_path / "library", offline=True, most_waiting=20)
    studio.start()
    app, _ = application(studio)
    described = schemathesis.openapi.from_asgi("/openapi.json", app)
    answers: Counter[str] = Counter()
    whatever = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    for operation in described.get_all_operations():

        @whatever
        @given(case=operation.ok().as_strategy(), is_tones=st.booleans())
        def asked(case: Any, is_tones: bool) -> None:
            label = case.operation.label
            if isinstance(case.body, dict) and is_tones and "/clips" not in label:
                # a job there is and options it has, so that more than names is looked at
                asked = {name: case.body[name] for name in case.body if name in KNOWN}
                case.body = {**asked, "job": "tones", "n": 1, "seconds": 0.25}
            status = case.call().status_code
            assert status < 500, (label, case.body)
            answers[f"{label} {status // 100}xx"] += 1

        asked()
    studio.close()
    assert {label.rsplit(" ", 1)[0] for label in answers} == {
        each.ok().label for each in described.get_all_operations()
    }
    assert answers["POST /v1/jobs 2xx"] + answers["POST /v1/audio/generate 2xx"] > 0, answers
