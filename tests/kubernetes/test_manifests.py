"""Every overlay renders, and is what Kubernetes knows, strictly; and good practice, by checkov."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from rendered import (
    COMPONENTS,
    K8S,
    KSERVE,
    OVERLAYS,
    ROOT,
    Object,
    combined,
    kinds,
    objects,
    only,
    overlay,
    pods,
    render,
    server,
)  # fmt: skip

VERSIONS = ("1.29", "1.37")
"""The oldest that has all that is used here enabled, and the newest whose schema is at hand."""

CUSTOM = {"ServiceMonitor", "PrometheusRule", "ScaledObject", "InferenceService", "ServingRuntime"}
"""Kinds that others define; their schemas are not at hand, so they are taken apart below."""


def validate(item: Object, version: str) -> None:
    kubernetes_validate.validate(item, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", OVERLAYS)
def test_every_object_is_valid(name: str, version: str) -> None:
    found = overlay(name)
    for item in found:
        if item["kind"] not in CUSTOM:
            validate(item, version)
    assert {item["metadata"].get("namespace", "konkyo") for item in found} == {"konkyo"}
    names = [(item["kind"], item["metadata"]["name"]) for item in found]
    assert len(set(names)) == len(names)


def test_the_schema_would_see_a_field_that_does_not_exist() -> None:
    deployment = only(overlay("cpu"), "Deployment")
    deployment["spec"]["replica"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(deployment, VERSIONS[0])


@pytest.mark.parametrize("base", ["base", "overlays/gpu"])
@pytest.mark.parametrize("component", COMPONENTS)
def test_every_component_goes_with_every_server(component: str, base: str, tmp_path: Path) -> None:
    found = combined(tmp_path / "mine", [component], base)
    assert found != objects(K8S / base)
    for item in found:
        if item["kind"] not in CUSTOM:
            validate(item, VERSIONS[0])


def test_the_overlays_of_the_issue_are_there() -> None:
    assert {"cpu", "gpu", "kserve", "monitoring", "production", "scoring"} == set(OVERLAYS)
    assert kinds(overlay("gpu"), "HorizontalPodAutoscaler") == []
    assert server(overlay("gpu"))["resources"]["limits"]["nvidia.com/gpu"] == 1


# Kinds that others define: what of them Kubernetes knows, by its schema; the rest by name.


@pytest.mark.parametrize("version", VERSIONS)
def test_pods_of_kserve(version: str) -> None:
    found = overlay("kserve")
    for item, labels, spec in pods(found):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": labels}, "spec": spec}
        validate(pod, version)
        assert spec["containers"][0]["name"] == "kserve-container", item["kind"]
    predictor = only(found, "InferenceService")["spec"]["predictor"]
    deployment = only(overlay("cpu"), "Deployment")
    deployment["spec"]["strategy"] = predictor["deploymentStrategy"]
    validate(deployment, version)


def test_the_inference_service() -> None:
    service = only(overlay("kserve"), "InferenceService")
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    assert service["spec"].keys() == {"predictor"}
    predictor = service["spec"]["predictor"]
    assert KSERVE & predictor.keys() == {
        *("minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "timeout", "deploymentStrategy"),
        "labels",
    }
    assert predictor["scaleMetric"] == "cpu"
    assert 1 <= predictor["scaleTarget"] <= 100  # its admission refuses others
    [container] = predictor["containers"]
    assert {"name": "PROTOCOL", "value": "v2"} in container["env"]
    [port] = container["ports"]  # Knative takes one, of this name
    assert port["name"] == "http1"


def test_the_serving_runtime() -> None:
    runtime = only(overlay("kserve"), "ServingRuntime")
    assert runtime["apiVersion"] == "serving.kserve.io/v1alpha1"
    spec = runtime["spec"]
    assert spec["protocolVersions"] == ["v2"]
    assert [sorted(entry) for entry in spec["supportedModelFormats"]] == [["autoSelect", "name", "version"]]
    assert spec.keys() - KSERVE == {"containers", "volumes"}  # of a pod it takes little more


def test_the_service_monitor() -> None:
    found = overlay("monitoring")
    monitor = only(found, "ServiceMonitor")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert monitor["spec"].keys() == {"jobLabel", "selector", "endpoints"}
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint.keys() == {"port", "path", "interval", "scrapeTimeout"}
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    [service] = [item for item in kinds(found, "Service") if wanted <= item["metadata"]["labels"].items()]
    assert [port["name"] for port in service["spec"]["ports"]] == [endpoint["port"]]
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "konkyo"


@pytest.mark.parametrize("version", VERSIONS)
def test_the_scaled_object(version: str, tmp_path: Path) -> None:
    scaled = only(combined(tmp_path, ["autoscaling-keda"]), "ScaledObject")
    assert scaled["apiVersion"] == "keda.sh/v1alpha1"
    spec = scaled["spec"]
    assert spec.keys() == {
        *("scaleTargetRef", "minReplicaCount", "maxReplicaCount", "pollingInterval", "fallback"),
        *("triggers", "advanced"),
    }
    assert [trigger["type"] for trigger in spec["triggers"]] == ["prometheus", "cpu"]
    assert spec["triggers"][0]["metadata"].keys() == {"serverAddress", "query", "threshold"}
    assert all(isinstance(v, str) for trigger in spec["triggers"] for v in trigger["metadata"].values())
    [advanced] = spec["advanced"].values()
    by_hand = only(overlay("cpu"), "HorizontalPodAutoscaler")
    assert advanced["behavior"] == by_hand["spec"]["behavior"]
    assert spec["scaleTargetRef"] == by_hand["spec"]["scaleTargetRef"]
    limits = by_hand["spec"]["minReplicas"], by_hand["spec"]["maxReplicas"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == limits


# Good practice


def test_checkov_finds_nothing(tmp_path: Path) -> None:
    checkov = shutil.which("checkov")
    if checkov is None:
        pytest.skip("there is no checkov")
    folder = tmp_path / "manifests"
    folder.mkdir()
    for name in OVERLAYS:
        (folder / f"{name}.yaml").write_text(render(K8S / "overlays" / name))
    combined(tmp_path / "mine", ["keys", "bundles-image", "autoscaling-keda"], "overlays/gpu")
    (folder / "mine.yaml").write_text(render(tmp_path / "mine"))
    command = [checkov, "--config-file", ROOT / ".checkov.yaml", "--directory", folder]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout
    passed = re.search(r"Passed checks: (\d+), Failed checks: 0,", result.stdout)
    assert passed, result.stdout
    assert int(passed[1]) > 400


RESTRICTED: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_pod_keeps_to_the_restricted_standard(name: str) -> None:
    found = overlay(name)
    labels = only(found, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    seen = 0
    for item, _, spec in pods(found):
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            assert container["securityContext"] == RESTRICTED
            assert container["resources"].keys() == {"requests", "limits"}
        volumes = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
        assert volumes <= {"emptyDir", "persistentVolumeClaim", "secret"}
        assert all("sizeLimit" in volume["emptyDir"] for volume in spec["volumes"] if "emptyDir" in volume)
        if item["kind"] != "ServingRuntime":  # which has no such fields
            assert spec["automountServiceAccountToken"] is False
            assert spec["enableServiceLinks"] is False  # KONKYO_PORT=tcp://... is no port
            assert spec["securityContext"]["runAsNonRoot"] is True
        seen += 1
    assert seen
