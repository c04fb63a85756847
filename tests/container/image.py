"""The image without a registry: builds the cpu target of the Dockerfile, for the tests beside it.

``python tests/container/image.py OUT`` leaves its root file system and ``image.json``, its configuration,
in OUT. The base image is made here, of the same Debian as the one that the Dockerfile names. Where that
is not possible (it takes root, buildah and mmdebstrap) it says so, and the tests are skipped.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
BASE = "konkyo-base"
SUITE = "bookworm"
# As in the slim image: no documentation, manual pages or translations, and no waiting for the disk.
SLIM = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "force-unsafe-io",
)
# Likewise /bin is /usr/bin from the start; a package that would see to it needs all of Perl.
MERGED = ("--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", "--include=usr-is-merged")
PIP_OPTIONS = ("index-url", "extra-index-url", "find-links", "cert", "proxy", "trusted-host")
CERTIFICATES = "/mnt/certificates"


def run(*command: str | Path) -> str:
    """What a program prints; what it says beside that is shown."""
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


class Buildah:
    """buildah with a storage of its own, and without a daemon."""

    def __init__(self, folder: Path) -> None:
        self._command = (
            "buildah",
            *("--root", str(folder / "storage"), "--runroot", str(folder / "run")),
            *("--storage-driver", storage_driver(folder)),
        )

    def __call__(self, *arguments: str | Path) -> str:
        return run(*self._command, *arguments)


def storage_driver(folder: Path) -> str:
    """Overlays where the kernel allows them; else whole copies, which takes longer."""
    places = {name: folder / f"try-{name}" for name in ("lower", "upper", "work", "merged")}
    for place in places.values():
        place.mkdir()
    options = ",".join(f"{name}dir={places[name]}" for name in ("lower", "upper", "work"))
    mounted = subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", options, places["merged"]], stderr=subprocess.DEVNULL
    )
    if mounted.returncode != 0:
        return "vfs"
    run("umount", places["merged"])
    return "overlay"


def leave(folder: Path) -> None:
    """Undo what buildah keeps mounted."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
    for place in sorted((place for place in mounts if place.startswith(f"{folder}/")), reverse=True):
        run("umount", place)


def make_base(buildah: Buildah, folder: Path) -> None:
    """An image of the smallest Debian, named ``BASE``."""
    archive = folder / "base.tar"
    options = [f"--dpkgopt={option}" for option in SLIM]
    run("mmdebstrap", "--quiet", "--variant=minbase", *MERGED, *options, SUITE, archive)
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, archive, "/")
    buildah("commit", "--quiet", "--rm", container, BASE)
    archive.unlink()


def pip_inside(folder: Path) -> list[str]:
    """Options of the build that let pip find packages where pip finds them here.

    Its settings are a secret of the build; the folders that they name are mounted.
    """
    listed = run(sys.executable, "-m", "pip", "config", "list")
    found: dict[str, dict[str, None]] = {}
    for name, value in re.findall(r"^(?:global|install|:env:)\.([\w-]+)='(.*)'$", listed, re.MULTILINE):
        if name in PIP_OPTIONS:
            found.setdefault(name, {}).update(dict.fromkeys(re.split(r"\\n|\s+", value)))
    folders = {Path(word.removeprefix("file://")) for word in found.get("find-links", {})}
    # The pages of an index that is a folder lead to files beside it.
    folders |= {Path(word.removeprefix("file://")).parent for word in found.get("extra-index-url", {})}
    volumes = [(place, place) for place in sorted(folders) if place.is_absolute() and place.is_dir()]
    if certificates := found.pop("cert", None):  # not in its own place, which belongs to a package
        found["cert"] = {CERTIFICATES: None}
        volumes.append((Path(*certificates), Path(CERTIFICATES)))
    config = configparser.ConfigParser(interpolation=None)
    config["global"] = {name: "\n".join(words) for name, words in found.items()}
    with (folder / "pip.conf").open("w", encoding="utf-8") as file:
        config.write(file)
    mounts = [f"--volume={outside}:{inside}:ro" for outside, inside in volumes]
    return [f"--secret=id=pip.conf,src={folder / 'pip.conf'}", *mounts]


def revision() -> str:
    """The commit, or nothing where this is no checkout."""
    try:
        return run("git", "rev-parse", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return ""


def version() -> str:
    found = re.search(r'__version__ = "(.+)"', (ROOT / "src/konkyo/__init__.py").read_text(encoding="utf-8"))
    assert found
    return found[1]


def build(out: Path, target: str = "cpu") -> None:
    """Build a target; its root file system and configuration into ``out``."""
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=out) as scratch, contextlib.ExitStack() as stack:
        folder = Path(scratch).resolve()
        stack.callback(leave, folder)
        buildah = Buildah(folder)
        make_base(buildah, folder)
        buildah(
            *("build", "--isolation=chroot", "--layers=false", "--format=docker", f"--target={target}"),
            *(f"--build-arg={name}_BASE={BASE}" for name in ("CPU", "CUDA")),
            *(f"--build-arg=VERSION={version()}", f"--build-arg=REVISION={revision()}"),
            *pip_inside(folder),
            *(f"--tag={target}", "."),
        )
        (out / "image.json").write_text(buildah("inspect", "--type=image", target), encoding="utf-8")
        run("cp", "--archive", buildah("mount", buildah("from", target)), out / "rootfs")


def main() -> None:
    out = Path(sys.argv[1])
    shutil.rmtree(out, ignore_errors=True)
    missing = [tool for tool in ("buildah", "mmdebstrap") if shutil.which(tool) is None]
    if missing or os.getuid() != 0:
        print(f"no image is built: that takes {' and '.join(missing) or 'root'}")
        return
    build(out, *sys.argv[2:])
    print(f"the image is in {out}: {run('du', '-s', '--block-size=1M', out / 'rootfs').split()[0]} MiB")


if __name__ == "__main__":
    main()
