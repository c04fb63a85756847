"""Write the PrometheusRule of the monitoring component from ``monitoring/alerts.yml``.

python k8s/prometheusrule.py, after a change of the alerts; a test compares the two.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

ALERTS = Path(__file__).parent.parent / "monitoring" / "alerts.yml"
RULE = Path(__file__).parent / "components" / "monitoring" / "prometheusrule.yaml"

HEAD = """\
# Written by k8s/prometheusrule.py from monitoring/alerts.yml; change that file.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: konkyo
  labels:
    app.kubernetes.io/name: konkyo
    app.kubernetes.io/part-of: konkyo
spec:
"""


def render(alerts: str) -> str:
    """The object that holds these rules, both as YAML."""
    return HEAD + textwrap.indent(alerts, "  ")


if __name__ == "__main__":
    RULE.write_text(render(ALERTS.read_text(encoding="utf-8")), encoding="utf-8")
