"""What the tests do on the page, and what they see there."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from playwright.sync_api import ConsoleMessage, Page, Route, expect

GCM = "gcm-cifar10"
SQUASH = "abn-magnetic-tile"
"""One scale; squashes an image into its input."""
CROP = "abn-crop"
"""Three scales; sees the middle of an image."""
IMAGENET = "efficientnet-lite0-imagenet"
"""1,000 classes, and every kind of explanation."""

EXPLAIN = re.compile(r":explain\?")
DESCRIBE = re.compile(r"/v1/models/[^/:?]+$")

# Chromium may drop a body before a test reads it, and shows no body with a file in it, so the page keeps its
# answers and its forms itself; a form as the bytes that the browser makes of it.
KEEP = """
    const plainly = fetch;
    window.answers = [];
    window.forms = [];
    window.fetch = async (url, options) => {
        if (options?.body instanceof FormData) {
            const request = new Request(url, options);
            const bytes = new Uint8Array(await request.arrayBuffer());
            const body = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
            forms.push({ type: request.headers.get("content-type"), body });
        }
        const response = await plainly(url, options);
        const json = response.headers.get("content-type")?.startsWith("application/json");
        if (/:explain/.test(url) && json) answers.push(await response.clone().json());
        return response;
    };
"""

Pixels = npt.NDArray[np.uint8]


class Visit:
    """One visit to the page.

    Attributes:
        page: Playwright's page.
        urls: of every request.
        complaints: errors and warnings on the console, and exceptions nobody caught.
    """

    def __init__(self, page: Page, server: str) -> None:
        self.page = page
        self.server = server
        self.urls: list[str] = []
        self.complaints: list[str] = []
        page.add_init_script(KEEP)
        page.on("request", lambda request: self.urls.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._listen)

    def _listen(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def open(self, model: str | None = GCM) -> None:
        """Open the page and choose a model; None leaves the page's own choice."""
        self.page.goto(self.server)
        # Selectors are watched in the browser; expect() would ask again and again, ever more rarely.
        self.page.wait_for_selector("#card:not([hidden])")
        if model is not None:
            self.use(model)

    def use(self, model: str) -> None:
        """Choose a model."""
        self.page.select_option("#model", model)
        self.page.wait_for_selector(f'#card-list dd:text-is("{model}, version 1")', state="attached")

    def method(self, name: str) -> dict[str, Any]:
        """Choose an explanation that is answered at once; returns the answer, once shown."""
        return self.answer_to(lambda: self.page.select_option("#method", name))

    def astronaut(self) -> dict[str, Any]:
        """The photograph with a helmet and a shuttle, by the network of 1,000 classes."""
        self.use(IMAGENET)
        return self.sample("astronaut.jpg")

    def type_class(self, selector: str, text: str) -> None:
        """Type a class, and Enter."""
        self.page.fill(selector, text)
        self.page.press(selector, "Enter")

    def sample(self, name: str) -> dict[str, Any]:
        """Choose a sample; returns the service's answer, once shown."""
        return self.answer_to(lambda: self.page.click(f'[data-sample="{name}"]'))

    def answer_to(self, action: Callable[[], object]) -> dict[str, Any]:
        """Do something that asks the service; returns the answer, once shown."""
        with self.page.expect_response(EXPLAIN):
            action()
        self.page.wait_for_selector("#figure[aria-busy=false]")
        answer: dict[str, Any] = self.page.evaluate("answers.at(-1)")
        expect(self.page.locator("#label")).to_have_text(answer["label"])
        return answer

    def form(self) -> dict[str, bytes]:
        """The parts of the last form that was sent, by name."""
        form = self.page.evaluate("forms.at(-1)")
        head = f"content-type: {form['type']}\r\n\r\n".encode()
        message = BytesParser(policy=HTTP).parsebytes(head + base64.b64decode(form["body"]))
        return {
            str(part.get_param("name", header="content-disposition")): bytes(part.get_payload(decode=True))
            for part in message.iter_parts()
        }

    def change(self, patch: Callable[[dict[str, Any]], object], url: re.Pattern[str] = EXPLAIN) -> None:
        """Alter every answer from now on before the page sees it."""

        def handle(route: Route) -> None:
            response = route.fetch()
            body = response.json()
            patch(body)
            route.fulfill(response=response, body=json.dumps(body))

        self.page.route(url, handle)

    def canvas(self, selector: str = "#canvas") -> Pixels:
        """The picture: (H, W, 3)."""
        url = self.page.locator(selector).first.evaluate("canvas => canvas.toDataURL('image/png')")
        data = base64.b64decode(url.partition(",")[2])
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def view(self, view: str | None = None, part: str | None = None, opacity: int | None = None) -> Pixels:
        """Set the view; returns the picture. Reading pixels is a round trip, so it is drawn by then."""
        for name, value in (("view", view), ("part", part)):
            if value is not None:
                self.page.locator(f"input[name={name}][value={value}]").check()
        if opacity is not None:
            self.page.locator("#opacity").fill(str(opacity))
        return self.canvas()


def warmth(picture: Pixels, box: tuple[float, float, float, float]) -> float:
    """How much redder than blue a part of a picture is; the box in shares of its sides."""
    part = _part(picture, box).astype(np.int16)
    return float((part[..., 0] - part[..., 2]).mean())


def brightness(picture: Pixels, box: tuple[float, float, float, float]) -> float:
    """How bright a part of a picture is; the box in shares of its sides."""
    return float(_part(picture, box).mean())


def _part(picture: Pixels, box: tuple[float, float, float, float]) -> Pixels:
    height, width = picture.shape[:2]
    left, top, right, bottom = box
    return picture[int(top * height) : int(bottom * height), int(left * width) : int(right * width)]


HELMET = (0.62, 0.72, 0.92, 0.92)
SHUTTLE = (0.8, 0.15, 0.92, 0.45)
"""In astronaut.jpg, both within what the network sees."""


def difference(one: Pixels, other: Pixels) -> float:
    """Mean absolute difference of two pictures of a size."""
    return float(np.abs(one.astype(np.int16) - other).mean())


def image_file(image: Image.Image, kind: str = "png", **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def field_of(answer: dict[str, Any], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """The answer's map over a picture of a size, NaN outside the crop: (H, W)."""
    spec = answer["explanation"]["map"]
    values = np.frombuffer(base64.b64decode(spec["data"]), "<f4").reshape(spec["height"], spec["width"])
    across, down = size[0] / answer["geometry"]["original"][0], size[1] / answer["geometry"]["original"][1]
    x0, y0, x1, y1 = answer["geometry"]["crop"]
    left, top, right, bottom = round(x0 * across), round(y0 * down), round(x1 * across), round(y1 * down)
    inside = Image.fromarray(values).resize((right - left, bottom - top), Image.Resampling.BILINEAR)
    field = np.full((size[1], size[0]), np.nan, np.float32)
    field[top:bottom, left:right] = np.asarray(inside)
    return field
