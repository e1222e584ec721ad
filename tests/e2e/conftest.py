"""Starts `tramontane serve` for the tests. TRAMONTANE_BIN: the program; TRAMONTANE_MODEL_DIR: the model (default: the tiny golden one);
options of servers can be set by their own variables (TRAMONTANE_BACKEND=cuda)."""

import os
import pathlib
import re
import signal
import subprocess
import threading
import time

import httpx
import openai
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = os.environ.get("TRAMONTANE_BIN", str(ROOT / "build/release/tramontane"))
MODEL = os.environ.get("TRAMONTANE_MODEL_DIR", str(ROOT / "tests/golden/data/tiny-v0.3-bf16"))
# Sanitizers and loaded machines are slow; nothing here depends on speed.
PATIENCE = float(os.environ.get("TRAMONTANE_PATIENCE", "60"))


def default_model():
    """SmolLM2's path, downloaded where it is not there yet."""
    return subprocess.run([ROOT / "script/default-model"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


class Server:
    def __init__(self, *options, model=MODEL, env=None):
        command = [BIN, "serve", "--model", model, "--host", "127.0.0.1", "--port", "0", "--threads", "2", "--served-model-name", "tiny", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **(env or {})})
        self.lines = []
        self.url = None
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._listening.wait(PATIENCE) or self.url is None:
            self.process.kill()
            raise RuntimeError("the server did not start:\n" + "".join(self.lines))
        self.port = int(self.url.rsplit(":", 1)[1])

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)
            found = re.search(r"listening on (http://\S+)", line)
            if found:
                self.url = found.group(1)
                self._listening.set()
        self._listening.set()

    def client(self, key="unused", strict=True):
        return openai.OpenAI(base_url=self.url + "/v1", api_key=key, max_retries=0, timeout=PATIENCE, _strict_response_validation=strict)

    def http(self, **options):
        return httpx.Client(base_url=self.url, timeout=PATIENCE, **options)

    def wait_for_line(self, pattern):
        """The first line of output that matches."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            for line in list(self.lines):
                if re.search(pattern, line):
                    return line
            time.sleep(0.02)
        raise AssertionError(f"no line matches {pattern}:\n" + "".join(self.lines[-20:]))

    def wait_until(self, condition):
        """Until /health shows a state for which condition(state) is true."""
        until = time.monotonic() + PATIENCE
        with self.http() as http:
            while time.monotonic() < until:
                state = http.get("/health").json()
                if condition(state):
                    return state
                time.sleep(0.02)
        raise AssertionError(f"last state: {state}")

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join(PATIENCE)
        return code


@pytest.fixture(scope="session")
def server():
    running = Server()
    yield running
    assert running.stop() == 0, "".join(running.lines[-20:])


@pytest.fixture(scope="session")
def client(server):
    return server.client()


@pytest.fixture(scope="session")
def loose(server):
    """For streamed completions: OpenAI's wire format has finish_reason null until the end, which the client's own types do not allow."""
    return server.client(strict=False)


@pytest.fixture(scope="session")
def http(server):
    with server.http() as opened:
        yield opened


@pytest.fixture
def start():
    """start(*options): a server of the test's own."""
    running = []

    def begin(*options, **more):
        running.append(Server(*options, **more))
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
