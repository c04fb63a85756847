"""A first look: start a server, post a sample, save the overlay, stop the server."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import konkyo
from konkyo.errors import NotReady

SAMPLE = Path(konkyo.__file__).parent / "service" / "web" / "samples" / "chelsea.jpg"


@contextmanager
def running_server(*arguments: str, seconds: float = 60) -> Iterator[str]:
    """A server of our own on a free port of 127.0.0.1; yields its address once it is ready.

    Args:
        arguments: further options of ``konkyo serve``.
        seconds: how long it may take to be ready.

    Raises:
        NotReady: it ended, or was not ready in time; the message has its last word.
    """
    command = [sys.executable, "-m", "konkyo", "serve", "--port", "0", "--drain-seconds", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own command
    try:
        assert process.stdout is not None
        address = process.stdout.readline().partition(" on ")[2].strip()
        _wait_until_ready(process, address, seconds)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _wait_until_ready(process: subprocess.Popen[str], address: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    problem = "it did not start"
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{address}/readyz"):  # noqa: S310 - our own address
                return
        except urllib.error.HTTPError as error:
            problem = error.read().decode()
        except (urllib.error.URLError, ValueError) as error:
            problem = str(error)
        time.sleep(0.05)
    raise NotReady(f"the server is not ready: {problem}")


def ask(address: str, model: str, image: bytes, query: str = "") -> dict[str, Any]:
    """POST an image to ``:explain`` and return the answer."""
    request = urllib.request.Request(  # noqa: S310 - our own address
        f"{address}/v1/models/{model}:explain?{query}", data=image, headers={"content-type": "image/jpeg"}
    )
    with urllib.request.urlopen(request) as response:  # noqa: S310
        answer: dict[str, Any] = json.load(response)
    return answer
