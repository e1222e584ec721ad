"""Keys, queueing, cancelling, slow clients and shutting down."""

import concurrent.futures
import json
import signal
import socket
import time

import httpx
import openai
import pytest

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "What is 2+2?"}], "temperature": 0, "max_tokens": 20}
# Some seconds to minutes of work on any machine: a test that has to wait for its end fails.
LONG = {"prompt": "The licence is", "max_tokens": 30000, "ignore_eos": True, "seed": 1}


def open_stream(server, path, body):
    """A connection that has sent a streaming request and read the first data; returns it and what was read."""
    connection = socket.create_connection(("127.0.0.1", server.port), 60)
    sent = json.dumps({**body, "stream": True}).encode()
    connection.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(sent)) + sent)
    received = b""
    while b"data: " not in received:
        piece = connection.recv(4096)
        assert piece, received
        received += piece
    return connection, received


def test_keys(start, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("# file\nfrom-file\n")
    server = start("--api-key", "alpha", "--api-key-file", str(keys))
    with server.http() as http:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "alpha"}, {"Authorization": "Basic alpha"}):
            for response in (http.get("/v1/models", headers=headers), http.post(CHAT, json=HELLO, headers=headers), http.get("/nothing", headers=headers)):
                assert response.status_code == 401 and response.json()["error"]["code"] == "invalid_api_key"
                assert response.headers["www-authenticate"] == "Bearer"
        assert http.get("/health").status_code == 200
        for key in ("alpha", "from-file"):
            assert http.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    with pytest.raises(openai.AuthenticationError):
        server.client("wrong").models.list()
    assert server.client("alpha").models.list().data[0].id == "tiny"
    # What one key computed is nothing to another.
    long = [{"role": "user", "content": "word " * 200}]

    def cached(key):
        answer = server.client(key).chat.completions.create(model="tiny", messages=long, max_tokens=2, temperature=0)
        return answer.usage.prompt_tokens_details.cached_tokens

    assert cached("alpha") == 0 and cached("alpha") > 0 and cached("from-file") == 0
    line = server.wait_for_line(r"POST /v1/chat/completions 200 .*key=key-2")
    assert "word" not in "".join(server.lines) and "alpha" not in "".join(server.lines) and "from-file" not in line
    assert server.stop() == 0


def test_sse_headers_and_ping(server):
    connection, received = open_stream(server, CHAT, HELLO)
    with connection:
        head, body = received.split(b"\r\n\r\n", 1)
        head = head.lower()
        assert b"200 ok" in head and b"content-type: text/event-stream" in head and b"x-accel-buffering: no" in head and b"x-request-id: " in head
        while not body.endswith(b"0\r\n\r\n"):
            body += connection.recv(4096)
    assert b": ping" in body and body.index(b": ping") < body.index(b"data: ")
    assert b"data: [DONE]\n\n" in body


def test_keep_alive_serves_many_requests_on_one_connection(server):
    with socket.create_connection(("127.0.0.1", server.port), 60) as connection:
        for _ in range(5):
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            received = b""
            while not received.endswith(b"}"):
                received += connection.recv(4096)
            assert b"timeout=75" in received


def test_a_gone_client_is_cancelled(start):
    server = start()
    stream, _ = open_stream(server, "/v1/completions", LONG)
    server.wait_until(lambda state: state["running"] == 1)
    stream.close()
    server.wait_until(lambda state: state["running"] == 0)
    assert "client gone" in server.wait_for_line(r"POST /v1/completions 200")
    # The same without a stream: nothing is written until the end, so the closing itself is seen.
    with socket.create_connection(("127.0.0.1", server.port), 60) as waiting:
        sent = json.dumps(LONG).encode()
        waiting.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(sent) + sent)
        server.wait_until(lambda state: state["running"] == 1)
    server.wait_until(lambda state: state["running"] == 0)
    assert "client gone" in server.wait_for_line(r"POST /v1/completions 499")
    with server.http() as http:
        assert http.post(CHAT, json=HELLO).json()["choices"][0]["message"]["content"] == "2 + 2 = 4."
    assert server.stop() == 0


def test_a_client_gone_while_queued_is_cancelled(start):
    server = start("--max-sequences", "1")
    running, _ = open_stream(server, "/v1/completions", LONG)
    with socket.create_connection(("127.0.0.1", server.port), 60) as waiting:
        sent = json.dumps(LONG).encode()
        waiting.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(sent) + sent)
        server.wait_until(lambda state: state["waiting"] == 1)
    server.wait_until(lambda state: state["waiting"] == 0 and state["running"] == 1)
    running.close()
    server.wait_until(lambda state: state["running"] == 0)
    assert server.stop() == 0


def test_a_full_queue(start):
    server = start("--max-sequences", "1", "--max-queue", "1")
    running, _ = open_stream(server, "/v1/completions", LONG)
    with concurrent.futures.ThreadPoolExecutor(1) as pool, server.http() as http:
        queued = pool.submit(lambda: server.http().post(CHAT, json=HELLO))
        server.wait_until(lambda state: state["waiting"] == 1)
        for stream in (False, True):
            refused = http.post(CHAT, json={**HELLO, "stream": stream})
            assert refused.status_code == 429 and refused.json()["error"]["code"] == "rate_limit_exceeded"
            assert int(refused.headers["retry-after"]) >= 1
        with pytest.raises(openai.RateLimitError):
            server.client().chat.completions.create(model="tiny", messages=HELLO["messages"])
        running.close()
        assert queued.result().json()["choices"][0]["message"]["content"] == "2 + 2 = 4."
    assert server.stop() == 0


def test_deadline(start):
    server = start("--max-sequences", "1")
    running, _ = open_stream(server, "/v1/completions", LONG)
    with server.http() as http:
        late = http.post(CHAT, json={**HELLO, "timeout": 0.2})
        assert late.status_code == 408 and set(late.json()["error"]) == {"message", "type", "param", "code"}
        lines = http.post(CHAT, json={**HELLO, "timeout": 0.2, "stream": True}).text.strip().split("\n\n")
        assert "deadline" in json.loads(lines[-1].removeprefix("data: "))["error"]["message"]
        running.close()
        cut = http.post("/v1/completions", json={**LONG, "timeout": 1.0}).json()
        assert cut["choices"][0]["finish_reason"] == "length" and 0 < cut["usage"]["completion_tokens"] < 30000
    assert server.stop() == 0


def test_a_slow_reader_holds_nobody_up(server):
    slow, _ = open_stream(server, "/v1/completions", LONG)
    with slow, server.http() as http:
        for _ in range(10):
            assert http.post(CHAT, json=HELLO).json()["choices"][0]["message"]["content"] == "2 + 2 = 4."


def test_more_connections_than_threads(start):
    server = start("--http-threads", "2")
    idle = [socket.create_connection(("127.0.0.1", server.port), 60) for _ in range(2)]
    for connection in idle:  # each has its thread for certain once it was answered
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    with server.http() as http:
        refused = http.get("/v1/models")
        assert refused.status_code == 503 and refused.json()["error"]["code"] == "overloaded"
    for connection in idle:
        connection.close()
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with server.http() as http:
            if http.get("/v1/models").status_code == 200:
                break
    else:
        pytest.fail("the threads never came back")
    assert server.stop() == 0


def test_drain_lets_streams_finish(start):
    server = start("--drain-timeout", "600")  # what a busy machine may take
    stream, received = open_stream(server, "/v1/completions", {**LONG, "max_tokens": 3000})
    server.process.send_signal(signal.SIGTERM)
    server.wait_until(lambda state: state["status"] == "draining")
    with server.http() as http:
        assert http.get("/health/ready").status_code == 503 and http.get("/health/live").status_code == 200
        refused = http.post(CHAT, json=HELLO)
        assert refused.status_code == 503 and refused.json()["error"]["code"] == "shutting_down"
    with stream:
        while piece := stream.recv(65536):
            received += piece
    assert b'"finish_reason":"length"' in received and b"data: [DONE]" in received, received[-1000:]
    assert server.process.wait(60) == 0


def test_drain_cuts_streams_off_in_the_end(start):
    server = start("--drain-timeout", "0.2")
    stream, received = open_stream(server, "/v1/completions", LONG)
    server.process.send_signal(signal.SIGTERM)
    with stream:
        while piece := stream.recv(65536):
            received += piece
    events = [line[6:] for line in received.split(b"\n") if line.startswith(b"data: ")]
    assert json.loads(events[-1])["error"]["code"] == "shutting_down"
    assert received.endswith(b"0\r\n\r\n"), "a proper end"
    assert server.process.wait(60) == 0


def test_a_second_signal_stops_at_once(start):
    server = start("--drain-timeout", "600")
    stream, _ = open_stream(server, "/v1/completions", LONG)
    server.process.send_signal(signal.SIGTERM)
    server.wait_until(lambda state: state["status"] == "draining")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    stream.close()


def test_an_idle_server_stops_cleanly(start):
    server = start()
    with server.http() as http:
        assert http.get("/health").json()["status"] == "ready"
        assert server.stop() == 0


def test_a_taken_port_is_one_clear_line(server):
    import subprocess

    from conftest import BIN, MODEL

    second = subprocess.run([BIN, "serve", "--model", MODEL, "--port", str(server.port)], capture_output=True, text=True, timeout=60)
    assert second.returncode != 0
    assert f"cannot listen on 127.0.0.1:{server.port}: Address already in use" in second.stderr
