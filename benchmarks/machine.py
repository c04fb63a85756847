"""The cores of this machine, shared out between what is measured and what measures."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def cores() -> tuple[set[int], set[int]]:
    """Cores for the server and for the client: half each, one each on a machine of two."""
    if not hasattr(os, "sched_getaffinity"):
        return set(), set()
    available = sorted(os.sched_getaffinity(0))
    half = max(1, len(available) // 2)
    return set(available[:half]), set(available[half:]) or set(available[:half])


def pin(wanted: set[int]) -> None:
    """Keep this process on some cores, where the system can."""
    if wanted:
        os.sched_setaffinity(0, wanted)


def describe() -> str:
    """One line about the machine."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def process(
    arguments: Sequence[str], path: str, on: set[int], **environment: str
) -> Iterator[tuple[str, int]]:
    """A server process of ours on some cores; yields its address and process id once ``path`` answers 200."""
    port = free_port()
    command = [sys.executable, *arguments, "--port", str(port)]
    # Cores set here are inherited; set in the child they would come after its libraries have counted them.
    before = os.sched_getaffinity(0) if on else set()
    pin(on)
    child = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    pin(before)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(address + path, child)
        yield address, child.pid
    finally:
        child.terminate()
        child.wait()


def wait_for(url: str, child: subprocess.Popen[bytes], every: float = 0.005) -> None:
    """Poll until the address answers 200; raises ``RuntimeError`` if the process ends."""
    while child.poll() is None:
        try:
            with urllib.request.urlopen(url):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(every)
    raise RuntimeError(f"the server ended with code {child.returncode}")
