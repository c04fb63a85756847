"""What the routes of one application share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from starlette.requests import Request

from konkyo.service.access import Access
from konkyo.service.audit import Audit
from konkyo.service.budget import MemoryBudget
from konkyo.service.jobs import Jobs
from konkyo.service.metrics import Metrics
from konkyo.service.perturbing import Perturbing
from konkyo.service.pipeline import Pipeline
from konkyo.service.repository import Repository
from konkyo.service.settings import Settings
from konkyo.service.startup import Startup
from konkyo.service.studies import Studies
from konkyo.service.tracing import Tracing


@dataclass
class State:
    """The parts of one application.

    ``draining``: SIGTERM has come; finish, and take no more soon. ``others_ready``: whether whoever accepts
    connections at the same address is ready, too.
    """

    settings: Settings
    metrics: Metrics
    repository: Repository
    budget: MemoryBudget
    pipeline: Pipeline
    perturbing: Perturbing
    jobs: Jobs
    access: Access
    audit: Audit
    studies: Studies
    tracing: Tracing
    startup: Startup
    draining: bool = False
    others_ready: bool = True


def state_of(request: Request) -> State:
    """The state of the application that serves this request."""
    return cast(State, request.app.state.konkyo)


def request_id(request: Request) -> str:
    """The id of this request, as in its ``x-request-id``."""
    return cast(str, request.scope["konkyo.request_id"])
