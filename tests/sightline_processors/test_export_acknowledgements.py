"""The quick reading of a collector's usual answer: what `http.client` says of it, or nothing."""

import http.client
import io

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sightline_processors.export.http_transport import _acknowledgement

GO = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nDate: Sun, 22 Nov 2026 00:00:00 GMT\r\n"
USUAL = GO + b"Content-Length: 2\r\n\r\n\n\x00"

LINES = st.sampled_from(
    ["Content-Type: application/x-protobuf", "content-type:text/html", "Date: Sun", "Retry-After: 1",
     "X-A:  b", "X-A: b ", "x-a: b", "X-B:", ": 1", " folded", "nocolon", "", "na me: 1", "X-\xe9: 1",
     "Content-Length: 1", "Content-Length: +2", "content-length:2", "Connection: close",
     "Connection: keep-alive", "Transfer-Encoding: chunked", "X-B: a\nConnection: close",
     "X-B: a\rTransfer-Encoding: chunked", "X-B: a\x0bb"]
)  # fmt: skip
STATUSES = st.sampled_from(
    ["HTTP/1.0 200 OK", "HTTP/1.1 200 ", "HTTP/1.1 200", "HTTP/1.1 204 No Content", "HTTP/1.1 100 Continue",
     "HTTP/1.1 307 Moved", "HTTP/1.1 2000 OK", "HTTP/1.1  200 OK", "HTTP/2 200", "", "HTTP/1.1 200 OK\nA: b"]
)  # fmt: skip
USUALLY = st.just("HTTP/1.1 200 OK")


class Received:
    """Stands for a socket that has received some bytes, and no more to come."""

    def __init__(self, received):
        self._received = received

    def makefile(self, *_):
        return io.BytesIO(self._received)


def read_by_http_client(received):
    """Returns status, headers, body, and whether the connection can be kept."""
    response = http.client.HTTPResponse(Received(received), method="POST")  # type: ignore[arg-type]
    response.begin()
    body = response.read()
    headers = {name.lower(): value for name, value in response.headers.items()}
    return response.status, headers, body, not response.will_close


def test_what_a_collector_answers_is_read_quickly():
    assert _acknowledgement(USUAL) == (read_by_http_client(USUAL)[1], b"\n\x00")


def answer(status, before, after, body, length=None):
    head = "\r\n".join(
        [status, *before, f"Content-Length: {len(body) if length is None else length}", *after]
    )
    return head.encode("latin-1") + b"\r\n\r\n" + body


ANSWERS = st.builds(
    answer,
    status=USUALLY | USUALLY | USUALLY | STATUSES,
    before=st.lists(LINES, max_size=2, unique=True),
    after=st.lists(LINES, max_size=2, unique=True),
    body=st.binary(max_size=3),
    length=st.none() | st.none() | st.none() | st.integers(min_value=0, max_value=4),
)


@settings(max_examples=1000, deadline=None)
@given(ANSWERS)
@example(answer("HTTP/1.1 307 Moved", [], [], b"ab"))
@example(answer("HTTP/1.1 200 OK", ["Content-Length: 3"], [], b"ab"))
@example(answer("HTTP/1.1 200 OK", [], ["Connection: close"], b"ab"))
@example(answer("HTTP/1.1 200 OK", [], [" folded: 1"], b"ab"))
@example(answer("HTTP/1.1 200 OK", ["nocolon"], [], b"ab"))
@example(answer("HTTP/1.1 200 OK", [], ["X-B: a\nConnection: close"], b"ab"))
@example(answer("HTTP/1.1 200 OK", [f"x-{number}: 1" for number in range(100)], [], b"ab"))
def test_what_is_read_quickly_is_what_http_client_reads(received):
    quick = _acknowledgement(received)

    if quick is not None:
        code, headers, content, is_kept = read_by_http_client(received)
        assert (code, is_kept) == (200, True)
        assert quick == (headers, content)


@given(
    before=st.lists(LINES, max_size=1),
    after=st.lists(st.sampled_from(["Date: Sun", "X-A: b", "Connection: close"]), max_size=2, unique=True),
    body=st.binary(max_size=3),
)
def test_an_answer_that_is_not_here_as_a_whole_is_left_to_http_client(before, after, body):
    whole = answer("HTTP/1.1 200 OK", before, after, body)

    assert [here for here in range(len(whole)) if _acknowledgement(whole[:here]) is not None] == []


def test_other_headers_around_the_length_are_read_quickly():
    assert _acknowledgement(answer("HTTP/1.1 200 OK", ["Date: Sun"], ["X-A: b"], b"")) is not None


@given(st.binary(max_size=64) | st.binary(min_size=1, max_size=8).map(lambda tail: USUAL + tail))
def test_garbage_is_left_to_http_client(received):
    assert _acknowledgement(received) is None
