"""The quick reading of a collector's usual answer: what `http.client` says of it, or nothing."""

import http.client
import io

from hypothesis import example, given
from hypothesis import strategies as st

from sightline_processors.export.http_transport import _acknowledgement

GO = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nDate: Sun, 22 Nov 2026 00:00:00 GMT\r\n"
USUAL = GO + b"Content-Length: 2\r\n\r\n\n\x00"

NAMES = st.sampled_from(
    ["Content-Length", "content-length", "Content-Type", "Connection", "Transfer-Encoding", "Retry-After",
     "Date", "X-A", " folded", "", "na me", "tab\t", "a:b"]
)  # fmt: skip
VALUES = st.sampled_from(
    [
        "0",
        "2",
        "3",
        "+2",
        "02",
        " 2 ",
        "2, 2",
        "close",
        "keep-alive",
        "chunked",
        "text/html",
        "\x0b2",
        "é",
        "",
    ]
)
LINES = st.lists(st.builds("{}:{}".format, NAMES, VALUES) | st.text(max_size=8), max_size=5)
STATUSES = st.sampled_from(
    ["HTTP/1.1 200 OK", "HTTP/1.1 200 ", "HTTP/1.1 200", "HTTP/1.0 200 OK", "HTTP/1.1 204 No Content",
     "HTTP/1.1 100 Continue", "HTTP/1.1 307 Moved", "HTTP/1.1 2000 OK", "HTTP/1.1  200 OK", "HTTP/2 200", ""]
)  # fmt: skip
ENDS = st.sampled_from(["\r\n\r\n", "\n\n", "\r\n"])


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


@given(
    status=STATUSES,
    lines=LINES,
    end=ENDS,
    body=st.binary(max_size=3),
    cut=st.integers(min_value=0, max_value=3),
)
@example(status="HTTP/1.1 307 Moved", lines=["Content-Length: 2"], end="\r\n\r\n", body=b"ab", cut=0)
@example(
    status="HTTP/1.1 200 OK",
    lines=["Content-Length: 3", "Content-Length: 2"],
    end="\r\n\r\n",
    body=b"ab",
    cut=0,
)
@example(
    status="HTTP/1.1 200 OK",
    lines=["Content-Length: 2", "Connection: close"],
    end="\r\n\r\n",
    body=b"ab",
    cut=0,
)
@example(
    status="HTTP/1.1 200 OK", lines=["Content-Length: 2", " folded: 1"], end="\r\n\r\n", body=b"ab", cut=0
)
@example(status="HTTP/1.1 200 OK", lines=["Content-Length: 2"], end="\r\n\r\n", body=b"abc", cut=1)
def test_what_is_read_quickly_is_what_http_client_reads(status, lines, end, body, cut):
    head = "\r\n".join([status, *lines]) + end
    received = head.encode("latin-1", "replace") + body
    received = received[: len(received) - cut]

    quick = _acknowledgement(received)

    if quick is not None:
        code, headers, content, is_kept = read_by_http_client(received)
        assert (code, is_kept) == (200, True)
        assert quick == (headers, content)


@given(st.binary(max_size=64) | st.binary(max_size=8).map(lambda tail: USUAL + tail))
def test_garbage_is_left_to_http_client(received):
    assert received == USUAL or _acknowledgement(received) is None
