"""Requests to a server that may be slow, busy or away for a while: one connection, tries, pauses and a rate."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable, Mapping
from typing import final
from urllib.parse import urlsplit

from assay.errors import ModelError, SettingError

_AGAIN = {408, 425, 429, 500, 502, 503, 504}  # answers of a server that may do better later
_LONGEST = 60.0  # seconds between two tries
_FAILURES = (OSError, http.client.HTTPException)


@final
class Endpoint:
    """One address that JSON is posted to.

    Args:
        url: http or https.
        headers: sent with every request.
        rate: inputs a second at most; None for as fast as it goes.
        timeout: seconds to wait for an answer.
        retries: further tries after a failure that may pass.
        backoff: seconds before the first of them; doubled before each further one, to a minute at most. A server that
            names a time itself (Retry-After) is given it.
        sleep: how to wait.

    Raises:
        SettingError: the address is none, or a setting is out of range.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        rate: float | None = None,
        timeout: float = 30.0,
        retries: int = 5,
        backoff: float = 0.5,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._connection: http.client.HTTPConnection | None = None
        place = urlsplit(url)
        if place.scheme not in ("http", "https") or not place.hostname:
            raise SettingError(f"an address looks like http://host:port/path; got {url!r}.")
        for name, value in (("rate", rate), ("timeout", timeout)):
            if value is not None and not value > 0:
                raise SettingError(f"{name} must be above 0; got {value}.")
        if retries < 0 or backoff < 0:
            raise SettingError(f"retries and backoff must not be negative; got {retries} and {backoff}.")
        self.url, self.timeout, self.rate = url, timeout, rate
        self.retries, self.backoff, self._sleep = retries, backoff, sleep
        self._secure, self._host, self._port = place.scheme == "https", place.hostname, place.port
        self._path = (place.path or "/") + (f"?{place.query}" if place.query else "")
        self._headers = {"Content-Type": "application/json", "Accept": "application/json", **(headers or {})}
        self._free = 0.0  # when the next request may leave, by the monotonic clock

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_connection": None, "_free": 0.0}

    def post(self, body: bytes, inputs: int) -> bytes:
        """The answer to a request about so many inputs.

        Raises:
            ModelError: there is none after all tries, or the server refuses the request.
        """
        reason = ""
        for attempt in range(1 + self.retries):
            self._wait(inputs)
            pause = min(self.backoff * 2**attempt, _LONGEST)
            try:
                status, answer, asked = self._exchange(body)
            except _FAILURES as failure:
                reason = f"{type(failure).__name__}: {failure}"
            else:
                if status == 200:
                    return answer
                words = answer[:200].decode(errors="replace").strip()
                reason = f"HTTP {status}{f': {words}' if words else ''}"
                if status not in _AGAIN:
                    raise ModelError(f"{self.url} refused a request about {inputs} inputs ({reason}).")
                pause = max(pause, asked)
            if attempt < self.retries:
                self._sleep(pause)
        raise ModelError(
            f"{self.url} gave no answer in {1 + self.retries} tries; the last one ended with {reason}. Start the "
            "server again, or allow more with #retries=, #timeout= or #rate= behind the address."
        )

    def _exchange(self, body: bytes) -> tuple[int, bytes, float]:
        """Status, answer, and the seconds that the server asks to wait."""
        if self._connection is None:
            self._connection = self._connect()
        try:
            self._connection.request("POST", self._path, body, self._headers)
            answer = self._connection.getresponse()
            return answer.status, answer.read(), _seconds(answer.headers.get("Retry-After"))
        except _FAILURES:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the connection; the next request makes another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __del__(self) -> None:
        self.close()

    def _connect(self) -> http.client.HTTPConnection:
        if self._secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._host, self._port, timeout=self.timeout, context=context)
        return http.client.HTTPConnection(self._host, self._port, timeout=self.timeout)

    def _wait(self, inputs: int) -> None:
        """Keep to the rate."""
        if self.rate is None:
            return
        now = time.monotonic()
        if self._free > now:
            self._sleep(self._free - now)
        self._free = max(self._free, now) + inputs / self.rate


def _seconds(text: str | None) -> float:
    """A Retry-After in seconds; a date is left aside."""
    try:
        return min(max(float(text or 0), 0.0), _LONGEST)
    except ValueError:
        return 0.0
