"""The alert rules, as promtool reads them, and what they refer to."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml
from scraping import ALERTS, ALERTS_TEST, CONFIG, OPERATIONS, alerts, names, needs_promtool, rules

from konkyo.service.metrics import Metrics

PROCESS = {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"} | {
    "process_max_fds",
    "process_start_time_seconds",
}


def known() -> set[str]:
    """Every series that can be asked for."""
    suffixes = {
        "counter": ("_total",),
        "gauge": ("",),
        "info": ("_info",),
        "histogram": ("_bucket", "_sum", "_count"),
    }
    ours = {
        family.name + suffix
        for family in Metrics().registry.collect()
        if family.name.startswith("konkyo_")
        for suffix in suffixes[family.type]
    }
    return ours | PROCESS | {"up"} | {rule["record"] for rule in rules() if "record" in rule}


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", ALERTS)
    promtool("check", "config", CONFIG)


@needs_promtool
def test_every_alert_fires_when_it_should_and_only_then() -> None:
    promtool("test", "rules", ALERTS_TEST)


def test_every_alert_is_tried_both_ways() -> None:
    tried: dict[str, set[bool]] = {}
    for test in yaml.safe_load(ALERTS_TEST.read_text())["tests"]:
        for check in test.get("alert_rule_test", []):
            tried.setdefault(check["alertname"], set()).add(bool(check["exp_alerts"]))
    assert tried == {alert["alert"]: {True, False} for alert in alerts()}


def test_every_alert_says_how_bad_it_is_what_it_is_and_where_to_read_on() -> None:
    headings = {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", OPERATIONS.read_text(), re.M)
    }
    for alert in alerts():
        assert alert["labels"]["severity"] in ("critical", "warning", "info"), alert["alert"]
        assert alert["annotations"]["summary"], alert["alert"]
        document, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert (document, anchor) == ("docs/operations.md", alert["alert"].lower())
        assert anchor in headings


def test_the_rules_ask_only_for_what_there_is() -> None:
    for rule in rules():
        asked = names(rule["expr"])
        assert asked, rule
        assert asked <= known(), rule


def test_names_in_an_expression() -> None:
    expression = 'sum by (konkyo_x) (rate(konkyo_a_total{b="konkyo_c"}[5m])) / up + job:konkyo_d:mean2m > 1'
    assert names(expression) == {"konkyo_a_total", "up", "job:konkyo_d:mean2m"}
