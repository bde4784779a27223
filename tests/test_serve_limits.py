"""What clients that do not behave get of ``fullback serve``, and that others get their answers."""

import contextlib
import json
import logging
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

import fullback as fb
from support.clients import Silent, ended

pytest.importorskip("httptools", reason="needs the extra serve")
pytest.importorskip("orjson", reason="needs the extra serve")

from fullback.serve import connection as fast
from fullback.serve.launch import service
from fullback.server import bodies, connections

BODY = json.dumps({"pixels": [[0, 1, 2]] * 3}).encode()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    fb.save(fb.Network.parse("flatten dense2", (1, 3, 3)), path)
    return path


@pytest.fixture(scope="module")
def server(model):
    with service([("small", str(model))], port=0) as server:
        yield server


def head(path="/predict", method="POST", **fields):
    given = {"Host": "127.0.0.1", "Content-Type": "application/json", **fields}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in given.items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode()


REQUEST = head(Content_Length=len(BODY)) + BODY


def works(server):
    """Whether somebody who behaves gets an answer."""
    with Silent(server.port, 1, REQUEST) as (connection,):
        return answer(connection).startswith(b"HTTP/1.1 200 OK\r\n")


def answer(connection, count=1):
    """What a server sends until so many predictions, or errors, are there, or it ends."""
    connection.settimeout(20)
    got = b""
    while got.count(b'"predictions"') + got.count(b'"error"') < count:
        piece = connection.recv(2**16)
        if not piece:
            break
        got += piece
    return got


FEW_FILES = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
from fullback.serve.launch import service

with service([("small", sys.argv[1])], port=0) as server:
    print(server.port, flush=True)
    sys.stdin.readline()
"""


class TestConnections:
    @pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
    def test_silent_ones(self, model):
        """300 of them, where the process may open 256 files: others are answered, the log short.

        They send nothing, half a head, or a head without its body.
        """
        process = subprocess.Popen(
            [sys.executable, "-c", FEW_FILES, model],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        port = int(process.stdout.readline())
        with Silent(port, 300, b"", b"POST /predict HTTP/1.1\r\nHost: x\r\nA: ") as silent:
            for _ in range(3):
                asked = urllib.request.Request(
                    f"http://127.0.0.1:{port}/predict",
                    BODY,
                    {"Content-Type": "application/json"},
                )
                with urllib.request.urlopen(asked, timeout=20) as answered:
                    assert answered.status == 200
            assert ended(silent[0], 20)  # to make room
        _, err = process.communicate("end\n", timeout=60)
        assert process.returncode == 0
        assert len(err) < 2000, err
        assert "Traceback" not in err

    def test_requests_that_do_not_arrive_whole_make_room(self, server, monkeypatch):
        """Before those do that wait between two requests."""
        monkeypatch.setattr(connections, "HEAD_SECONDS", 60.0)
        with Silent(server.port, 1, REQUEST) as (between,):
            assert answer(between)
            with Silent(server.port, 140, head(Content_Length=9) + b"{") as slow:
                assert works(server)  # so all that came before have been read, and none is silent
                with contextlib.ExitStack() as opened:
                    for _ in range(3):
                        (other,) = opened.enter_context(Silent(server.port, 1, REQUEST))
                        assert answer(other)
                    assert ended(slow[0], 20)
                between.sendall(REQUEST)
                assert b'"predictions"' in answer(between)

    @pytest.mark.parametrize(
        "sent",
        [
            b"",
            b"POST /pre",
            b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ",
            head(Content_Length=100),
            head(Transfer_Encoding="chunked"),
            head(Transfer_Encoding="chunked") + b"5",
            REQUEST + b"POST /",
        ],
    )
    def test_time_for_a_head_and_the_first_of_a_body(self, server, monkeypatch, sent):
        monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
        with Silent(server.port, 1, sent) as (connection,):
            assert ended(connection, 20)
        assert works(server)

    def test_a_byte_now_and_then_gives_no_more_time(self, server, monkeypatch):
        monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
        with Silent(server.port, 1, b"POST /predict HTTP/1.1\r\nX: ") as (connection,):
            deadline = time.monotonic() + 20
            with pytest.raises(ConnectionError):  # noqa: PT012
                while time.monotonic() < deadline:
                    connection.sendall(b"x")
                    time.sleep(0.05)
        assert works(server)

    def test_time_for_a_body(self, server, monkeypatch):
        monkeypatch.setattr(bodies, "BODY_SECONDS", 0.3)
        with Silent(server.port, 1, head(Content_Length=100) + b"{") as (connection,):
            got = answer(connection)
            assert got.startswith(b"HTTP/1.1 408 ")
            assert b"took more than 0.3 seconds to arrive" in got
            assert ended(connection, 20)

    def test_time_for_an_answer(self, server, monkeypatch):
        """Of somebody who asks for a lot and reads nothing."""
        monkeypatch.setattr(connections, "ANSWER_SECONDS", 0.3)
        asked = head("/openapi.json", "GET")
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", server.port))
            connection.settimeout(1)
            deadline = time.monotonic() + 60
            with pytest.raises(ConnectionError):  # noqa: PT012
                while time.monotonic() < deadline:
                    with contextlib.suppress(TimeoutError):
                        connection.sendall(asked)
        assert works(server)

    def test_clients_that_go_away(self, server, capfd):
        with Silent(server.port, 20, REQUEST, head(Content_Length=100) + b"{"):
            pass
        assert works(server)
        assert "failed" not in capfd.readouterr().err


class TestSizes:
    @pytest.mark.parametrize(
        ("kind", "most"),
        [("application/json", 4), ("image/png", 8), ("multipart/form-data; boundary=x", 16)],
    )
    def test_a_body_that_says_it_is_too_large(self, server, kind, most):
        size = most * 2**20 + 1
        for length in (size, 10**40):
            sent = head(Content_Length=length, Content_Type=kind)
            with Silent(server.port, 1, sent) as (connection,):
                got = answer(connection)
                assert got.startswith((b"HTTP/1.1 413 ", b"HTTP/1.1 400 "))
                assert b"413" not in got[:20] or f"more than {most} MiB".encode() in got
                assert ended(connection, 20)
        assert works(server)

    @pytest.mark.parametrize("length", ["-1", "x", "1, 2", "0x10", ""])
    def test_a_length_that_is_none(self, server, length):
        with Silent(server.port, 1, head(Content_Length=length) + BODY) as (connection,):
            assert answer(connection)[:13] in (b"HTTP/1.1 400 ", b"HTTP/1.1 413 ")
        assert works(server)

    def chunks(self, connection, piece, most):
        """Send a piece again and again; return how many bytes were sent before an end."""
        sent = 0
        with contextlib.suppress(OSError):
            while sent < most:
                connection.sendall(piece)
                sent += len(piece)
        return sent

    def test_a_body_that_does_not_say_so(self, server):
        """Chunked: the server has to count."""
        sent = head(Transfer_Encoding="chunked")
        with Silent(server.port, 1, sent) as (connection,):
            piece = b"10000\r\n" + b" " * 2**16 + b"\r\n"
            assert self.chunks(connection, piece, 2**30) < 2**28
            with contextlib.suppress(ConnectionError):
                assert answer(connection).startswith(b"HTTP/1.1 413 ")
        assert works(server)

    @pytest.mark.parametrize(
        "begin",
        [
            b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ",
            b"POST /",
            b"POST /predict HTTP/1.1\r\n" + b"A: b\r\n" * 20_000,
        ],
    )
    def test_a_head_without_end(self, server, begin):
        with Silent(server.port, 1, begin) as (connection,):
            assert self.chunks(connection, b"a" * 2**16, 2**26) < 2**26
        assert works(server)

    @pytest.mark.parametrize(
        "begin", [b"1;", b"0\r\nX: ", b"1\r\n{\r\n0\r\n" + b"A: b\r\n" * 1000 + b"X: "]
    )
    def test_what_is_beside_a_chunked_body(self, server, monkeypatch, begin):
        """Extensions and trailers, which are no part of the body, and of which there is no end."""
        monkeypatch.setattr(fast, "MOST_REQUEST_BYTES", 2**20)
        with Silent(server.port, 1, head(Transfer_Encoding="chunked") + begin) as (connection,):
            assert self.chunks(connection, b"a" * 2**16, 2**26) < 2**26
        assert works(server)

    def test_bytes_in_flight(self, server, monkeypatch):
        monkeypatch.setattr(bodies, "MOST_BYTES_IN_FLIGHT", 1000)
        half = head(Content_Length=2000) + b" " * 600
        with Silent(server.port, 1, half) as (first,):
            first.settimeout(0.3)
            with pytest.raises(TimeoutError):
                first.recv(1)  # it is waited for
            with Silent(server.port, 1, half) as (connection,):
                assert answer(connection).startswith(b"HTTP/1.1 503 ")
        assert works(server)


class TestHttp:
    def test_pipelined_requests(self, server):
        """They are answered in their order."""
        wrong = head("/predict/other", Content_Length=2) + b"{}"
        sent = [REQUEST, wrong, REQUEST, wrong, REQUEST]
        with Silent(server.port, 1, b"".join(sent)) as (connection,):
            got = answer(connection, 5)
        assert [part[:3] for part in got.split(b"HTTP/1.1 ")[1:]] == [
            b"200", b"404", b"200", b"404", b"200",
        ]  # fmt: skip

    def test_too_many_pipelined_requests(self, server):
        with Silent(server.port, 1, REQUEST * 500) as (connection,):
            assert ended(connection, 20)
        assert works(server)

    @pytest.mark.parametrize(
        "sent",
        [
            b"nonsense\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"GET / HTTP/9.9\r\n\r\n",
            head(Content_Length=5, Transfer_Encoding="chunked") + b"0\r\n\r\n",
            head(Transfer_Encoding="chunked") + b"zz\r\n",
        ],
    )
    def test_what_is_not_http(self, server, sent):
        with Silent(server.port, 1, sent) as (connection,):
            connection.settimeout(20)
            with contextlib.suppress(ConnectionError):
                assert connection.recv(2**16)[:12] in (b"", b"HTTP/1.1 400")
        assert works(server)

    def test_an_upgrade(self, server):
        asked = head("/health", "GET", Connection="Upgrade", Upgrade="websocket")
        with Silent(server.port, 1, asked) as (connection,):
            connection.settimeout(20)
            assert connection.recv(2**16).startswith(b"HTTP/1.1 200 ")

    def test_a_client_that_waits_until_it_is_told_to_go_on(self, server):
        sent = head(Content_Length=len(BODY), Expect="100-continue")
        with Silent(server.port, 1, sent) as (connection,):
            connection.settimeout(20)
            assert connection.recv(2**16).startswith(b"HTTP/1.1 100 ")
            connection.sendall(BODY)
            assert answer(connection).startswith(b"HTTP/1.1 200 ")

    def test_http_1_0(self, server):
        sent = REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0")
        with Silent(server.port, 1, sent) as (connection,):
            assert b'"predictions"' in answer(connection)
            assert ended(connection, 20)

    @pytest.mark.parametrize(
        ("fields", "status"),
        [
            ({"Host": "localhost:1"}, 200),
            ({"Host": "[::1]:9000"}, 200),
            ({"Host": "LOCALHOST"}, 200),
            ({"Origin": "http://localhost:3000"}, 200),
            ({"Host": "evil.example"}, 421),
            ({"Host": "127.0.0.1.evil.example"}, 421),
            ({"Host": ""}, 421),
            ({"Origin": "http://evil.example"}, 421),
            ({"Origin": "null"}, 421),
        ],
    )
    def test_names(self, server, fields, status):
        """A foreign page's name whose address was changed to this machine's is refused."""
        for path, method, body in (("/predict", "POST", BODY), ("/health", "GET", b"")):
            sent = head(path, method, Content_Length=len(body), **fields) + body
            with Silent(server.port, 1, sent) as (connection,):
                connection.settimeout(20)
                assert connection.recv(2**16).startswith(f"HTTP/1.1 {status} ".encode())

    def test_a_server_for_others_goes_by_any_name(self, model):
        with (
            service([("small", str(model))], host="0.0.0.0", port=0) as server,
            Silent(server.port, 1, REQUEST.replace(b"127.0.0.1", b"some.name")) as (connection,),
        ):
            assert answer(connection).startswith(b"HTTP/1.1 200 ")
            assert server.address.startswith("http://")
            assert "0.0.0.0" not in server.address

    def test_no_delay(self, server):
        """Head and body of an answer are two packets; the second one must not be kept back."""
        with Silent(server.port, 1, REQUEST) as (connection,):
            assert answer(connection)
            begun = time.monotonic()
            for _ in range(20):
                connection.sendall(REQUEST)
                assert answer(connection)
            slow = time.monotonic() - begun
        (own,) = server._server._server.servers
        assert own.sockets[0].proto == socket.IPPROTO_TCP
        assert slow < 20


def test_failures_are_lines_and_few(server, monkeypatch, capfd):
    from fullback.server import log

    monkeypatch.setattr(log, "ONE_LINE", own := log.OneLine())
    logger, written = logging.getLogger("fullback.serve"), []
    monkeypatch.setattr(logger, "filters", [own])
    monkeypatch.setattr(logger, "handlers", [handler := logging.Handler()])
    handler.emit = lambda record: written.append(handler.format(record))
    monkeypatch.setattr("fullback.serve.handler.read_json", None)
    for _ in range(20):
        with Silent(server.port, 1, REQUEST) as (connection,):
            assert answer(connection).startswith(b"HTTP/1.1 500 ")
    assert written == ["POST /predict failed: TypeError: 'NoneType' object is not callable"] * 5
    assert "Traceback" not in capfd.readouterr().err
