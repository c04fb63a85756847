"""docs/kubernetes.md: its files are there, its YAML is valid, and what can run without a cluster runs."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from rendered import K8S, OVERLAYS, ROOT, Object, combined, objects, only, overlay, render

TEXT = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", TEXT, re.M | re.S)


COMMANDS = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]
KUBECTL = [command[1:] for command in COMMANDS if command[0] == "kubectl"]


def test_files_that_are_named_are_there() -> None:
    for name in set(re.findall(r"\bk8s/[\w./-]*\w", TEXT)):
        assert (ROOT / name).exists(), name
    assert set(re.findall(r"k8s/overlays/(\w+)", TEXT)) == set(OVERLAYS)


def test_every_kustomization_that_is_named_renders() -> None:
    named = [command[-1] for command in KUBECTL if command[0] == "kustomize" or "-k" in command]
    assert len(named) >= 8
    for name in named:
        assert render(ROOT / name)


def test_what_is_asked_of_a_cluster_is_in_the_manifests(tmp_path: Path) -> None:
    everything = [item for name in OVERLAYS for item in overlay(name)]
    everything += combined(tmp_path / "mine", ["nvidia-runtimeclass"])
    everything += list(yaml.safe_load_all((K8S / "publish.yaml").read_text()))
    there = {f"{item['kind'].lower()}/{item['metadata']['name']}" for item in everything}
    there |= {"service/konkyo-predictor"}  # made by KServe
    asked = {word for command in KUBECTL for word in command if re.fullmatch(r"[a-z]+/konkyo[\w-]*", word)}
    assert len(asked) >= 4
    assert asked <= there


def validate(item: Object) -> None:
    kubernetes_validate.validate(item, "1.37", strict=True)


def test_the_pod_that_publishes_is_valid() -> None:
    [pod] = yaml.safe_load_all((K8S / "publish.yaml").read_text())
    validate(pod)
    assert {"persistentVolumeClaim": {"claimName": "konkyo-bundles"}, "name": "repository"} in pod["spec"][
        "volumes"
    ]


def test_the_overlay_of_your_own_renders_as_it_is_written(tmp_path: Path) -> None:
    [own] = [block for block in blocks("yaml") if "kind: Kustomization" in block]
    shutil.copytree(K8S, tmp_path / "k8s")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kustomization.yaml").write_text(own)
    found = objects(tmp_path / "mine")
    for item in found:
        validate(item)
    settings = only(found, "ConfigMap")["data"]
    assert (settings["KONKYO_SHED"], settings["KONKYO_REPOSITORY"]) == ("true", "/repository")
    assert only(found, "PersistentVolumeClaim")["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert [secret["secretName"] for secret in secrets(found)] == ["konkyo-keys"]


def secrets(found: list[Object]) -> list[Object]:
    """The Secrets that the Deployment mounts."""
    volumes = only(found, "Deployment")["spec"]["template"]["spec"]["volumes"]
    return [volume["secret"] for volume in volumes if "secret" in volume]


def test_a_secret_is_made_of_keys_as_it_is_written(tmp_path: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("there is no kubectl")
    [make] = [command for command in COMMANDS if command[:2] == ["konkyo", "key"]]
    [give] = [command for command in COMMANDS if "secret" in command]
    program = [sys.executable, "-m", *make]
    subprocess.run(program, cwd=tmp_path, check=True, capture_output=True)
    offline = ["--dry-run=client", "--output=yaml"]
    made = yaml.safe_load(subprocess.check_output([*give, *offline], cwd=tmp_path))
    validate(made)
    assert (made["metadata"]["name"], made["metadata"]["namespace"]) == ("konkyo-keys", "konkyo")
    [mounted] = secrets(overlay("production"))
    assert [item["key"] for item in mounted["items"]] == list(made["data"])
