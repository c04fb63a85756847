"""HTTP/1.1 as uvicorn and httptools speak it, with bounds on what a caller may cost before it is heard.

What a connection does, and what bounds it:

    wait for a request     ``keep_alive_seconds``; or until another connection needs the room
    send its header        ``header_timeout_seconds``, ``max_header_bytes``, and more in ``headers``
    send its body          ``body_timeout_seconds`` and ``max_body_bytes`` of the routes; framing of chunks
    send more requests     ``MAX_PIPELINED``, while one is at work
    take the answer        ``write_timeout_seconds``, and the memory budget while it is too slow
    send on after it       ``LINGER_SECONDS``

What breaks a bound, or is no valid HTTP/1.1, is answered where nothing else is being answered, and the
connection is closed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from konkyo.errors import (
    HeaderTimeout,
    InvalidRequest,
    KonkyoError,
    Overloaded,
    TooManyConnections,
    TooManyRequests,
)
from konkyo.service import headers
from konkyo.service.connections import HEALTH, Connections
from konkyo.service.refusing import refuse

MAX_PIPELINED = 16
"""Requests of a connection that wait for the answers to earlier ones."""

FRAMING = 8
"""Bytes around the chunks of a body for each byte in them; chunks of one byte have five."""

LINGER_SECONDS = 5
"""How long a caller may go on sending what nobody reads, so that it finds the answer before a reset."""


NEWCOMER_SECONDS = 1
"""How long a server that ends waits for the first request of a connection: it may be on its way."""


class Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, connections: Connections, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._connections = connections
        self._settings = connections.state.settings
        self._in_header = True
        """Whether the next byte belongs to a header, or to nothing yet."""
        self._begun = False
        """Whether a byte of that header has come."""
        self._header_bytes = 0
        self._in_body = False
        """Whether the application has a request of which the body is not complete."""
        self._framing = 0
        self._upgrading = False
        """Whether the header that has come offers another protocol."""
        self._deaf = False
        """Whether what still comes is dropped unread."""
        self._timer: asyncio.TimerHandle | None = None
        self._slow: asyncio.TimerHandle | None = None
        self._held = 0

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first header."""
        super().connection_made(transport)
        self._start_timer(self._settings.header_timeout_seconds, self._header_is_late)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._stop_timer()
        self._taken()
        self._connections.remove(self)

    def drain(self) -> None:
        """The answer to the last request that has come says that the connection ends."""
        if self._busy:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """The server ends: close once what is due is answered; who has just come may still ask."""
        if cast(RequestResponseCycle | None, self.cycle) is None and not self._deaf:
            self._start_timer(NEWCOMER_SECONDS, self.transport.close)
        else:
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing came for long: close, without waiting for a caller who has not taken the last answer."""
        if self.transport.get_write_buffer_size():
            self._connections.count("write_timeout")
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    # What comes

    def data_received(self, data: bytes) -> None:
        """Parse, within the bounds."""
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        began_in_header = self._in_header
        if began_in_header:
            self._header_bytes += len(data)
        else:
            self._framing += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            cause = error.__context__  # raised in one of the callbacks below
            self._refuse(cause if isinstance(cause, KonkyoError) else InvalidRequest(headers.INVALID))
        else:
            self._check_bounds(began_in_header)

    def _check_bounds(self, began_in_header: bool) -> None:
        limit = self._settings.max_header_bytes
        if not self._in_header:
            if self._framing > limit:
                self._refuse(InvalidRequest("the chunks of the body are more frame than body"))
        elif began_in_header and self._header_bytes > limit:
            self._refuse(headers.too_large(limit))
        elif self._timer is None and not self._deaf and (self._begun or not self._busy):
            self._start_timer(self._settings.header_timeout_seconds, self._header_is_late)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._begun = True

    def on_url(self, url: bytes) -> None:
        """A piece of path and query. Raises ``UriTooLong``."""
        super().on_url(url)
        headers.check_url(self.url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field; those after a body are dropped. Raises ``HeadersTooLarge``."""
        if self._in_body:
            return
        headers.check_number(self.headers)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the application on the request, or queue it.

        Raises:
            HeadersTooLarge, InvalidRequest, TooManyConnections
        """
        if self.parser.get_method() == b"CONNECT":
            raise InvalidRequest("this is no proxy")
        self._upgrading = self.parser.should_upgrade()
        if self._upgrading:
            return
        self._stop_timer()
        self._check_header()
        application = self.app
        if self._connections.full and self.url.partition(b"?")[0] not in HEALTH:
            self._connections.count(TooManyRequests.code)
            self.app = refuse
        super().on_headers_complete()
        self.app = application
        self._in_header = self._begun = False
        self._in_body, self._framing = True, 0
        if self._connections.state.draining or self._connections.is_over(self):
            self.cycle.keep_alive = False
        self._connections.works(self)

    def _check_header(self) -> None:
        version, limit = self.parser.get_http_version(), self._settings.max_header_bytes
        headers.check_header(self.url, self.headers, version, limit)
        if len(self.pipeline) >= MAX_PIPELINED:
            raise InvalidRequest(f"over {MAX_PIPELINED} requests wait for the answers to earlier ones")
        if self._connections.is_over(self) and self.url.partition(b"?")[0] not in HEALTH:
            raise TooManyConnections("as many connections as may be are at work")

    def _decline(self, rest: bytes) -> None:
        """Take a request that offers another protocol, and its body, for a plain one.

        Java's client offers HTTP/2 with whatever it sends first; the parser would drop the body.
        """
        fields = headers.without_upgrade(self.headers, self.parser.should_keep_alive())
        line = self.parser.get_method() + b" " + self.url + b" HTTP/1.1\r\n"
        header = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(line + header + b"\r\n" + rest)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._framing -= (1 + FRAMING) * len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The end of a request, or of what was sent on after its answer."""
        if self._upgrading:
            return
        super().on_message_complete()
        self._in_header, self._header_bytes = True, 0
        self._in_body = False
        if self._busy:
            self._connections.begins(self)
        else:
            self._stop_timer()
            self._connections.waits(self)

    # What goes

    def on_response_complete(self) -> None:
        """Wait for the next request; or for the caller to take the answer, or to end what it sends."""
        self._connections.ends(self)
        super().on_response_complete()
        if self.transport.is_closing():
            self._start_timer(self._settings.write_timeout_seconds, self._answer_is_not_taken)
        elif self._busy:
            pass  # with the next request
        elif self._in_body:
            self._start_timer(LINGER_SECONDS, self.transport.close)
        else:
            self._connections.waits(self)

    def pause_writing(self) -> None:
        """The caller is slower than the answer, which counts as memory held until it is taken."""
        super().pause_writing()
        size = self.transport.get_write_buffer_size()
        try:
            self._connections.state.budget.take(size)
        except Overloaded as error:
            self._connections.count(error.code)
            self.transport.abort()
            return
        self._held = size
        self._slow = self.loop.call_later(self._settings.write_timeout_seconds, self._answer_is_not_taken)

    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        self._taken()

    def _taken(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None
        self._connections.state.budget.release(self._held)
        self._held = 0

    def _answer_is_not_taken(self) -> None:
        self._connections.count("write_timeout")
        self.transport.abort()

    # Refusals

    def _header_is_late(self) -> None:
        self._timer = None
        if self._begun:
            seconds = self._settings.header_timeout_seconds
            self._refuse(HeaderTimeout(f"the header did not arrive within {seconds:g} s"))
        else:
            self.transport.close()

    def _refuse(self, error: KonkyoError) -> None:
        """Answer with an error where no other answer is due on the connection, and close it."""
        self._deaf = True
        self._stop_timer()
        self._connections.count(error.code)
        if self._busy and not self._in_body:  # earlier requests are answered first, and then it is closed
            self.cycle.keep_alive = False
        elif self._busy and (self.pipeline or self.cycle.response_started):
            self.transport.abort()
        elif self._in_body and not self._busy:  # it has had its answer
            self.transport.close()
        else:
            if self._busy:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            self._answer(error)

    def _answer(self, error: KonkyoError) -> None:
        body = json.dumps(error.body()).encode()
        named = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            **error.headers(),
        }
        fields = "".join(f"{name}: {value}\r\n" for name, value in named.items())
        self.transport.write(STATUS_LINE[error.status] + fields.encode() + b"\r\n" + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._start_timer(LINGER_SECONDS, self.transport.abort)
        else:
            self.transport.close()
            self._start_timer(self._settings.write_timeout_seconds, self.transport.abort)

    # Helpers

    @property
    def _busy(self) -> bool:
        """Whether an answer is due."""
        cycle = cast(RequestResponseCycle | None, self.cycle)
        return cycle is not None and not cycle.response_complete and not cycle.disconnected

    def _start_timer(self, seconds: float, then: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, then)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
