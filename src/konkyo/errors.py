"""Every error a caller can meet, with its HTTP status and a stable code.

The way of the data, and what may go wrong on it::

    HTTP body ──► decode ──────► queue ──────► engine ─────► render ──► answer
       │            │              │              │
       │            │              │              └ InferenceFailed 500
       │            │              ├ QueueFull 429    (with Retry-After)
       │            │              ├ NotReady 503, Draining 503 (with Retry-After)
       │            │              ├ DeadlineExceeded 504
       │            │              └ RequestCancelled 499 (counted, nothing is sent)
       │            ├ UnsupportedImage 415   not a format or pixel type we read
       │            ├ BrokenImage 400        an image, but truncated or damaged
       │            └ ImageTooLarge 413      too many pixels; known before decoding
       ├ InvalidRequest 400 ── EmptyBody 400
       ├ UriTooLong 414, HeadersTooLarge 431, HeaderTimeout 408, TooManyConnections 503: no request yet
       ├ NotAcceptable 406
       ├ Unauthorized 401 (with WWW-Authenticate), Forbidden and CrossOrigin 403: before the body is read
       ├ BodyTooLarge 413, BodyTimeout 408, UnsupportedMediaType 415
       ├ UnknownModel, UnknownVersion, UnknownClass, UnknownJob, StudiesDisabled, UnknownItem 404
       ├ InvalidParameter, UnsupportedMethod 422
       ├ TooManyJobs 429    (with Retry-After)
       ├ RepositoryApiDisabled 403, LoadFailed 409: of loading and unloading models
       └ StaleRanking, StudyClosed, StudyFinished, StudyUnfinished 409, StudyStoreFailed 503: of studies

    start-up ──► BundleError: a bundle that is missing, damaged or not one of ours
    export ────► ParityError: the exported graph computes something else than the network

The tree::

    KonkyoError
    ├── InvalidRequest ── EmptyBody
    ├── UriTooLong, HeadersTooLarge, HeaderTimeout, NotAcceptable
    ├── Unauthorized, Forbidden ── CrossOrigin
    ├── BodyTooLarge, BodyTimeout, UnsupportedMediaType
    ├── ImageError ── UnsupportedImage, BrokenImage, ImageTooLarge
    ├── NotFound ── UnknownModel, UnknownVersion, UnknownClass, UnknownJob, StudiesDisabled, UnknownItem
    ├── InvalidParameter ── UnsupportedMethod
    ├── Overloaded ── QueueFull, DeadlineUnreachable, TooMuchWork, TooManyJobs, TooManyRequests
    ├── Unavailable ── AuditFailed, NotReady, Draining, StudyStoreFailed, TooManyConnections
    ├── DeadlineExceeded, RequestCancelled, InferenceFailed
    ├── RepositoryApiDisabled, LoadFailed
    ├── StaleRanking, StudyClosed, StudyFinished, StudyUnfinished
    └── BundleError ── ParityError
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

MAX_RETRY_AFTER = 60
"""Seconds; what lies further ahead is not known."""

MAX_MESSAGE, MAX_WORD = 2000, 200
"""Characters of a message, and of a word in it: a caller's own words come back, and may be megabytes."""


def clip(text: str, limit: int = MAX_WORD) -> str:
    """A text, or its beginning where it is long."""
    return text if len(text) <= limit else text[:limit] + "…"


class KonkyoError(Exception):
    """Base of the tree.

    Args:
        message: a sentence for a person; says what was wrong and, where known, what would be right.
        detail: JSON values for a program.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    retry_after: int | None = None
    """Seconds for the ``Retry-After`` header, where trying again makes sense."""

    def __init__(self, message: str, **detail: Any) -> None:
        super().__init__(message)
        self.message = clip(message, MAX_MESSAGE)
        self.detail = {
            name: clip(value) if isinstance(value, str) else value for name, value in detail.items()
        }

    def body(self) -> dict[str, Any]:
        """The JSON body of the answer."""
        return {"error": {"code": self.code, "message": self.message, "detail": self.detail}}

    def headers(self) -> dict[str, str]:
        """Headers of the answer that belong to the error."""
        return {} if self.retry_after is None else {"retry-after": str(self.retry_after)}


class InvalidRequest(KonkyoError):
    """The request is malformed."""

    status, code = 400, "invalid_request"


class EmptyBody(InvalidRequest):
    """There is no image in the request."""

    code = "empty_body"


class Unauthorized(KonkyoError):
    """No API key, or one that is not known.

    Args:
        wrong: a key was given.
    """

    status, code = 401, "unauthorized"

    def __init__(self, message: str, *, wrong: bool = False) -> None:
        super().__init__(message)
        self._challenge = 'Bearer realm="konkyo"' + (', error="invalid_token"' if wrong else "")

    def headers(self) -> dict[str, str]:
        """With ``WWW-Authenticate``, as RFC 6750, section 3, has it."""
        return {**super().headers(), "www-authenticate": self._challenge}


class Forbidden(KonkyoError):
    """The API key is known, and not for this."""

    status, code = 403, "forbidden"


class CrossOrigin(Forbidden):
    """A page of another origin had a browser send this."""

    code = "cross_origin"


class UriTooLong(KonkyoError):
    """The path and the query have more bytes than the limit."""

    status, code = 414, "uri_too_long"


class HeadersTooLarge(KonkyoError):
    """The header has more bytes or fields than the limit."""

    status, code = 431, "headers_too_large"


class HeaderTimeout(KonkyoError):
    """The header did not arrive in time."""

    status, code = 408, "header_timeout"


class NotAcceptable(KonkyoError):
    """The answer cannot be given in the form that is asked for."""

    status, code = 406, "not_acceptable"


class BodyTooLarge(KonkyoError):
    """More bytes than the limit."""

    status, code = 413, "body_too_large"


class BodyTimeout(KonkyoError):
    """The body did not arrive in time."""

    status, code = 408, "body_timeout"


class UnsupportedMediaType(KonkyoError):
    """The content type is none of image, multipart or JSON."""

    status, code = 415, "unsupported_media_type"


class ImageError(KonkyoError):
    """Something about the image itself."""

    status, code = 400, "image_error"


class UnsupportedImage(ImageError):
    """Not an image, or not of a format or pixel type we read."""

    status, code = 415, "unsupported_image"


class BrokenImage(ImageError):
    """An image by its header, but truncated or damaged."""

    code = "broken_image"


class ImageTooLarge(ImageError):
    """More pixels than the limit."""

    status, code = 413, "image_too_large"


class NotFound(KonkyoError):
    """No such thing here."""

    status, code = 404, "not_found"


class UnknownModel(NotFound):
    """No model of this name."""

    code = "unknown_model"


class UnknownVersion(NotFound):
    """The model has no such version."""

    code = "unknown_version"


class UnknownClass(NotFound):
    """The model has no such class."""

    code = "unknown_class"


class UnknownJob(NotFound):
    """No such job, or not any more."""

    code = "unknown_job"


class StudiesDisabled(NotFound):
    """No studies are served here."""

    code = "studies_disabled"


class UnknownItem(NotFound):
    """The study has no such image, or no such picture."""

    code = "unknown_item"


class InvalidParameter(KonkyoError):
    """A parameter is unknown, of the wrong type or out of range."""

    status, code = 422, "invalid_parameter"


class UnsupportedMethod(InvalidParameter):
    """The model cannot be explained this way."""

    code = "unsupported_method"


class Overloaded(KonkyoError):
    """More work than the service takes; nothing was done.

    Args:
        wait: seconds after which there will be room, where that can be told.
    """

    status, code, retry_after = 429, "overloaded", 1

    def __init__(self, message: str, *, wait: float | None = None, **detail: Any) -> None:
        super().__init__(message, **detail)
        if wait is not None:
            self.retry_after = min(max(math.ceil(wait), 1), MAX_RETRY_AFTER)


class QueueFull(Overloaded):
    """As many requests wait as may."""

    code = "queue_full"


class DeadlineUnreachable(Overloaded):
    """With what waits already, the answer would come after the deadline."""

    code = "deadline_unreachable"


class TooMuchWork(Overloaded):
    """What is being worked on takes as many forward passes as may be."""

    code = "too_much_work"


class TooManyJobs(Overloaded):
    """As many long explanations are at work as may be."""

    code, retry_after = "too_many_jobs", 5


class Unavailable(KonkyoError):
    """The service cannot answer now."""

    status, code, retry_after = 503, "unavailable", 1


class NotReady(Unavailable):
    """The model is not ready."""

    code = "not_ready"


class Draining(Unavailable):
    """The service is shutting down and takes nothing new."""

    code = "draining"


class TooManyRequests(Overloaded):
    """As many requests are at work as may be."""

    code = "too_many_requests"


class TooManyConnections(Unavailable):
    """As many connections are at work as may be open."""

    code = "too_many_connections"


class AuditFailed(Unavailable):
    """The answer was there, and is not sent: the record of it could not be written."""

    code = "audit_failed"


class StudyStoreFailed(Unavailable):
    """The database of the studies cannot be used, or not now."""

    code = "study_store_failed"


class DeadlineExceeded(KonkyoError):
    """The deadline of the request has passed."""

    status, code = 504, "deadline_exceeded"


class RequestCancelled(KonkyoError):
    """The caller has gone."""

    status, code = 499, "cancelled"


class InferenceFailed(KonkyoError):
    """The engine failed on this item, alone in its batch."""

    code = "inference_failed"


class RepositoryApiDisabled(KonkyoError):
    """Models are not loaded and unloaded by request here."""

    status, code = 403, "repository_api_disabled"


class LoadFailed(KonkyoError):
    """A version of the model could not be loaded; what was served before still is."""

    status, code = 409, "load_failed"


class StaleRanking(KonkyoError):
    """The ranking was saved from elsewhere since it was read; ``detail`` has it as it is now."""

    status, code = 409, "stale_ranking"


class StudyClosed(KonkyoError):
    """The study takes no more answers."""

    status, code = 409, "study_closed"


class StudyFinished(KonkyoError):
    """The subject has said that all is done."""

    status, code = 409, "study_finished"


class StudyUnfinished(KonkyoError):
    """There are images whose maps the subject has not ranked."""

    status, code = 409, "study_unfinished"


class BundleError(KonkyoError):
    """A model bundle cannot be trusted; the message names the file."""

    code = "bundle_error"


class ParityError(BundleError):
    """Two runtimes disagree on the same network; the message gives the figures."""

    code = "parity_error"
