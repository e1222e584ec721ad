"""Bad input: always a 4xx in OpenAI's exact form, and the server goes on."""

import json
import socket

import openai
import pytest

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "What is 2+2?"}], "temperature": 0, "max_tokens": 20}


def check_error(response, status, param=None, code=None):
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(response.json()) == {"error"} and set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str) and error["message"] and isinstance(error["type"], str)
    assert error["param"] is None or isinstance(error["param"], str)
    assert error["code"] is None or isinstance(error["code"], str)
    assert "x-request-id" in response.headers
    assert response.headers["content-type"] == "application/json"
    if param is not None:
        assert error["param"] == param, error
    if code is not None:
        assert error["code"] == code, error
    return error


@pytest.fixture(autouse=True)
def still_answers(http):
    yield
    answer = http.post(CHAT, json=HELLO)
    assert answer.json()["choices"][0]["message"]["content"] == "2 + 2 = 4."


NUMBERS = ["temperature", "top_p", "n", "max_tokens", "max_completion_tokens", "top_k", "min_p", "seed", "top_logprobs", "min_tokens",
           "presence_penalty", "frequency_penalty", "repetition_penalty", "timeout", "priority"]
BAD_VALUES = [-1, 2**63, 1e308, "1", [1], {}, True, float("nan"), -2.5, 2**70]
LEGAL = {("presence_penalty", -1), ("frequency_penalty", -1), ("priority", -1)}


@pytest.mark.parametrize("name, value", [(name, value) for name in NUMBERS for value in BAD_VALUES if type(value) in (list, dict) or (name, value) not in LEGAL])
def test_numbers_out_of_range(http, name, value):
    sent = {**HELLO, "logprobs": True, name: value}
    if name == "max_completion_tokens":
        del sent["max_tokens"]
    check_error(http.post(CHAT, content=json.dumps(sent), headers={"Content-Type": "application/json"}), 400, param=name)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"messages": "\xff"}', b'{"a": "\x00"}', b"\x00", b"[" * 100000, b'{"a":' * 100000,
                                  b'{"messages": [], "messages": }', b'{"a": 1} trailing', b'{"a": "\\ud800"}', b'{"a": 1}\x00{"b": 2}'])
def test_malformed_bodies(http, body):
    check_error(http.post(CHAT, content=body, headers={"Content-Type": "application/json"}), 400)


@pytest.mark.parametrize("messages, param", [
    (None, "messages"), ([], None), ("hi", "messages"), ([1], None), ([{"role": "user"}], None), ([{"role": "wizard", "content": "x"}], None),
    ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], None), ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], None),
    ([{"role": "user", "content": "a"}, {"role": "tool", "content": "b", "tool_call_id": "x"}], "messages[1].role"),
])
def test_bad_messages(http, messages, param):
    check_error(http.post(CHAT, json={"messages": messages}), 400, param=param)


def test_context_length(http, client):
    error = check_error(http.post(CHAT, json={**HELLO, "max_tokens": 10**6}), 400, code="context_length_exceeded")
    assert "32768" in error["message"]
    check_error(http.post("/v1/completions", json={"prompt": "a " * 60000}), 400, code="context_length_exceeded", param="prompt")
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="tiny", messages=HELLO["messages"], max_tokens=10**6)
    assert raised.value.code == "context_length_exceeded"


def test_unknown_model(client, http):
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="gpt-9", messages=HELLO["messages"])
    assert raised.value.code == "model_not_found" and raised.value.param == "model"
    check_error(http.get("/v1/models/other"), 404, code="model_not_found")


def test_paths_and_methods(http):
    check_error(http.get("/v1/nothing"), 404)
    check_error(http.post("/v1/nothing", json={}), 404)
    check_error(http.get("/v1/" + "x" * 7000), 404)
    check_error(http.get("/v1/" + "x" * 9000), 414)
    for path in ("/metrics", "/", "/openapi.json"):
        assert "not built yet" in check_error(http.get(path), 404)["message"]
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"):
        response = http.request(method, CHAT)
        check_error(response, 405)
        assert response.headers["allow"] == "POST"
    check_error(http.post("/v1/models", json={}), 405)
    assert http.head("/health").status_code == 200


def test_media_types(http):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        check_error(http.post(CHAT, content=b"{}", headers={"Content-Type": kind}), 415)
    check_error(http.post(CHAT, content=b"\x1f\x8b", headers={"Content-Type": "application/json", "Content-Encoding": "gzip"}), 415)
    assert http.post(CHAT, content=json.dumps(HELLO), headers={"Content-Type": "application/json; charset=utf-8"}).status_code == 200


def test_what_is_not_built_is_refused_by_name(http):
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    assert "tool_choice none" in check_error(http.post(CHAT, json={**HELLO, "tools": [tool]}), 400, param="tools", code="unsupported_parameter")["message"]
    check_error(http.post(CHAT, json={**HELLO, "tools": [tool], "tool_choice": "required"}), 400, code="unsupported_parameter")
    check_error(http.post(CHAT, json={**HELLO, "response_format": {"type": "json_object"}}), 400, param="response_format", code="unsupported_parameter")
    check_error(http.post(CHAT, json={**HELLO, "structured_outputs": {"choice": ["a"]}}), 400, param="structured_outputs", code="unsupported_parameter")
    assert http.post(CHAT, json={**HELLO, "response_format": {"type": "text"}}).status_code == 200


def test_ignored_parameters_are_named(http):
    answer = http.post(CHAT, json={**HELLO, "store": True, "made_up\r\n": 1, "user": "u"})
    assert answer.status_code == 200
    assert sorted(answer.headers["x-ignored-params"].split(", ")) == ["made_up??", "store"]
    assert "x-ignored-params" not in http.post(CHAT, json=HELLO).headers
    with http.stream("POST", CHAT, json={**HELLO, "store": True, "stream": True}) as stream:
        assert stream.headers["x-ignored-params"] == "store"


def test_strict(start):
    strict = start("--strict")
    with strict.http() as http:
        check_error(http.post(CHAT, json={**HELLO, "store": True}), 400, param="store", code="unsupported_parameter")
        check_error(http.post(CHAT, json={**HELLO, "made_up": 1}), 400, param="made_up", code="unsupported_parameter")
        assert http.post(CHAT, json=HELLO).status_code == 200
    assert strict.stop() == 0


def test_bad_completions(http):
    for prompt in (None, 5, [], [[]], {}, [1, "a"], [-1], [32768], [1.5], [[1], "a"]):
        check_error(http.post("/v1/completions", json={"prompt": prompt}), 400)
    check_error(http.post("/v1/completions", json={"prompt": "a", "max_tokens": 0}), 400, param="max_tokens")
    check_error(http.post("/v1/completions", json={"prompt": "a", "logprobs": 21}), 400, param="logprobs")
    for tokens in (None, "a", [-1], [32768], [1.5], ["1"]):
        check_error(http.post("/detokenize", json={"tokens": tokens}), 400)
    check_error(http.post("/tokenize", json={}), 400)
    check_error(http.post("/tokenize", json={"prompt": ["a"]}), 400)
    check_error(http.post("/tokenize", json={"prompt": "a", **HELLO}), 400, param="prompt")
    check_error(http.post("/apply-template", json={}), 400, param="messages")


def test_limits(start):
    small = start("--max-body-bytes", "2000", "--max-n", "2", "--max-stop", "1", "--max-logit-bias", "1", "--max-json-depth", "8")
    with small.http() as http:
        check_error(http.post(CHAT, json={**HELLO, "user": "x" * 3000}), 413)
        check_error(http.post(CHAT, content=(b"x" * 1000 for _ in range(3)), headers={"Content-Type": "application/json"}), 413)
        check_error(http.post(CHAT, content=b" " * 30_000_000, headers={"Content-Type": "application/json"}), 413)
        check_error(http.post(CHAT, json={**HELLO, "n": 3}), 400, param="n")
        check_error(http.post(CHAT, json={**HELLO, "stop": ["a", "b"]}), 400, param="stop")
        check_error(http.post(CHAT, json={**HELLO, "logit_bias": {"1": 0, "2": 0}}), 400, param="logit_bias")
        check_error(http.post(CHAT, json={**HELLO, "x": [[[[[[[[1]]]]]]]]}), 400)
        assert http.post(CHAT, json=HELLO).status_code == 200
    assert small.stop() == 0


def raw(server, data, shut=False):
    """What the server answers to these bytes, until it closes."""
    with socket.create_connection(("127.0.0.1", server.port), 60) as connection:
        connection.sendall(data)
        if shut:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        try:
            while piece := connection.recv(65536):
                received += piece
        except ConnectionResetError:
            pass
    return received


@pytest.mark.parametrize("data", [
    b"\r\n\r\n", b"GARBAGE\r\n\r\n", b"GET /health HTTP/9.9\r\n\r\n", b"BREW /health HTTP/1.1\r\n\r\n",
    b"GET /health HTTP/1.1\r\nX: " + b"a" * 20000 + b"\r\n\r\n", b"GET /health HTTP/1.1\r\n" + b"X: a\r\n" * 200 + b"\r\n",
    b"POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}   ",
    b"POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{}   ",
    b"POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: banana\r\n\r\n{}",
    b"POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
])
def test_malformed_http(server, data):
    received = raw(server, data)
    assert received.startswith(b"HTTP/1.1 4"), received
    body = received.split(b"\r\n\r\n", 1)[1]
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


def test_a_body_that_ends_early(server):
    raw(server, b"POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{", shut=True)
    raw(server, b"POST /v1/comple", shut=True)


def test_request_ids(http):
    assert http.get("/health", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert http.post(CHAT, json=HELLO, headers={"x-request-id": "mine-2"}).headers["x-request-id"] == "mine-2"
    assert http.get("/nothing", headers={"x-request-id": "bad id"}).headers["x-request-id"] != "bad id"
    first, second = (http.get("/health").headers["x-request-id"] for _ in range(2))
    assert first != second


def test_timing_headers(http):
    headers = http.post(CHAT, json=HELLO).headers
    assert all(int(headers[name]) >= 0 for name in ("x-queue-ms", "x-prefill-ms", "x-decode-ms"))


def test_no_cors_unless_configured(http, start):
    assert "access-control-allow-origin" not in http.get("/health", headers={"Origin": "http://a"}).headers
    open_to_a = start("--cors-origin", "http://a")
    with open_to_a.http() as other:
        assert other.get("/health", headers={"Origin": "http://a"}).headers["access-control-allow-origin"] == "http://a"
        assert "access-control-allow-origin" not in other.get("/health", headers={"Origin": "http://b"}).headers
        preflight = other.options(CHAT, headers={"Origin": "http://a", "Access-Control-Request-Method": "POST"})
        assert preflight.status_code == 204 and "POST" in preflight.headers["access-control-allow-methods"]
        assert other.options(CHAT, headers={"Origin": "http://b"}).status_code == 405
    assert open_to_a.stop() == 0
