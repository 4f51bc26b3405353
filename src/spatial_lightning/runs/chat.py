"""Language models behind an OpenAI-compatible endpoint, asked once: every answer is kept on disk by the content of its prompt."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import Any, final

from spatial_lightning.runs.config import ConfigError

_AGAIN = (408, 409, 425, 429)
_LONGEST_WAIT = 60.0


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: an API key goes to the address that was given and to no other."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        """See the base class."""


_OPENER = urllib.request.build_opener(_StayHere)


class ChatError(RuntimeError):
    """An endpoint that gave no answer; the message says which, what it said and what to do."""


@final
@dataclass(frozen=True)
class Chat:
    """Asks one question at a time, greedily: ``chat(prompt)`` is the model's answer.

    Errors that pass (a busy server, one that is starting, a lost connection) are tried again after 1, 2, 4, ... times
    ``backoff``, or after as long as the server says, a minute at most.

    Attributes:
        base_url: address of the endpoint up to its version, e.g. ``http://localhost:8000/v1``.
        model: name of the model, as the endpoint knows it.
        cache: folder of answers, which any number of jobs may share; None asks anew each time. An answer is found again by
            model, prompt and settings; the endpoint's address and the key do not count.
        key_variable: environment variable that holds the API key; None sends none.
        max_tokens: longest answer in tokens; None leaves it to the endpoint.
        timeout_s: seconds to wait for an answer.
        retries: further attempts after the first.
        backoff_s: seconds before the first further attempt.
        extra: further fields of the request, e.g. ``{"seed": 0}``; they win over those that are set here.
    """

    base_url: str
    model: str
    cache: Path | str | None = None
    key_variable: str | None = None
    max_tokens: int | None = 256
    timeout_s: float = 60.0
    retries: int = 5
    backoff_s: float = 1.0
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise ConfigError(
                f"base_url is {self.base_url!r}; it must start with http:// or https://, and end e.g. in /v1"
            )
        if not self.model:
            raise ConfigError("model is empty; name a model as the endpoint knows it")
        if self.retries < 0 or not self.timeout_s > 0 or not self.backoff_s >= 0:
            raise ConfigError(
                f"retries is {self.retries}, timeout_s {self.timeout_s}, backoff_s {self.backoff_s}; allowed: 0 or more "
                "retries, a timeout above 0 and a backoff of 0 or more seconds"
            )
        self._key()

    def __call__(self, prompt: str) -> str:
        """The model's answer to ``prompt``, from the cache where it is there.

        Raises:
            ChatError: the endpoint cannot be reached, refuses, or answers something else.
        """
        body = self._body(prompt)
        file = self._file(body)
        if file is not None and (kept := _read(file)) is not None:
            return kept
        answer = _content(self._post(json.dumps(body).encode()), self._address)
        if file is not None:
            _write(file, {"request": body, "answer": answer})
        return answer

    def kept(self, prompt: str) -> str | None:
        """The answer in the cache; None where there is none. Nothing is asked."""
        file = self._file(self._body(prompt))
        return None if file is None else _read(file)

    def _body(self, prompt: str) -> dict[str, Any]:
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            **({} if self.max_tokens is None else {"max_tokens": self.max_tokens}),
            **self.extra,
        }

    @property
    def _address(self) -> str:
        return f"{self.base_url.rstrip('/')}/chat/completions"

    def _key(self) -> str | None:
        if self.key_variable is None:
            return None
        if not (key := os.environ.get(self.key_variable)):
            raise ConfigError(
                f"environment variable {self.key_variable} holds no API key: set it, or key_variable=null for an endpoint "
                "that needs none"
            )
        return key

    def _file(self, body: Mapping[str, Any]) -> Path | None:
        if self.cache is None:
            return None
        digest = hashlib.blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=16).hexdigest()
        return Path(self.cache) / digest[:2] / f"{digest}.json"

    def _post(self, data: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        if key := self._key():
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self._address, data, headers, method="POST")
        for attempt in range(self.retries + 1):
            try:
                with _OPENER.open(request, timeout=self.timeout_s) as reply:
                    return reply.read()
            except urllib.error.HTTPError as error:
                problem, wait = _refusal(error), _asked_to_wait(error.headers)
                if error.code not in _AGAIN and error.code < 500:
                    raise ChatError(f"{self._address}: {problem}") from None
            except (OSError, HTTPException) as error:
                problem, wait = _lost(error, self.timeout_s), None
            if attempt < self.retries:
                time.sleep(min(_LONGEST_WAIT, self.backoff_s * 2**attempt if wait is None else wait))
        raise ChatError(f"{self._address}: {problem}; gave up after {self.retries + 1} attempts")


def _refusal(error: urllib.error.HTTPError) -> str:
    with error:
        said = error.read(2_000).decode("utf-8", "replace").strip()
    advice = {
        401: "the API key is missing or wrong: see key_variable",
        403: "the API key may not use this model: see key_variable and model",
        404: "there is no such address or model: see base_url, which ends e.g. in /v1, and model",
        429: "too many requests",
    }.get(error.code)
    if advice is None and error.code < 400:
        advice = f"it moved to {error.headers.get('Location')}: give that as base_url"
    advice = advice or ("see extra for settings of the request" if error.code < 500 else "the server failed")
    return f"the endpoint answered {error.code} ({advice})" + (f": {said[:300]}" if said else "")


def _lost(error: Exception, timeout_s: float) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return f"no answer within {timeout_s:g} s: see timeout_s"
    if isinstance(reason, ConnectionRefusedError):
        return "connection refused: is the server running, and base_url right?"
    return f"connection failed ({reason or type(error).__name__}): see base_url"


def _asked_to_wait(headers: Message) -> float | None:
    """Seconds of a ``Retry-After`` header; None without one, or where it names a date."""
    try:
        seconds = float(headers.get("Retry-After", ""))
    except ValueError:
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _content(reply: bytes, address: str) -> str:
    try:
        content = json.loads(reply)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        content = None
    if not isinstance(content, str):
        shown = reply[:300].decode("utf-8", "replace")
        raise ChatError(f"{address}: the reply is no chat completion with choices[0].message.content: {shown}")
    return content


def _read(file: Path) -> str | None:
    """The kept answer; None where there is none, or a file that cannot be read, which is then written anew."""
    try:
        answer = json.loads(file.read_text(encoding="utf-8"))["answer"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return answer if isinstance(answer, str) else None


def _write(file: Path, content: Mapping[str, Any]) -> None:
    """Write in one step under a name of its own, so that jobs that share the folder never see half of an answer."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=file.stem, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as part:
            json.dump(content, part, ensure_ascii=False)
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
