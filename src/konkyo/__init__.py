"""Konkyo serves image classifiers that show why they decided."""

import os

# ONNX Runtime would report its use to its maker, and keep an identity of the device on disk. Only this,
# before its first import, prevents it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
