"""A judge that is asked about many answers: what it says on the way, and that nothing but words is added."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from endpoint import Endpoint, said

from spatial_lightning.evaluation import summarise
from spatial_lightning.evaluation.protocols import Choice, Judged
from spatial_lightning.records import Question
from spatial_lightning.runs import judging
from spatial_lightning.runs.chat import Chat
from spatial_lightning.runs.judging import with_progress

QUESTIONS = [Question(str(n), f"Which side, {n}?", "left", "side", ("left", "right")) for n in range(6)]
ANSWERS = ["left", "mu", "who knows", "", "hm", "perhaps"]


@pytest.fixture
def judged(endpoint: Endpoint, tmp_path: Path) -> Judged:
    endpoint.replies = [said('{"match": 1}')]
    return Judged(Choice(), Chat(endpoint.url, "any", tmp_path / "cache"))


@pytest.fixture
def four_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock is four seconds after the last."""
    ticks = itertools.count(step=4.0)
    monkeypatch.setattr(judging.time, "monotonic", lambda: next(ticks))


@pytest.mark.usefixtures("four_seconds")
def test_a_line_is_said_every_ten_seconds_and_at_the_end(judged: Judged, endpoint: Endpoint) -> None:
    heard: list[str] = []
    summary = summarise(QUESTIONS, ANSWERS, with_progress(judged, QUESTIONS, ANSWERS, heard.append))
    assert heard == [
        "3/4 answers judged (75 %)  0.25 answers/s  4 s left  0 from the cache",
        "4/4 answers judged (100 %)  0.25 answers/s  0 s left  0 from the cache",
    ]
    assert len(endpoint.asked) == 4, "neither what rules can read nor what is empty"
    assert summary == summarise(QUESTIONS, ANSWERS, judged)


@pytest.mark.usefixtures("four_seconds")
def test_what_came_out_of_the_cache_is_said_and_does_not_count_as_fast(judged: Judged, endpoint: Endpoint) -> None:
    summarise(QUESTIONS[:3], ANSWERS[:3], judged)
    heard: list[str] = []
    summarise(QUESTIONS, ANSWERS, with_progress(judged, QUESTIONS, ANSWERS, heard.append))
    assert heard[0] == "3/4 answers judged (75 %)  0.08 answers/s  12 s left  2 from the cache"
    assert heard[-1].endswith("0 s left  2 from the cache")
    assert len(endpoint.asked) == 4


def test_without_a_judge_or_anything_to_judge_nothing_changes(judged: Judged) -> None:
    heard: list[str] = []
    assert with_progress(Choice(), QUESTIONS, ANSWERS, heard.append) == Choice()
    assert with_progress(judged, QUESTIONS[:1], ["left"], heard.append) is judged
    assert not heard


def test_what_is_kept_is_known_without_asking(judged: Judged, endpoint: Endpoint) -> None:
    assert isinstance(judged.ask, Chat)
    assert judged.ask.kept("Is it?") is None
    assert judged.ask("Is it?") == judged.ask.kept("Is it?") == '{"match": 1}'
    assert len(endpoint.asked) == 1
    assert Chat(endpoint.url, "any").kept("Is it?") is None
