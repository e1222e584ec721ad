"""The program's command line: every failure is one line and a non-zero exit, generate streams, serve starts and leaves as promised."""
import json
import os
import pathlib
import re
import signal
import struct
import subprocess
import time
import urllib.error
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = os.environ.get("TRAMONTANE_BIN", str(ROOT / "build/release/tramontane"))
MODEL = str(ROOT / "tests/golden/data/tiny-v0.3-bf16")
# Nothing of the caller's own settings.
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("TRAMONTANE_")}


def run(*arguments, stdin="", **variables):
    return subprocess.run(
        [BIN, *arguments], input=stdin, capture_output=True, text=True, timeout=120, env=ENVIRONMENT | variables
    )


def assert_one_line_failure(result, *words):
    assert result.returncode != 0
    assert result.returncode > 0, f"killed by signal {-result.returncode}"
    lines = [line for line in result.stderr.splitlines() if line.startswith("tramontane: ")]
    assert len(lines) == 1 and result.stderr.splitlines()[-1] == lines[0], result.stderr
    for word in words:
        assert word in lines[0]


def test_a_hostile_name_does_not_reach_the_terminal(tmp_path):
    header = json.dumps({"a\n\u001b[31m": {"dtype": "F5", "shape": [1], "data_offsets": [0, 1]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"x")
    (tmp_path / "config.json").write_text((pathlib.Path(MODEL) / "config.json").read_text())
    result = run("inspect", "--model", str(tmp_path))
    assert_one_line_failure(result, "model.safetensors", "unknown dtype F5")
    assert result.stderr[:-1].isprintable(), result.stderr


def test_version():
    result = run("--version")
    assert result.returncode == 0
    assert re.fullmatch(r"tramontane \d+\.\d+\.\d+\n", result.stdout)


def test_help_names_flag_variable_and_default():
    text = run("serve", "--help").stdout
    assert "--port" in text and "TRAMONTANE_PORT" in text and "8080" in text


def test_options_are_the_readmes_table():
    assert run("options").stdout in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], ["subcommand"]),
        (["dance"], ["dance"]),
        (["serve"], ["--model"]),
        (["serve", "--model", "/nonexistent"], ["/nonexistent"]),
        (["serve", "--model", MODEL, "--port", "99999"], ["--port", "99999"]),
        (["serve", "--model", MODEL, "--prot", "1"], ["--prot"]),
        (["serve", "--model", MODEL, "--backend", "cuda", "--port", "0"], ["--backend cuda", "CUDA"]),
        (["serve", "--model", MODEL, "--step-tokens", "1", "--port", "0"], ["--step-tokens", "--max-sequences"]),
        (["serve", "--model", MODEL, "--host", "not an address", "--port", "0"], ["not an address"]),
        (["generate", "--model", MODEL], ["--prompt"]),
        (["generate", "--model", str(ROOT / "README.md"), "--prompt", "x"], ["README.md"]),
        (["generate", "--model", MODEL, "--prompt", "x", "--temperature", "-1"], ["temperature"]),
        (["generate", "--model", MODEL, "--prompt", "x", "--chat-template", "chatml"], ["<|im_start|>"]),
        (["inspect", "--model", "/nonexistent"], ["/nonexistent"]),
        (["tokenize", "--tokenizer", "/nonexistent"], ["/nonexistent"]),
        (["logits", "--model", MODEL, "--ids", "/nonexistent", "--out", "x.safetensors"], ["/nonexistent"]),
    ],
)
def test_failures_are_one_line(arguments, words):
    assert_one_line_failure(run(*arguments), *words)


def test_variable_out_of_range_is_named():
    assert_one_line_failure(run("serve", "--model", MODEL, TRAMONTANE_PORT="70000"), "--port", "70000")


def test_generate_applies_the_chat_template():
    result = run("generate", "--model", MODEL, "--prompt", "What is 2+2?", "--temperature", "0")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "2 + 2 = 4.\n"
    assert "tokens/s" in result.stderr


def test_generate_reads_standard_input_and_repeats_by_seed():
    arguments = ["generate", "--model", MODEL, "--prompt", "-", "--temperature", "2", "--max-tokens", "12"]
    first, again, other = (run(*arguments, "--seed", seed, stdin="Tell me.") for seed in ("7", "7", "8"))
    assert first.returncode == 0, first.stderr
    assert first.stdout == again.stdout
    assert first.stdout != other.stdout


def test_generate_raw_and_stop():
    arguments = ["generate", "--model", MODEL, "--temperature", "0", "--raw", "--max-tokens", "12", "--prompt", "What is"]
    raw = run(*arguments)
    assert raw.returncode == 0 and len(raw.stdout) > 8
    stop = raw.stdout[3:6]
    assert run(*arguments, "--stop", stop).stdout == raw.stdout[: raw.stdout.index(stop)] + "\n"


class Server:
    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [BIN, "serve", "--model", MODEL, "--port", "0", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
        )
        line = self.process.stdout.readline()
        found = re.fullmatch(r"listening on (http://127\.0\.0\.1:\d+)\n", line)
        assert found, line + self.process.stderr.read()
        self.url = found.group(1)
        self.curl = self.process.stdout.readline()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def end(self, number):
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


def test_the_printed_curl_line_works():
    with Server() as server:
        command = server.curl.removeprefix("try: ")
        answer = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120)
        assert answer.returncode == 0, answer.stderr
        assert "data: {" in answer.stdout and answer.stdout.rstrip().endswith("data: [DONE]")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_server_with_0(number):
    with Server() as server:
        assert urllib.request.urlopen(server.url + "/health/ready").status == 200
        assert server.end(number) == 0


def long_stream(url):
    """A stream that outlasts the test unless something ends it."""
    body = b'{"messages": [{"role": "user", "content": "Go on."}], "stream": true, "ignore_eos": true}'
    request = urllib.request.Request(url + "/v1/chat/completions", body, {"Content-Type": "application/json"})
    stream = urllib.request.urlopen(request)
    # Comments (": ping") may come first.
    while not (line := stream.readline()).startswith(b"data: "):
        assert line, "the stream ended before it began"
    return stream


def test_sigterm_drains_and_a_second_one_stops_at_once():
    with Server("--drain-timeout", "600", "--max-model-len", "30000") as server:
        stream = long_stream(server.url)
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(urllib.error.HTTPError) as refused:
            # The signal is on its way; until it has arrived the server is still ready.
            while True:
                urllib.request.urlopen(server.url + "/health/ready").close()
                time.sleep(0.01)
        assert refused.value.code == 503
        assert stream.readline() is not None and server.process.poll() is None, "the stream in flight goes on"
        assert server.end(signal.SIGTERM) == 0
        assert b"[DONE]" not in stream.read()


def test_a_stream_that_outlasts_the_drain_timeout_gets_an_error_event():
    with Server("--drain-timeout", "0.2", "--max-model-len", "30000") as server:
        stream = long_stream(server.url)
        assert server.end(signal.SIGTERM) == 0
        assert b'"error"' in stream.read()


def test_a_taken_port_is_named():
    with Server() as server:
        port = server.url.rsplit(":", 1)[1]
        assert_one_line_failure(run("serve", "--model", MODEL, "--port", port), port)


def test_reachable_without_a_key_is_warned_of():
    with Server("--host", "0.0.0.0") as server:
        server.end(signal.SIGTERM)
        assert "no --api-key" in server.process.stderr.read()
