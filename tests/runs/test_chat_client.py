"""Asking an endpoint, against a server on the loopback: answers, the cache, attempts, and errors in words."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from endpoint import said

from spatial_lightning.runs.chat import Chat, ChatError
from spatial_lightning.runs.config import ConfigError


@pytest.fixture
def make(endpoint, tmp_path) -> Callable[..., Chat]:
    def chat(**fields: Any) -> Chat:
        given = {"base_url": endpoint.url, "model": "judge", "cache": tmp_path / "answers", "backoff_s": 0.0}
        return Chat(**given | fields)

    return chat


def test_a_question_is_put_greedily_and_its_answer_returned(endpoint, make, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "secret")
    endpoint.replies = [said("größer ✓")]
    assert make(key_variable="JUDGE_KEY", extra={"seed": 3})("Who?") == "größer ✓"
    assert endpoint.asked == [
        {
            "path": "/v1/chat/completions",
            "model": "judge",
            "messages": [{"role": "user", "content": "Who?"}],
            "temperature": 0,
            "max_tokens": 256,
            "seed": 3,
        }
    ]
    assert endpoint.headers[0]["Authorization"] == "Bearer secret"


def test_without_a_key_none_is_sent(endpoint, make):
    endpoint.replies = [said("x")]
    make()("?")
    assert "Authorization" not in endpoint.headers[0]


def test_an_answer_is_asked_for_once_for_the_same_content(endpoint, make, tmp_path):
    endpoint.replies = [said("first"), said("second"), said("third"), said("fourth")]
    assert [make()("a"), make()("a"), make(timeout_s=5.0)("a")] == ["first"] * 3
    assert make()("b") == "second"
    assert make(model="other")("a") == "third"
    assert make(max_tokens=8)("a") == "fourth"
    assert len(endpoint.asked) == 4
    files = sorted((tmp_path / "answers").rglob("*.*"))
    assert [file.suffix for file in files] == [".json"] * 4
    assert {json.loads(file.read_text())["answer"] for file in files} == {"first", "second", "third", "fourth"}


def test_without_a_cache_every_question_is_asked_anew(endpoint, make):
    endpoint.replies = [said("1"), said("2")]
    chat = make(cache=None)
    assert [chat("a"), chat("a")] == ["1", "2"]


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"answer": null}', "\x00"])
def test_a_broken_file_in_the_cache_is_written_anew(endpoint, make, tmp_path, broken):
    endpoint.replies = [said("x"), said("y")]
    chat = make()
    chat("a")
    (file,) = (tmp_path / "answers").rglob("*.json")
    file.write_text(broken)
    assert chat("a") == "y"
    assert json.loads(file.read_text())["answer"] == "y"


def test_many_jobs_share_a_cache_without_half_written_answers(endpoint, make, tmp_path):
    endpoint.replies = [said("same" * 5_000)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: make()(f"question {n % 3}"), range(48)))
    assert set(answers) == {"same" * 5_000}
    assert len(list((tmp_path / "answers").rglob("*"))) - len(list((tmp_path / "answers").iterdir())) == 3


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_errors_that_pass_are_tried_again(endpoint, make, code):
    endpoint.replies = [(code, b"busy", {}), (code, b"busy", {"Retry-After": "0"}), said("now")]
    assert make()("a") == "now"
    assert len(endpoint.asked) == 3


def test_the_server_says_how_long_to_wait_and_else_waits_double(endpoint, make, monkeypatch):
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    dated = {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}
    endpoint.replies = [(429, b"", {"Retry-After": "2.5"}), (503, b"", {}), (429, b"", dated),
                        (429, b"", {"Retry-After": "9999"}), said("ok")]  # fmt: skip
    assert make(backoff_s=1.0)("a") == "ok"
    assert waited == [2.5, 2.0, 4.0, 60.0]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (401, r"401 \(the API key is missing or wrong: see key_variable\): no such key"),
        (403, r"403 \(the API key may not use this model"),
        (404, r"404 \(there is no such address or model: see base_url"),
        (400, r"400 \(see extra for settings of the request\)"),
    ],
)
def test_refusals_are_final_and_said_in_words(endpoint, make, tmp_path, code, words):
    endpoint.replies = [(code, b"no such key", {})]
    with pytest.raises(ChatError, match=words):
        make()("a")
    assert len(endpoint.asked) == 1
    assert not list((tmp_path / "answers").rglob("*.json"))


def test_a_server_that_stays_busy_is_given_up(endpoint, make):
    endpoint.replies = [(429, b"slow down", {})]
    with pytest.raises(ChatError, match=r"429 \(too many requests\): slow down; gave up after 3 attempts"):
        make(retries=2)("a")
    assert len(endpoint.asked) == 3


def test_a_key_is_not_carried_to_another_address(endpoint, make, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "secret")
    endpoint.replies = [(302, b"", {"Location": f"{endpoint.url}/elsewhere"})]
    with pytest.raises(ChatError, match=r"moved to .*/elsewhere: give that as base_url"):
        make(key_variable="JUDGE_KEY")("a")
    assert len(endpoint.asked) == 1


def test_a_refused_connection_is_said_in_words(make, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ChatError, match=rf"127.0.0.1:{port}.*connection refused: is the server running.* 2 attempts"):
        make(base_url=f"http://127.0.0.1:{port}/v1", retries=1)("a")


def test_a_server_that_never_answers_is_given_up(make):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(ChatError, match="no answer within 0.1 s: see timeout_s"):
            make(base_url=f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.1, retries=0)("a")


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", b"[]", b'{"choices": []}', b'{"choices": [{"message": {"content": null}}]}', b"\xff\xfe"],
)
def test_a_reply_of_another_form_is_said_in_words(endpoint, make, tmp_path, content):
    endpoint.replies = [(200, content, {})]
    with pytest.raises(ChatError, match=r"no chat completion with choices\[0\].message.content"):
        make()("a")
    assert not list((tmp_path / "answers").rglob("*.json"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"base_url": "localhost:8000"}, "must start with http:// or https://"),
        ({"model": ""}, "model is empty"),
        ({"retries": -1}, "retries is -1"),
        ({"timeout_s": 0.0}, "timeout above 0"),
        ({"key_variable": "NO_SUCH_KEY_VARIABLE"}, "NO_SUCH_KEY_VARIABLE holds no API key"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_asked(make, fields, words):
    with pytest.raises(ConfigError, match=words):
        make(**fields)
