"""How much and how long is read from an address: `AddressLimits`, and the `TransferGuard` that keeps them."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from attncli.errors import InputError, OptionError
from attncli.text import shorten

_MIN_BYTES_PER_SECOND = 1024  # of a body, on average
_GRACE_SECONDS = 30.0  # before the average counts
_SECONDS_BETWEEN_LOOKS = 0.2  # at how long a read takes
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([a-z]*)", re.ASCII)
_BYTES_BY_UNIT = {"": 1, "b": 1, "bytes": 1}
_BYTES_BY_UNIT |= {f"{letter}b": 1000**i for i, letter in enumerate("kmgt", 1)}
_BYTES_BY_UNIT |= {f"{letter}ib": 1024**i for i, letter in enumerate("kmgt", 1)}
_TIME = re.compile(r"(\d{1,6}(?:\.\d{1,6})?) ?(s|min|m|h|)", re.ASCII)
_SECONDS_BY_UNIT = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}


@dataclass(frozen=True)
class AddressLimits:
    """How much is read from an address, and for how long it may be waited for, connecting included."""

    max_bytes: int = 2 * 2**30
    max_seconds: float = 600.0


def parse_max_size(text: str) -> int:
    """Parse a size: bytes, or a number with a unit, of thousands (500MB) or of 1024 (2GiB).

    Raises:
        OptionError: it is none.
    """
    match = _SIZE.fullmatch(text.lower())
    count = int(float(match[1]) * _BYTES_BY_UNIT.get(match[2], 0)) if match else 0
    if count < 1:
        raise OptionError(
            "bad-option",
            f"--max-size must be a size, not {shorten(text)}",
            help="such as 500MB, 2GiB, or a number of bytes",
        )
    return count


def parse_max_time(text: str) -> float:
    """Parse a time, in seconds unless it has another unit: 90, 90s, 10m, 2h.

    Raises:
        OptionError: it is none.
    """
    match = _TIME.fullmatch(text)
    seconds = float(match[1]) * _SECONDS_BY_UNIT[match[2]] if match else 0.0
    if seconds <= 0:
        raise OptionError(
            "bad-option", f"--max-time must be a time, not {shorten(text)}", help="such as 90 (seconds), 10m or 2h"
        )
    return seconds


class TransferGuard:
    """Keeps the limits of one address: what was read, and how long it was waited for; our own computing does not count.

    A thread looks at how long a read takes, and shuts its sockets where that is too long: a server that sends a byte now
    and then would outlast the timeout of every single read.
    """

    def __init__(self, name: str, limits: AddressLimits) -> None:
        self.name, self.limits = name, limits
        self.bytes_read, self.seconds_waited, self.seconds_before_body = 0, 0.0, 0.0
        self.waiting_since: float | None = None
        self.sockets: list[socket.socket] = []  # duplicates, which stay valid whatever TLS does to the original
        self.closed = threading.Event()

    def start_watching(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._watch, daemon=True).start()

    def add_socket(self, connection: socket.socket) -> None:
        """Remember a connection that is to be shut when time is up."""
        self.sockets.append(connection.dup())

    def _watch(self) -> None:
        while not self.closed.wait(_SECONDS_BETWEEN_LOOKS):
            if self._has_timed_out():
                for connection in self.sockets:
                    with suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)

    def _has_timed_out(self) -> bool:
        since = self.waiting_since
        waiting = 0.0 if since is None else time.monotonic() - since
        return self.seconds_waited + waiting > self.limits.max_seconds

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of the block as waiting.

        Raises:
            InputError: that took too long, whatever else the block raised.
        """
        self.waiting_since = started = time.monotonic()
        try:
            yield
        finally:
            self.waiting_since = None
            self.seconds_waited += time.monotonic() - started
            if self._has_timed_out():
                message = f"{self.name} takes longer than {self.limits.max_seconds:g} s"
                raise InputError("too-slow", message, help="--max-time 1h waits for an hour")

    def begin_body(self, promised_bytes: int | None) -> None:
        """Take note that the body follows, and how long it is, where that is known.

        Raises:
            InputError: it is too long.
        """
        self.seconds_before_body = self.seconds_waited
        if promised_bytes is not None and promised_bytes > self.limits.max_bytes:
            raise self._too_large_error()

    def count_bytes(self, count: int) -> None:
        """Count bytes of the body.

        Raises:
            InputError: they are too many, or come too slowly.
        """
        self.bytes_read += count
        if self.bytes_read > self.limits.max_bytes:
            raise self._too_large_error()
        seconds = self.seconds_waited - self.seconds_before_body
        if count and seconds > _GRACE_SECONDS and self.bytes_read < seconds * _MIN_BYTES_PER_SECOND:
            message = f"{self.name} arrives too slowly: {self.bytes_read:,} bytes in {seconds:,.0f} s"
            raise InputError("too-slow", message, help="try again later, or download it by other means")

    def _too_large_error(self) -> InputError:
        message = f"{self.name} holds more than {self.limits.max_bytes:,} bytes"
        return InputError("too-large", message, help="--max-size 4GiB allows 4 GiB")

    def stop_watching(self) -> None:
        """Stop looking."""
        self.closed.set()
        while self.sockets:
            self.sockets.pop().close()
