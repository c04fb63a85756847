"""Draws the pictures of ``gallery.md`` through a running server: ``python docs/gallery.py``."""

from __future__ import annotations

import base64
import io
import json
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from konkyo.service.demo import running_server

HERE = Path(__file__).parent
SAMPLES = HERE.parent / "src/konkyo/service/web/samples"
PHOTOS = "efficientnet-lite0-imagenet"
LONG = ("occlusion", "rise")


@dataclass(frozen=True)
class Cell:
    """One picture: a sample, and how it is asked about; no method is the photograph itself."""

    sample: str
    method: str | None = None
    target: str | None = None
    model: str = PHOTOS
    part: str = "positive"
    title: str | None = None
    truth: str | None = None


def ask(address: str, cell: Cell) -> dict[str, Any]:
    """The answer, of a job where the method is a long one."""
    pixels = cell.method in ("guided-backprop", "deconvnet", "guided-gradcam", "deconv-gradcam")
    given = {
        "method": cell.method,
        "target": cell.target,
        "truth": cell.truth,
        "map": "none",
        "frame": "input",
        "overlay": "grey" if pixels else "blend",
        "part": "both" if pixels else cell.part,
        "colormap": "signed" if cell.part == "both" else "jet",
        "alpha": "0.85" if cell.part == "both" else "0.5",
    }
    query = urlencode({key: value for key, value in given.items() if value is not None})
    url = f"{address}/v1/models/{cell.model}:explain?{query}"
    body = (SAMPLES / cell.sample).read_bytes()
    answer = _open(urllib.request.Request(url, body, {"content-type": "image/jpeg"}))  # noqa: S310 - our own address
    if cell.method not in LONG:
        return answer
    status = urllib.request.Request(f"{address}/v1/jobs/{answer['id']}")  # noqa: S310 - our own address
    while (job := _open(status))["state"] != "done":
        if job["state"] not in ("queued", "running"):
            raise RuntimeError(f"{cell.method}: {job}")
        time.sleep(0.2)
    result: dict[str, Any] = job["result"]
    return result


def _open(request: urllib.request.Request) -> dict[str, Any]:
    with urllib.request.urlopen(request) as response:  # noqa: S310 - our own address
        answer: dict[str, Any] = json.load(response)
    return answer


def pictures(address: str, cell: Cell) -> list[tuple[str, np.ndarray]]:
    """Titles and pictures of a cell: one, or two where a true class is given."""
    if cell.method is None:
        image = Image.open(SAMPLES / cell.sample).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side)).resize((224, 224))
        return [(cell.title or "photograph", np.asarray(square))]
    answer = ask(address, cell)
    shown = []
    for entry in answer["explanation"].get("maps") or [answer["explanation"]]:
        name = entry["target"]["label"] if entry.get("target") else answer["label"]
        role = {"predicted": "predicted: ", "true": "true: "}.get(entry.get("role", ""), "")
        image = Image.open(io.BytesIO(base64.b64decode(entry["overlay"]["data"])))
        shown.append((cell.title or f"{role}{name}", np.asarray(image)))
    return shown


def draw(address: str, name: str, rows: Sequence[Sequence[Cell]]) -> None:
    """A grid of pictures, as ``gallery-NAME.jpg``."""
    table = [[item for cell in row for item in pictures(address, cell)] for row in rows]
    columns = max(map(len, table))
    figure, axes = plt.subplots(
        len(table), columns, figsize=(1.9 * columns, 2.15 * len(table)), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for row, line in zip(axes, table, strict=True):
        for axis, (title, picture) in zip(row, line, strict=False):
            axis.imshow(picture)
            axis.set_title(title, fontsize=8)
    figure.savefig(HERE / f"gallery-{name}.jpg", dpi=110, pil_kwargs={"quality": 85})
    plt.close(figure)


def methods(sample: str, target: str | None = None) -> list[Cell]:
    """One photograph by every method."""
    names = (
        "gradcam", "cam", "gradcam-plus-plus", "hirescam", "layercam", "occlusion", "rise",
        "guided-backprop", "guided-gradcam", "deconvnet",
    )  # fmt: skip
    return [Cell(sample), *(Cell(sample, name, target, title=name) for name in names)]


def main() -> None:
    """Every picture of the gallery."""
    with running_server("--log-level", "warning") as address:
        cells = methods("coffee.jpg")
        draw(address, "methods", [cells[:6], cells[6:]])
        cells = methods("astronaut.jpg", "football helmet")
        draw(address, "methods-astronaut", [cells[:6], cells[6:]])
        draw(
            address,
            "two-classes",
            [
                [Cell("astronaut.jpg"), *(Cell("astronaut.jpg", "gradcam", name)
                  for name in ("football helmet", "space shuttle", "neck brace"))],
                [Cell("coffee.jpg"), *(Cell("coffee.jpg", "gradcam", name)
                  for name in ("espresso", "cup", "wooden spoon"))],
            ],
        )  # fmt: skip
        draw(
            address,
            "failure",
            [
                [Cell("chelsea.jpg"), Cell("chelsea.jpg", "gradcam", truth="tabby")],
                [Cell("astronaut.jpg"), Cell("astronaut.jpg", "gradcam", truth="space shuttle")],
                [
                    Cell("tile-break.jpg", title="tile"),
                    Cell("tile-break.jpg", "gradcam", truth="break", model="abn-magnetic-tile"),
                ],
            ],
        )
        draw(
            address,
            "counterfactual",
            [
                [Cell("astronaut.jpg"),
                 Cell("astronaut.jpg", "gradcam", target, title=f"{target}: gradcam"),
                 Cell("astronaut.jpg", "counterfactual", target, title="counterfactual"),
                 Cell("astronaut.jpg", "gradcam", target, part="both", title="for (warm), against (cool)")]
                for target in ("football helmet", "space shuttle")
            ],
        )  # fmt: skip
        variants = ("gradcam", "gradcam-absolute", "gradcam-max")
        draw(
            address,
            "variants",
            [[Cell("astronaut.jpg", method, "football helmet", title=method) for method in variants]
             + [Cell("astronaut.jpg", "gradcam", "football helmet", part="both", title="no ReLU")]],
        )  # fmt: skip


if __name__ == "__main__":
    main()
