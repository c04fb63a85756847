"""Runs programs in the root file system of an image, as a container engine would.

An engine may be missing where the tests run, or not be allowed to set up its cgroups, so this takes what
it would take: namespaces for mounts and processes, the root read-only, the image's user and environment, no
capabilities and no way to new privileges. The program is process 1. The network is the host's.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 60
"""Seconds after which a test gives up; no test that passes waits for it."""

READ_ONLY = """
mount --bind "$0" "$0"
mount -o remount,bind,ro "$0"
mount -t proc proc "$0/proc"
mount -t tmpfs tmpfs "$0/dev"
mkdir "$0/dev/shm"
mount -t tmpfs -o mode=1777,size=64m tmpfs "$0/dev/shm"
for name in null zero random urandom; do : > "$0/dev/$name"; mount --bind /dev/$name "$0/dev/$name"; done
"""
SCRATCH = """mount -t tmpfs -o mode=1777,size=64m tmpfs "$0/tmp"
"""


class Image:
    """What ``image.py`` left: a root file system, and the configuration of the image."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "rootfs"
        description = json.loads((folder / "image.json").read_text(encoding="utf-8"))
        self.config: dict[str, Any] = description["Docker"]["config"]

    def _as_user(self, command: tuple[str, ...], settings: dict[str, object]) -> list[str]:
        user, group = self.config["User"].split(":")
        variables = [f"KONKYO_{name.upper()}={value}" for name, value in settings.items()]
        return [
            *("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"),
            *("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"),
            *("env", "--ignore-environment", f"--chdir={self.config['WorkingDir']}"),
            *self.config["Env"],
            *variables,
            *command,
        ]

    def _command(self, command: tuple[str, ...], settings: dict[str, object], scratch: bool) -> list[str]:
        script = "set -e" + READ_ONLY + (SCRATCH if scratch else "") + 'exec chroot "$0" "$@"'
        return [
            *("unshare", "--mount", "--propagation=private", "--pid", "--fork"),
            *("sh", "-c", script, str(self.root)),
            *self._as_user(command, settings),
        ]

    def run(self, *command: str, scratch: bool = True, **settings: object) -> tuple[int, str]:
        """Exit code and output of a program in a new container."""
        result = subprocess.run(
            self._command(command, settings, scratch),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        return result.returncode, result.stdout.strip()

    @contextmanager
    def server(self, *, scratch: bool = True, **settings: object) -> Iterator[Server]:
        """The image's own command, on a free port; ``scratch``: with something to write to at /tmp."""
        command = (*self.config["Entrypoint"], *self.config["Cmd"])
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                self._command(command, {"port": 0, "threads": 1, **settings}, scratch),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            try:
                yield Server(self, process, settings)
            except BaseException:
                log.seek(0)
                print(log.read().decode(errors="replace"))
                raise
            finally:
                for first in _children(process):  # it does not go with its parent: it has changed its user
                    os.kill(first, signal.SIGKILL)
                process.kill()
                process.wait(PATIENCE)
                assert process.stdout is not None
                process.stdout.close()


def _children(process: subprocess.Popen[str]) -> list[int]:
    """The first process of the container, while there is one."""
    if process.poll() is not None:
        return []
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


class Server:
    """A container that serves."""

    def __init__(self, image: Image, process: subprocess.Popen[str], settings: dict[str, object]) -> None:
        self._image, self._process, self._settings = image, process, settings
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], PATIENCE)
        line = process.stdout.readline() if readable else ""
        found = re.fullmatch(r"Konkyo on (https?)://0\.0\.0\.0:(\d+)\n", line)
        assert found, line
        self.port = int(found[2])
        self.address = f"{found[1]}://127.0.0.1:{self.port}"
        [self._first] = _children(process)

    def run(self, *command: str) -> tuple[int, str]:
        """A program beside the server, with its settings, as a probe is run."""
        inside = self._image._as_user(command, {**self._settings, "port": self.port})
        result = subprocess.run(
            ["nsenter", f"--target={self._first}", "--mount", "--pid", "--root", *inside],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        return result.returncode, result.stdout.strip()

    def ready(self) -> None:
        """Wait until the image's own health check says so."""
        check = self._image.config["Healthcheck"]["Test"]
        assert check[0] == "CMD"
        give_up = time.monotonic() + PATIENCE
        while (answer := self.run(*check[1:])) != (0, ""):
            assert time.monotonic() < give_up, answer

    def stop(self) -> int:
        """Send the image's stop signal to the first process; returns the exit code."""
        os.kill(self._first, getattr(signal, self._image.config["StopSignal"]))
        return self._process.wait(PATIENCE)
