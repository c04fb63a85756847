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
       ├ BodyTooLarge 413, BodyTimeout 408, UnsupportedMediaType 415
       ├ UnknownModel, UnknownVersion, UnknownClass, UnknownJob 404
       ├ InvalidParameter, UnsupportedMethod 422
       └ TooManyJobs 429    (with Retry-After)

    start-up ──► BundleError: a bundle that is missing, damaged or not one of ours
    export ────► ParityError: the exported graph computes something else than the network

The tree::

    KonkyoError
    ├── InvalidRequest ── EmptyBody
    ├── BodyTooLarge, BodyTimeout, UnsupportedMediaType
    ├── ImageError ── UnsupportedImage, BrokenImage, ImageTooLarge
    ├── NotFound ── UnknownModel, UnknownVersion, UnknownClass, UnknownJob
    ├── InvalidParameter ── UnsupportedMethod
    ├── Overloaded ── QueueFull, TooManyJobs
    ├── Unavailable ── NotReady, Draining
    ├── DeadlineExceeded, RequestCancelled, InferenceFailed
    └── BundleError ── ParityError
"""

from __future__ import annotations

from typing import Any, ClassVar


class KonkyoError(Exception):
    """Base of the tree.

    Args:
        message: a sentence for a person; says what was wrong and, where known, what would be right.
        detail: JSON values for a program.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    retry_after: ClassVar[int | None] = None
    """Seconds for the ``Retry-After`` header, where trying again makes sense."""

    def __init__(self, message: str, **detail: Any) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail

    def body(self) -> dict[str, Any]:
        """The JSON body of the answer."""
        return {"error": {"code": self.code, "message": self.message, "detail": self.detail}}


class InvalidRequest(KonkyoError):
    """The request is malformed."""

    status, code = 400, "invalid_request"


class EmptyBody(InvalidRequest):
    """There is no image in the request."""

    code = "empty_body"


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


class InvalidParameter(KonkyoError):
    """A parameter is unknown, of the wrong type or out of range."""

    status, code = 422, "invalid_parameter"


class UnsupportedMethod(InvalidParameter):
    """The model cannot be explained this way."""

    code = "unsupported_method"


class Overloaded(KonkyoError):
    """More work than the service takes; nothing was done."""

    status, code, retry_after = 429, "overloaded", 1


class QueueFull(Overloaded):
    """As many requests wait as may."""

    code = "queue_full"


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


class DeadlineExceeded(KonkyoError):
    """The deadline of the request has passed."""

    status, code = 504, "deadline_exceeded"


class RequestCancelled(KonkyoError):
    """The caller has gone."""

    status, code = 499, "cancelled"


class InferenceFailed(KonkyoError):
    """The engine failed on this item, alone in its batch."""

    code = "inference_failed"


class BundleError(KonkyoError):
    """A model bundle cannot be trusted; the message names the file."""

    code = "bundle_error"


class ParityError(BundleError):
    """Two runtimes disagree on the same network; the message gives the figures."""

    code = "parity_error"
