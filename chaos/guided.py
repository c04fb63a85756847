"""The decoder under a fuzzer that is guided by coverage (Atheris, of libFuzzer): new branches are followed.

``python -m chaos.guided FILE`` sees an input again that it has written down.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import warnings

from chaos import files
from chaos.scenario import Context, NotRunError, Scenario

SECONDS_EACH = 5
MEMORY_MIB = 800
MAX_BYTES = 16_384


def run(context: Context) -> None:
    """Begin with the honest files; the fuzzer ends the process at the first fault."""
    if importlib.util.find_spec("atheris") is None:
        raise NotRunError("there is no atheris for this Python")
    corpus = context.folder / "corpus"
    corpus.mkdir()
    for name, data in files.honest().items():
        (corpus / name).write_bytes(data)
    command = [
        sys.executable, "-m", "chaos.guided", str(corpus), f"-runs={context.pick(30_000, 1_000_000)}",
        f"-max_total_time={context.pick(40, 600)}", f"-seed={context.seed + 1}", f"-timeout={SECONDS_EACH}",
        f"-rss_limit_mb={MEMORY_MIB}", f"-max_len={MAX_BYTES}", f"-artifact_prefix={context.folder}/fault-",
        "-print_final_stats=1",
    ]  # fmt: skip
    with (context.folder / "guided.log").open("wb") as log:
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    text = (context.folder / "guided.log").read_text(errors="replace")
    found = sorted(path.name for path in context.folder.glob("fault-*"))
    context.figures |= {
        "files": _last(text, r"number_of_executed_units: +(\d+)"),
        "branches": _last(text, r"cov: (\d+)"),
        "kept_for_new_branches": len(list(corpus.iterdir())) - len(files.honest()),
        "most_memory_mib": _last(text, r"peak_rss_mb: +(\d+)"),
    }
    for name in found:
        data = (context.folder / name).read_bytes()
        context.figures[name] = data[:200].hex()
    context.hold(code == 0 and not found, f"exit code {code}, {found}: {text[-1500:]}")


def _last(text: str, pattern: str) -> int:
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def main() -> None:
    """What libFuzzer calls."""
    import atheris

    with atheris.instrument_imports(include=["PIL", "konkyo"]):
        from PIL import (
            BmpImagePlugin,
            Image,
            JpegImagePlugin,
            PngImagePlugin,
            TiffImagePlugin,
            WebPImagePlugin,
        )

        from chaos.decoding import try_one

        del BmpImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin
    Image.init()
    warnings.simplefilter("ignore")

    def one(data: bytes) -> None:
        _, fault, _ = try_one(data)
        if fault:
            raise AssertionError(fault)

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


SCENARIO = Scenario(
    "the decoder under coverage-guided fuzzing",
    f"no input ends the process, takes {SECONDS_EACH} s or {MEMORY_MIB} MiB, or raises what is no image "
    "error",
    run,
)

if __name__ == "__main__":
    main()
