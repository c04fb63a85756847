"""What the manifests say of the service is so: routes, ports, settings, times, metrics, commands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from rendered import (
    K8S,
    OVERLAYS,
    ROOT,
    Object,
    combined,
    environment,
    kinds,
    only,
    overlay,
    pods,
    server,
)  # fmt: skip

from konkyo.service.app import create_app
from konkyo.service.demo import SAMPLE, running_server
from konkyo.service.metrics import Metrics
from konkyo.service.scoring.folder import shard_of
from konkyo.service.scoring.running import INTERRUPTED
from konkyo.service.settings import ZOO, Settings

PROBES = {"startupProbe": "live", "readinessProbe": "ready", "livenessProbe": "live"}
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "": 1}


def containers() -> Iterator[tuple[str, Object, Object, Object]]:
    """Every container of ours: overlay, what makes its pods, its pod's specification, itself."""
    for name in OVERLAYS:
        for item, _, spec in pods(overlay(name)):
            for container in spec["containers"]:
                yield name, item, spec, container


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("KONKYO_"):
            monkeypatch.delenv(name)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    """The settings of a container, by the environment it gets; volumes are an empty folder here."""

    def read(found: list[Object], container: Object) -> Settings:
        given = environment(found, container)
        ours = {name: value for name, value in given.items() if name.startswith("KONKYO_")}
        known = {f"KONKYO_{name.upper()}" for name in Settings.model_fields}
        assert ours.keys() <= known, sorted(ours.keys() - known)
        with monkeypatch.context() as context:
            for name, value in ours.items():
                context.setenv(name, str(tmp_path) if name == "KONKYO_REPOSITORY" else value)
            return Settings()

    return read


def size(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(Ki|Mi|Gi|)", quantity).groups()  # type: ignore[union-attr]
    return int(number) * UNITS[unit]


def test_every_setting_is_one_and_fits_its_container(settled) -> None:  # type: ignore[no-untyped-def]
    for name, _, _, container in containers():
        settings, limits = settled(overlay(name), container), container["resources"]["limits"]
        assert settings.threads == int(limits["cpu"]), name
        assert settings.max_buffered_bytes <= size(limits["memory"]) / 2
        assert settings.log_format == "json"
        assert settings.drain_seconds > 0


def test_probes_ask_what_there_is(settled) -> None:  # type: ignore[no-untyped-def]
    routes = create_app(Settings(engine="fake")).openapi()["paths"]
    paths = {path for path, methods in routes.items() if "get" in methods}
    seen = 0
    for name, item, _, container in containers():
        if item["kind"] == "Job":
            continue
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        settings = settled(overlay(name), container)
        for probe, ending in PROBES.items():
            asked = container[probe]["httpGet"]
            assert asked["path"] in paths
            assert asked["path"].rstrip("z").endswith(ending)
            assert ports.get(asked["port"], asked["port"]) == settings.port
            seen += 1
    assert seen >= 3 * 6


def test_ports_are_those_of_the_settings(settled) -> None:  # type: ignore[no-untyped-def]
    for name in ("cpu", "gpu", "monitoring", "production"):
        found = overlay(name)
        settings = settled(found, server(found))
        assert {port["name"]: port["containerPort"] for port in server(found)["ports"]} == {
            "http": settings.port,
            "metrics": settings.metrics_port,
        }
        targets = {
            s["metadata"]["name"]: s["spec"]["ports"][0]["targetPort"] for s in kinds(found, "Service")
        }
        assert targets == {"konkyo": "http", "konkyo-metrics": "metrics"}
        policy = only(found, "NetworkPolicy", "konkyo")["spec"]
        allowed = [port["port"] for rule in policy["ingress"] for port in rule["ports"]]
        assert allowed == [settings.port, settings.metrics_port]
        denied = only(found, "NetworkPolicy", "deny-all")["spec"]
        assert denied == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_the_grace_period_is_longer_than_draining_and_finishing(settled) -> None:  # type: ignore[no-untyped-def]
    for name, item, spec, container in containers():
        if item["kind"] == "Job":
            continue
        settings = settled(overlay(name), container)
        grace = spec.get("terminationGracePeriodSeconds", 30)  # the default of Kubernetes
        assert grace == settings.drain_seconds + settings.shutdown_seconds + 5, (name, item["kind"])
        readiness = container["readinessProbe"]
        assert settings.drain_seconds > readiness["periodSeconds"] * readiness["failureThreshold"]
        assert "lifecycle" not in container  # a preStop would only be waited for before SIGTERM comes


def test_labels_match_what_selects_them() -> None:
    for name in OVERLAYS:
        found = overlay(name)
        for item, labels, spec in pods(found):
            if item["kind"] == "Deployment":
                wanted = [item["spec"]["selector"]["matchLabels"]]
                wanted += [c["labelSelector"]["matchLabels"] for c in spec["topologySpreadConstraints"]]
                wanted += [only(found, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]]
                wanted += [service["spec"]["selector"] for service in kinds(found, "Service")]
                assert all(selector.items() <= labels.items() for selector in wanted), name
            if item["kind"] in ("Deployment", "InferenceService"):
                policy = only(found, "NetworkPolicy", "konkyo")["spec"]["podSelector"]["matchLabels"]
                assert policy.items() <= labels.items(), name


def test_images_are_targets_of_the_dockerfile_and_run_as_its_user() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^FROM .* AS (\S+)$", text, re.M))
    [user] = set(re.findall(r"^USER (\d+):\d+$", text, re.M))
    for name, item, spec, container in containers():
        image, _, tag = container["image"].partition(":")
        assert (image, tag) == ("konkyo", "cuda" if name == "gpu" else "cpu")
        assert tag in targets
        if item["kind"] != "ServingRuntime":
            assert spec["securityContext"]["runAsUser"] == int(user) > 10_000


# Autoscaling and alerts


def families() -> set[str]:
    return {
        sample for family in Metrics().registry.collect() for sample in (family.name, f"{family.name}_total")
    }


def series(query: str) -> set[str]:
    """Names of the metrics in a query, without the suffixes of a histogram."""
    return {re.sub(r"_(sum|count|bucket)$", "", name) for name in re.findall(r"\bkonkyo_\w+", query)}


def adapter_rule() -> Object:
    values = yaml.safe_load((K8S / "components/autoscaling-queue/prometheus-adapter.yaml").read_text())
    [rule] = values["rules"]["custom"]
    return rule  # type: ignore[no-any-return]


def test_the_autoscaler_asks_for_what_the_adapter_gives() -> None:
    rule = adapter_rule()
    for name in ("monitoring", "production"):
        metrics = only(overlay(name), "HorizontalPodAutoscaler")["spec"]["metrics"]
        [asked] = [metric["pods"] for metric in metrics if metric["type"] == "Pods"]
        assert asked["metric"]["name"] == rule["name"]["as"]
        assert "resource" in rule["resources"]["overrides"]["pod"]
    assert (
        series(rule["seriesQuery"]) | series(rule["metricsQuery"]) == {"konkyo_queue_seconds"} <= families()
    )


def queries(folder: Path) -> tuple[str, str]:
    """Of the adapter, for one pod, and of KEDA."""
    scaled = only(combined(folder, ["autoscaling-keda"]), "ScaledObject")
    adapter = adapter_rule()["metricsQuery"].replace("<<.LabelMatchers>>", 'namespace="konkyo",pod=~"a|b"')
    return adapter.replace("<<.GroupBy>>", "pod"), scaled["spec"]["triggers"][0]["metadata"]["query"]


def test_both_autoscalers_read_the_queue(tmp_path: Path) -> None:
    """In a minute pod a gets 60 images that wait 0.5 s each, and b none: half an image waits on average."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("there is no promtool")
    adapter, keda = queries(tmp_path / "mine")
    assert series(keda) == {"konkyo_queue_seconds"}
    labels = 'namespace="konkyo",kind="explain"'

    def rising(name: str, pod: str, step: float, kind: str = labels) -> Object:
        return {"series": f'konkyo_queue_seconds_{name}{{{kind},pod="{pod}"}}', "values": f"0+{step}x10"}

    long = 'namespace="konkyo",kind="perturb"'
    test = {
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    rising("sum", "a", 30), rising("count", "a", 60),
                    rising("sum", "b", 0), rising("count", "b", 0),
                    rising("sum", "a", 6000, long), rising("count", "a", 1, long),
                ],
                "promql_expr_test": [
                    {"expr": adapter, "eval_time": "10m", "exp_samples": [
                        {"labels": '{pod="a"}', "value": 0.5}, {"labels": '{pod="b"}', "value": 0},
                    ]},
                    {"expr": keda, "eval_time": "10m", "exp_samples": [{"labels": "{}", "value": 0.5}]},
                ],
            }
        ],
    }  # fmt: skip
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    result = subprocess.run(
        [promtool, "test", "rules", tmp_path / "test.yaml"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_alerts_are_those_of_the_monitoring(tmp_path: Path) -> None:
    alerts = yaml.safe_load((ROOT / "monitoring" / "alerts.yml").read_text(encoding="utf-8"))
    assert only(overlay("monitoring"), "PrometheusRule")["spec"] == alerts, "run k8s/prometheusrule.py"


# Commands that run


def test_the_server_runs_by_these_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    found = overlay("cpu")
    assert server(found)["args"] == ["serve"]
    for name, value in environment(found, server(found)).items():
        monkeypatch.setenv(name, value)
    with running_server("--host=127.0.0.1", "--metrics-port=0") as address:
        for probe in PROBES:
            path = server(found)[probe]["httpGet"]["path"]
            with urllib.request.urlopen(f"{address}{path}") as answer:
                assert answer.status == 200


def test_the_job_scores_every_image_once(tmp_path: Path) -> None:
    """The command of two of its pods, with folders of ours in the place of the volumes."""
    found = overlay("scoring")
    job = only(found, "Job")["spec"]
    [container] = job["template"]["spec"]["containers"]
    arguments = container["args"]
    assert f"--shards={job['completions']}" in arguments
    assert (job["completionMode"], job["template"]["spec"]["restartPolicy"]) == ("Indexed", "Never")
    mounts = {mount["mountPath"]: tmp_path / mount["name"] for mount in container["volumeMounts"]}
    assert mounts.keys() == {"/tmp", "/images", "/results"}
    for folder in mounts.values():
        folder.mkdir()
    names = [f"{number}.jpg" for number in range(12)]
    for name in names:
        (mounts["/images"] / name).write_bytes(SAMPLE.read_bytes())
    lines = 0
    for index in (0, job["completions"] - 1):
        told = [argument.replace("$(JOB_COMPLETION_INDEX)", str(index)) for argument in arguments]
        told = [re.sub(r"(?<![\w.])/(images|results)\b", lambda m: str(mounts[m[0]]), item) for item in told]
        ran = subprocess.run(
            [sys.executable, "-m", "konkyo", *told],
            env={**os.environ, **environment(found, container)}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        part = mounts["/results"] / f"part-{index:05}-of-{job['completions']:05}.jsonl"
        scored = part.read_text().splitlines()
        assert len(scored) == sum(shard_of(name, job["completions"]) == index for name in names)
        lines += len(scored)
    assert lines


def test_the_job_knows_the_exit_codes() -> None:
    rules = only(overlay("scoring"), "Job")["spec"]["podFailurePolicy"]["rules"]
    codes = {rule["action"]: rule["onExitCodes"]["values"] for rule in rules if "onExitCodes" in rule}
    assert codes == {"Ignore": [INTERRUPTED], "FailJob": [click.UsageError.exit_code]}


def test_the_model_of_the_job_is_in_the_image() -> None:
    arguments = only(overlay("scoring"), "Job")["spec"]["template"]["spec"]["containers"][0]["args"]
    [model] = [item.removeprefix("--model=") for item in arguments if item.startswith("--model=")]
    assert (ZOO / model).is_dir()
    assert f"/{model}" not in (ROOT / ".dockerignore").read_text(encoding="utf-8")
