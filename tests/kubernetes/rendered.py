"""The manifests as kustomize renders them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
K8S = ROOT / "k8s"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
COMPONENTS = sorted(path.name for path in (K8S / "components").iterdir())

Object = dict[str, Any]
KSERVE = {
    *("minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "timeout", "deploymentStrategy", "labels"),
    *("supportedModelFormats", "protocolVersions", "multiModel"),
}
"""What predictors and runtimes of KServe have beside what a pod has."""


@cache
def program() -> tuple[str, ...] | None:
    """kustomize, alone or in kubectl; None if there is none that knows components."""
    if found := shutil.which("kustomize"):
        return found, "build"
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        return None
    answer = subprocess.run([kubectl, "version", "--client", "-o", "json"], capture_output=True, text=True)
    new = answer.returncode == 0 and "kustomizeVersion" in json.loads(answer.stdout)
    return (kubectl, "kustomize") if new else None  # before 1.24 it does not say, and is too old


@cache
def render(folder: Path) -> str:
    """The YAML of a kustomization; skips the test where nothing can render it."""
    found = program()
    if found is None:
        pytest.skip("there is neither kustomize nor a kubectl of 1.24 or later")
    result = subprocess.run([*found, str(folder)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def objects(folder: Path) -> list[Object]:
    return list(yaml.safe_load_all(render(folder)))


def overlay(name: str) -> list[Object]:
    return objects(K8S / "overlays" / name)


def combined(folder: Path, components: list[str], base: str = "base") -> list[Object]:
    """The base, or an overlay, with components, as somebody's own kustomization in ``folder``."""
    above = os.path.relpath(K8S, folder)
    folder.mkdir(exist_ok=True)
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "konkyo",
        "resources": [f"{above}/{base}"],
        "components": [f"{above}/components/{name}" for name in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return objects(folder)


def kinds(found: list[Object], kind: str) -> list[Object]:
    return [item for item in found if item["kind"] == kind]


def only(found: list[Object], kind: str, name: str | None = None) -> Object:
    [item] = [item for item in kinds(found, kind) if name in (None, item["metadata"]["name"])]
    return item


def pods(found: list[Object]) -> Iterator[tuple[Object, Object, Object]]:
    """Whatever makes pods, with their labels and their specification."""
    for item in found:
        if item["kind"] in ("Deployment", "Job"):
            template = item["spec"]["template"]
            yield item, template["metadata"]["labels"], template["spec"]
        elif item["kind"] in ("InferenceService", "ServingRuntime"):
            spec = item["spec"].get("predictor", item["spec"])
            yield item, spec.get("labels", {}), {key: spec[key] for key in spec if key not in KSERVE}


def environment(found: list[Object], container: Object) -> dict[str, str]:
    """Of a container, as the kubelet makes it: ``env`` over ``envFrom``."""
    values: dict[str, str] = {}
    for source in container.get("envFrom", []):
        values |= only(found, "ConfigMap", source["configMapRef"]["name"])["data"]
    return values | {item["name"]: item["value"] for item in container.get("env", [])}


def server(found: list[Object]) -> Object:
    """The one container of the Deployment."""
    [container] = only(found, "Deployment")["spec"]["template"]["spec"]["containers"]
    return container  # type: ignore[no-any-return]
