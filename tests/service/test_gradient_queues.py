"""Explanations that take a gradient: beside the predictions, never before them."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from faults import Gate, until
from services import FILES, PNG, Service, pictures, png, serving, zoo_settings

from konkyo.errors import NotReady
from konkyo.imaging import UInt8
from konkyo.models.bundle import Bundle, read_bundle
from konkyo.service import model as model_module
from konkyo.service.engines import make_engine, make_torch_engine
from konkyo.service.engines.base import Int64, Outputs
from konkyo.service.gradients import RETRY_SECONDS, LazyEngine
from konkyo.service.settings import Settings

GRAPH, GRADIENT = "/v1/models/graph", "/v1/models/gradient"
COUNT = 64


def post(service: Service, path: str, number: int = 1, **parameters: Any) -> asyncio.Task[httpx.Response]:
    """Image ``number``, in the background."""
    request = service.client.post(path, content=FILES[number], headers=PNG, params=parameters)
    return asyncio.create_task(request)


def values(entry: dict[str, Any]) -> np.ndarray:
    map_ = entry["map"]
    return np.frombuffer(base64.b64decode(map_["data"]), "<f4").reshape(map_["height"], map_["width"])


class Held:
    """A real gradient engine behind a gate; everything but its gradients passes."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.gate = Gate()
        self.widths: list[tuple[int, int]] = []
        self.threads: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def explain(self, method: str, images: UInt8, targets: Int64) -> Outputs:
        self.gate.pass_through()
        self.widths.append(targets.shape)  # type: ignore[arg-type]
        self.threads.add(threading.get_ident())
        return self._engine.explain(method, images, targets)  # type: ignore[no-any-return]

    def close(self) -> None:
        self._engine.close()


class Loader:
    """Makes held engines in torch, for the models of a service."""

    def __init__(self) -> None:
        self.engines: dict[str, Held] = {}
        self.fault: Exception | None = None
        self.calls = 0

    def __call__(self, bundle: Bundle, settings: Settings) -> Any:
        self.calls += 1
        if self.fault is not None:
            raise self.fault
        held = self.engines[bundle.card.name] = Held(make_torch_engine(bundle, settings))
        return held

    def open(self) -> None:
        for engine in self.engines.values():
            engine.gate.open()


def two_models(networks: Path, **changes: Any) -> Settings:
    return zoo_settings(repository=networks, engine="auto", **changes)


# Predictions do not wait


async def test_predictions_are_answered_while_a_gradient_takes_its_time(networks: Path) -> None:
    """In torch alone: the same weights, another thread, another lease; the own method of the bundle too."""
    load = Loader()
    settings = zoo_settings(repository=networks, engine="torch")
    async with serving(settings, make_engine=load) as service:
        for path, method in ((GRAPH, "gradcam"), (GRADIENT, "guided-backprop"), (GRADIENT, None)):
            engine = load.engines[path.rpartition("/")[2]]
            engine.gate.shut()
            slow = post(service, f"{path}:explain", **({"method": method} if method else {}))
            await engine.gate.entered()
            waiting = post(service, f"{path}:explain", 2, method="hirescam")
            for number in range(3, 6):
                assert (await post(service, f"{path}:predict", number)).status_code == 200
            if path == GRAPH:  # whose own method takes no gradient
                assert (await post(service, f"{path}:explain", 6)).status_code == 200
            assert not slow.done()
            assert not waiting.done()
            engine.gate.open()
            assert (await slow).status_code == (await waiting).status_code == 200
        for engine in load.engines.values():
            assert len(engine.threads) == 1


async def test_predictions_are_answered_while_torch_is_loaded_beside_onnx(
    networks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, load = Gate(), Loader()

    def slowly(bundle: Bundle, settings: Settings) -> Any:
        gate.pass_through()
        return load(bundle, settings)

    monkeypatch.setattr(model_module, "make_torch_engine", slowly)
    async with serving(two_models(networks), make_engine=make_engine) as service:
        model = service.state.repository.find("graph")
        assert service.count("gradient_load_seconds", model="graph") == 0
        gate.shut()
        asked = [post(service, f"{GRAPH}:explain", number, method="gradcam") for number in (1, 2)]
        await gate.entered()
        assert (await post(service, f"{GRAPH}:predict", 3)).status_code == 200
        assert (await post(service, f"{GRAPH}:explain", 4)).json()["explanation"]["method"] == "cam"
        assert model.engine.name == "onnx"
        gate.open()
        assert [(await task).status_code for task in asked] == [200, 200]
        assert (await post(service, f"{GRAPH}:explain", 5, method="text")).status_code == 200
        assert load.calls == 1  # once, for every method
        assert service.count("gradient_load_seconds", model="graph") > 0


async def test_a_deadline_does_not_wait_for_torch(
    networks: Path, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()

    def slowly(bundle: Bundle, settings: Settings) -> Any:
        gate.pass_through()
        return make_torch_engine(bundle, settings)

    monkeypatch.setattr(model_module, "make_torch_engine", slowly)
    async with serving(two_models(networks), make_engine=make_engine) as service:
        gate.shut()
        asked = post(service, f"{GRAPH}:explain", method="gradcam", deadline_ms=5000)
        await gate.entered()
        await clock.advance(6)
        assert (await asked).status_code == 504
        gate.open()


async def test_maps_that_show_nothing_are_counted_by_method(networks: Path) -> None:
    class Flat(Held):
        def explain(self, method: str, images: UInt8, targets: Int64) -> Outputs:
            outputs = super().explain(method, images, targets)
            return Outputs(outputs.logits, outputs.maps * (0 if method == "gradcam" else 1))

    settings = zoo_settings(repository=networks, engine="torch")
    async with serving(settings, make_engine=lambda *of: Flat(make_torch_engine(*of))) as service:
        for method in ("gradcam", "hirescam"):
            body = (await post(service, f"{GRAPH}:explain", method=method, targets="0,1")).json()
            assert body["explanation"]["status"] == ("flat" if method == "gradcam" else "ok")
        assert service.count("degenerate_maps_total", method="gradcam", reason="flat") == 2
        assert service.count("degenerate_maps_total") == 2


# What the queues hold


async def test_a_full_queue_of_one_method_refuses_nobody_else(networks: Path) -> None:
    load = Loader()
    async with serving(
        zoo_settings(repository=networks, engine="torch", queue_capacity=1), make_engine=load
    ) as service:
        engine = load.engines["graph"]
        engine.gate.shut()
        held = post(service, f"{GRAPH}:explain", method="gradcam")
        await engine.gate.entered()
        queue = service.state.repository.find("graph").batcher("gradcam")
        waiting = post(service, f"{GRAPH}:explain", 2, method="gradcam")
        await until(lambda: queue.depth == 1)
        full = await post(service, f"{GRAPH}:explain", 3, method="gradcam")
        assert (full.status_code, full.json()["error"]["code"]) == (429, "queue_full")
        other = post(service, f"{GRAPH}:explain", 3, method="layercam")
        assert (await post(service, f"{GRAPH}:explain", 3)).status_code == 200
        assert service.count("queue_depth", model="graph", kind="gradcam") == 1
        engine.gate.open()
        responses = await asyncio.gather(held, waiting, other)
        assert [response.status_code for response in responses] == [200, 200, 200]


async def test_images_times_classes_bound_a_batch(networks: Path) -> None:
    """Eight may be held: a wide question goes alone, narrow ones share; nobody is refused for it."""
    load = Loader()
    settings = zoo_settings(repository=networks, engine="torch", gradient_batch=8)
    async with serving(settings, make_engine=load) as service:
        engine = load.engines["graph"]
        engine.gate.shut()
        tasks = [post(service, f"{GRAPH}:explain", 0, method="gradcam")]
        await engine.gate.entered()
        engine.widths.clear()
        queue = service.state.repository.find("graph").batcher("gradcam")
        wide = ",".join(["0", "1", "2", "3"] * 3)
        for number, targets in enumerate([wide, "0,1", "2,3", "1", "0,1,2", "2"], start=1):
            tasks.append(post(service, f"{GRAPH}:explain", number, method="gradcam", targets=targets))
            await until(lambda: queue.depth == len(tasks) - 1)
        engine.gate.open()
        assert [response.status_code for response in await asyncio.gather(*tasks)] == [200] * 7
        assert engine.widths[0] == (1, 1)
        assert engine.widths[1] == (1, 12)
        assert all(images * classes <= 8 for images, classes in engine.widths[2:])
        assert engine.widths[2] == (4, 2)  # the one with three waits, and those behind it do not
        assert engine.widths[3] == (1, 3)


# Loading, and failing to


class Clockwork:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_failure_is_the_answer_until_it_is_tried_again(networks: Path) -> None:
    bundle = read_bundle(networks / "graph" / "1")
    clock, took = Clockwork(), []
    load = Loader()
    load.fault = OSError("no room")
    images, targets = np.zeros((1, 32, 32, 3), np.uint8), np.array([[-1]])

    def attempt() -> Any:
        clock.now += 2
        return load(bundle, Settings(device="cpu", threads=1))

    lazy = LazyEngine(attempt, "graph/1", took.append, clock)
    lazy.close()  # there is nothing yet
    for _ in range(3):
        with pytest.raises(NotReady, match=r"^graph/1 cannot be explained by gradients now: no room$"):
            lazy.explain("gradcam", images, targets)
    assert load.calls == 1
    load.fault = None
    clock.now += RETRY_SECONDS - 1
    with pytest.raises(NotReady):
        lazy.explain("gradcam", images, targets)
    clock.now += 1
    assert lazy.explain("gradcam", images, targets).maps.shape == (1, 1, 8, 8)
    lazy.explain("text", images, targets)
    assert load.calls == 2
    assert took == [2]
    lazy.close()


async def test_torch_that_fails_is_503_for_gradients_alone(
    networks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Loader()
    load.fault = ImportError("a library is missing")
    monkeypatch.setattr(model_module, "make_torch_engine", load)
    async with serving(two_models(networks), make_engine=make_engine) as service:
        refused = await post(service, f"{GRAPH}:explain", method="gradcam")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
        assert "a library is missing" in refused.json()["error"]["message"]
        assert refused.headers["retry-after"] == "1"
        assert service.count("rejected_total", reason="not_ready") == 1
        assert (await service.client.get("/readyz")).status_code == 200
        assert (await post(service, f"{GRAPH}:explain")).status_code == 200


async def test_torch_that_answers_otherwise_than_the_card_explains_nothing(
    networks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swapped(bundle: Bundle, settings: Settings) -> Any:
        return make_torch_engine(read_bundle(networks / "gradient" / "1"), settings)

    monkeypatch.setattr(model_module, "make_torch_engine", swapped)
    async with serving(two_models(networks), make_engine=make_engine) as service:
        refused = await post(service, f"{GRAPH}:explain", method="gradcam")
        assert refused.status_code == 503
        assert "the canary's logits differ from the card's" in refused.json()["error"]["message"]


async def test_a_gradient_that_is_the_models_own_decides_over_readiness(networks: Path) -> None:
    class Broken(Held):
        broken = False

        def explain(self, method: str, images: UInt8, targets: Int64) -> Outputs:
            if self.broken:
                raise RuntimeError("injected")
            return super().explain(method, images, targets)

    engines: list[Broken] = []

    def make(bundle: Bundle, settings: Settings) -> Any:
        engines.append(Broken(make_torch_engine(bundle, settings)))
        return engines[-1]

    async with serving(zoo_settings(repository=networks, engine="torch"), make_engine=make) as service:
        gradient, graph = engines  # in the order of their names
        graph.broken = True
        assert (await post(service, f"{GRAPH}:explain", method="gradcam")).status_code == 500
        assert (await service.client.get("/readyz")).status_code == 200
        graph.broken, gradient.broken = False, True
        assert (await post(service, f"{GRADIENT}:explain")).status_code == 500
        unready = await service.client.get("/readyz")
        assert unready.json()["problems"] == ["gradient/1: the explain queue fails"]
        assert (await post(service, f"{GRADIENT}:predict")).status_code == 200
        gradient.broken = False
        assert (await service.client.get("/readyz")).status_code == 200


async def test_closing_finishes_gradients_that_were_accepted(networks: Path) -> None:
    load = Loader()
    async with serving(zoo_settings(repository=networks, engine="torch"), make_engine=load) as service:
        engine = load.engines["graph"]
        engine.gate.shut()
        tasks = [post(service, f"{GRAPH}:explain", 1, method="gradcam")]
        await engine.gate.entered()
        tasks.append(post(service, f"{GRAPH}:explain", 2, method="gradcam"))
        queue = service.state.repository.find("graph").batcher("gradcam")
        await until(lambda: queue.depth == 1)
        closing = asyncio.create_task(service.state.repository.close())
        await until(lambda: queue._closing)
        for method in ("gradcam", "layercam"):  # a queue there is, and one there would have to be
            late = await post(service, f"{GRAPH}:explain", 3, method=method)
            assert (late.status_code, late.json()["error"]["code"]) == (503, "draining")
        engine.gate.open()
        assert [(await task).status_code for task in tasks] == [200, 200]
        await closing


LAZILY = """
import asyncio, sys, httpx
from pathlib import Path
from konkyo.service.app import create_app
from konkyo.service.settings import Settings

async def main():
    app = create_app(Settings(engine="auto", device="cpu", threads=1, repository=Path(sys.argv[1])))
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://konkyo", timeout=None)
    async with app.router.lifespan_context(app), client:
        await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "loading"))
        image = (Path(sys.argv[1]) / "graph/1/canary.png").read_bytes()
        assert "gradcam" in (await client.get("/v1/models")).json()["models"][0]["methods"]
        for path in ("predict", "explain", "explain?truth=2"):
            assert (await client.post(f"/v1/models/graph:{path}", content=image)).status_code == 200
        explain = "/v1/models/graph:explain?method="
        assert (await client.post(explain + "lime", content=image)).status_code == 422
        print("torch" in sys.modules)
        assert (await client.post(explain + "gradcam", content=image)).status_code == 200
        print("torch" in sys.modules)

asyncio.run(main())
"""


def test_torch_is_imported_by_the_first_request_that_needs_it(networks: Path, tmp_path: Path) -> None:
    (tmp_path / "graph").symlink_to(networks / "graph")
    command = [sys.executable, "-c", LAZILY, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout.split()) == (0, ["False", "True"]), result.stderr


# Many at once


def questions() -> list[tuple[str, dict[str, Any]]]:
    """Mixed: predictions, the models' own methods, others; a class, several, the truth; maps and none."""
    fine = ("guided-backprop", "guided-gradcam")
    coarse = ("gradcam", "counterfactual", "hirescam", "layercam", "text")
    asked: list[tuple[str, dict[str, Any]]] = []
    for number in range(COUNT):
        path = (GRAPH, GRADIENT)[number % 2]
        if number % 8 in (0, 1):
            asked.append((f"{path}:predict", {}))
            continue
        options: dict[str, Any] = {"map": ("float32", "none")[number % 7 == 0]}
        if number % 8 > 3:
            options["method"] = (*coarse, *fine)[number % 7]
        which: dict[str, Any] = ({}, {"target": number % 4}, {"targets": "3,0,1"}, {"truth": 2})[
            number // 4 % 4
        ]
        asked.append((f"{path}:explain", options | which))
    return asked


def numbers(body: dict[str, Any]) -> tuple[np.ndarray, list[np.ndarray], Any]:
    """Logits, maps, and what else must not differ."""
    logits = np.asarray([e["logit"] for e in sorted(body["top_k"], key=lambda entry: entry["index"])])
    explanation = body.get("explanation", {})
    entries = explanation.get("maps", [explanation] if explanation else [])
    maps = [values(entry) for entry in entries if entry["map"]]
    truth = body.get("truth") and body["truth"]["index"]
    return logits, maps, [explanation.get("method"), truth, [entry["target"] for entry in entries]]


@pytest.mark.parametrize("engine", ["auto", "torch"])
async def test_many_mixed_requests_at_once_answer_as_one_by_one(networks: Path, engine: str) -> None:
    files = [png(image) for image in pictures(COUNT, seed=11)]
    settings = zoo_settings(repository=networks, engine=engine)
    async with serving(settings, make_engine=make_engine) as service:

        async def ask(number: int) -> dict[str, Any]:
            path, options = questions()[number]
            response = await service.client.post(
                path, content=files[number], headers=PNG, params={"top_k": 4, **options}
            )
            assert response.status_code == 200, response.text
            return response.json()  # type: ignore[no-any-return]

        alone = [numbers(await ask(number)) for number in range(COUNT)]
        before = service.count("executions_total")
        together = [numbers(body) for body in await asyncio.gather(*map(ask, range(COUNT)))]
        assert service.count("executions_total") - before < COUNT  # batches, and not one by one
    assert len(np.unique([logits.round(4) for logits, _, _ in alone], axis=0)) == COUNT
    for (logits, maps, rest), (found, found_maps, found_rest) in zip(alone, together, strict=True):
        np.testing.assert_allclose(found, logits, rtol=0, atol=1e-4 * max(1, np.ptp(logits)))
        assert found_rest == rest
        assert len(found_maps) == len(maps)
        for found_map, map_ in zip(found_maps, maps, strict=True):
            np.testing.assert_allclose(found_map, map_, rtol=0, atol=1e-4 * np.abs(map_).max())
