"""The program built with CUDA, as a whole: on the PTX emulator or on a GPU. script/test cuda sets TRAMONTANE_CUDA to "emulator" or "gpu" and
LD_LIBRARY_PATH to the runtime of the one or the other, and TRAMONTANE_BACKEND to "cuda"."""

import concurrent.futures
import json
import os
import pathlib
import socket
import subprocess
import threading

import httpx
import pytest

from conftest import BIN, MODEL, ROOT, default_model
from test_service import open_stream

MODE = os.environ.get("TRAMONTANE_CUDA")
pytestmark = pytest.mark.skipif(MODE is None, reason="not a build with CUDA (script/test cuda)")
emulated = pytest.mark.skipif(MODE != "emulator", reason="a real GPU cannot be told to fail")

DATA = [ROOT / "tests/golden/data", ROOT.parent / "shared/golden"]
CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "What is 2+2?"}], "temperature": 0, "max_tokens": 20}
TOKENIZER = str(pathlib.Path(MODEL) / "tokenizer.model.v3")


def golden(name):
    for folder in DATA:
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"golden data not in this clone: {name}")


def streamed_ids(client, prompt, n, **options):
    """The ids of a streamed greedy answer."""
    ids = []
    for chunk in client.completions.create(
        model="tiny", prompt=prompt, max_tokens=n, temperature=0, stream=True, extra_body={"return_token_ids": True, "ignore_eos": True}, **options
    ):
        for choice in chunk.choices:
            ids += choice.model_dump().get("token_ids") or []
    return ids


def test_it_is_the_cuda_backend(server):
    backend = server.wait_for_line(r"^backend: ")
    assert backend.startswith("backend: cuda (") and ("PTX emulator" in backend) == (MODE == "emulator")
    memory = server.wait_for_line(r"^memory: ")
    for part in ("weights", "workspace", "graphs", "KV cache", "available"):
        assert part in memory


def check_greedy(reference, answer, name):
    """The rule of the golden data: equal until the end, or until the reference itself hardly preferred its token."""
    for step, (got, want) in enumerate(zip(answer, reference["greedy"])):
        if got != want:
            assert reference["margin"][step] < 0.5, f"{name}, step {step}: {got}, not {want}"
        if got != want or want == 2:
            break


def small_tokenizer(path, size=2048):
    """The tokenizer of the toys with a small vocabulary: the first pieces of Mistral's, all bytes among them. Of the ModelProto
    only the outermost fields are read, each of which is a length and its bytes; field 1 is a piece."""

    def varint(at):
        value = shift = 0
        while True:
            byte, at = model[at], at + 1
            value, shift = value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value, at

    model, at, pieces, rest = golden("tokenizers/tokenizer.model.v1").read_bytes(), 0, [], []
    while at < len(model):
        begin, (tag, at) = at, varint(at)
        length, at = varint(at)
        at += length
        (pieces if tag >> 3 == 1 else rest).append(model[begin:at])
    path.write_bytes(b"".join(pieces[:size] + rest))
    return str(path)


# Every format of the mission. The answers are those of the format's own library, wherever its margin is clear.
@pytest.mark.parametrize(
    "name", ["tiny-v0.3-bf16", "tiny-v0.2-fp4", "tiny-fp4-dq", "tiny-nf4", "tiny-nf4-dq", "tiny-v0.3-mlx-q4", "tiny-v0.3-mlx-q8"]
)
def test_golden_checkpoints_over_http(start, tmp_path, name):
    folder, expected = golden(name), json.loads(golden(name + ".expected.json").read_text())
    options = []
    if not any(folder.glob("tokenizer.model*")):
        is_small = json.loads((folder / "config.json").read_text())["vocab_size"] == 2048
        options = ["--tokenizer", small_tokenizer(tmp_path / "tokenizer.model") if is_small else TOKENIZER]
    server = start(*options, model=str(folder))
    client = server.client(strict=False)
    prompts = [prompt for prompt in expected["prompts"] if len(prompt["ids"]) < 100]
    assert len(prompts) > 1

    def one(prompt):
        return streamed_ids(client, prompt["ids"], 16)

    with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
        answers = list(pool.map(one, prompts))
    for prompt, answer in zip(prompts, answers):
        assert len(answer) == 16
        check_greedy(prompt[expected["normative"]], answer, prompt["name"])
    assert server.stop() == 0


def test_the_default_model_answers_as_transformers_does(start):
    """A whole answer of real weights; a minute on the emulator."""
    prompt = next(p for p in json.loads(golden("smollm2.expected.json").read_text())["prompts"] if p["name"] == "q9")
    reference = prompt["hf_fp32"]
    assert min(reference["margin"][:9]) > 0.5 and reference["greedy"][8] == 2, "each of its tokens is clear"
    server = start(model=default_model())
    answer = server.client().with_options(timeout=900).chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": prompt["text"]}], temperature=0, max_tokens=16, extra_body={"return_token_ids": True}
    )
    ids = answer.choices[0].model_dump()["token_ids"]
    assert ids[:8] == reference["greedy"][:8] and answer.usage.prompt_tokens == len(prompt["ids"])
    assert answer.choices[0].finish_reason == "stop" and answer.choices[0].message.content == "A week is approximately 7 days."
    assert server.stop() == 0


class Watch:
    """What /health says of running and waiting sequences, again and again, while the block runs."""

    def __init__(self, server):
        self.server, self.states, self.over = server, [], threading.Event()
        self.thread = threading.Thread(target=self._look)

    def _look(self):
        with self.server.http() as http:
            while not self.over.wait(0.05):
                state = http.get("/health").json()
                self.states.append((state["running"], state["waiting"]))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def test_preemption_changes_nothing(start):
    """12 blocks of 16 tokens for 6 answers that want 5 or more each."""
    prompts = [[1, *range(300 + 40 * i, 300 + 40 * i + 4 + 3 * i)] for i in range(6)]
    roomy, cramped = start(), start("--kv-cache-bytes", str(12 * 6144))
    alone = [streamed_ids(roomy.client(strict=False), prompt, 60) for prompt in prompts]
    client = cramped.client(strict=False)
    with Watch(cramped) as watch, concurrent.futures.ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda prompt: streamed_ids(client, prompt, 60), prompts))
    assert together == alone
    assert "(12 blocks, 192 tokens)" in cramped.wait_for_line(r"^memory: ")
    assert roomy.stop() == 0 and cramped.stop() == 0
    if MODE == "emulator":  # a real GPU is through before /health is asked
        # While none of the six had ended, fewer ran than had run before: some were preempted.
        ran = [running for running, waiting in watch.states if running + waiting == 6]
        assert any(later < max(ran[:i]) for i, later in enumerate(ran) if i > 0), watch.states


@pytest.mark.skipif(MODE != "emulator", reason="a real GPU ends such short answers before anyone can leave")
def test_a_client_gone_in_mid_stream(start):
    """Its sequences end and give their keys and values back, others go on: 12 blocks of 16 tokens for all."""
    server = start("--kv-cache-bytes", str(12 * 6144))
    client = server.client(strict=False)
    leaving, _ = open_stream(server, "/v1/completions", {"prompt": [1, 500, 501], "max_tokens": 80, "ignore_eos": True, "n": 2, "seed": 1})
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        staying = pool.submit(streamed_ids, client, [1, 600, 601], 24)
        server.wait_until(lambda state: state["running"] == 3)
        leaving.close()
        server.wait_until(lambda state: state["running"] == 1)
        assert not staying.done()
        answer = staying.result()
    assert "client gone" in server.wait_for_line(r"POST /v1/completions 200")
    assert len(answer) == 24 and answer == streamed_ids(client, [1, 600, 601], 24)
    # All 12 blocks: one that was not given back and this would wait for ever.
    assert len(streamed_ids(client, [1, *range(700, 884)], 7)) == 7
    assert server.stop() == 0


def test_a_client_gone_without_a_stream(start):
    server = start()
    sent = json.dumps({"prompt": "The licence is", "max_tokens": 30000, "ignore_eos": True, "seed": 1}).encode()
    with socket.create_connection(("127.0.0.1", server.port), 60) as waiting:
        waiting.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(sent) + sent)
        server.wait_until(lambda state: state["running"] == 1)
    server.wait_until(lambda state: state["running"] == 0)
    assert "client gone" in server.wait_for_line(r"POST /v1/completions 499")
    assert server.stop() == 0


@emulated
def test_a_device_lost_in_mid_stream(start):
    server = start(env={"CUDA_EMULATOR_FAIL_RUN": "attention:40:cudaErrorECCUncorrectable"})
    stream, received = open_stream(server, "/v1/completions", {"prompt": "The licence is", "max_tokens": 2000, "ignore_eos": True, "seed": 1})
    with stream:
        while piece := stream.recv(65536):
            received += piece
    events = [line[6:] for line in received.split(b"\n") if line.startswith(b"data: ")]
    assert len(events) > 2 and json.loads(events[0])["choices"]
    assert json.loads(events[-1])["error"]["code"] == "engine_failed"
    assert received.endswith(b"0\r\n\r\n"), "a proper end"
    try:  # as long as it is there to ask
        with server.http() as http:
            response = http.get("/health/ready")
            assert response.status_code == 503 and response.json()["status"] == "failed"
    except httpx.TransportError:
        pass
    assert server.process.wait(60) == 1
    assert "the engine failed" in "".join(server.lines)


@emulated
def test_a_lost_device_ends_the_server(start):
    # The prompt and the first tokens are computed; then the device is lost.
    server = start(env={"CUDA_EMULATOR_FAIL_RUN": "attention:40:cudaErrorECCUncorrectable"})
    with server.http() as http:
        response = http.post("/v1/completions", json={"prompt": "The licence is", "max_tokens": 2000, "ignore_eos": True})
        assert response.status_code == 500
        error = response.json()["error"]
        assert error["type"] == "server_error" and error["code"] == "engine_failed"
    assert server.process.wait(60) == 1
    last = "".join(server.lines)
    assert "the engine failed" in last and "for a step's results: uncorrectable ECC error" in last


@emulated
@pytest.mark.parametrize(
    "env, words",
    [
        ({"CUDA_EMULATOR_DRIVER": "0"}, "no CUDA driver on this machine"),
        ({"CUDA_EMULATOR_DRIVER": "12040"}, "the CUDA driver is too old: it knows CUDA 12.4"),
        ({"CUDA_EMULATOR_DEVICES": "0"}, "no CUDA device"),
        ({"CUDA_EMULATOR_COMPUTE": "75"}, "compute capability 7.5, at least 8.0"),
        ({"CUDA_EMULATOR_MEMORY": str(8 << 20)}, "not enough memory"),
    ],
)
def test_auto_takes_the_cpu_and_says_why(start, env, words):
    server = start("--backend", "auto", env=env)
    line = server.wait_for_line(r"^backend: ")
    assert line.startswith("backend: cpu (") and "not cuda: " in line and words in line
    with server.http() as http:
        assert http.post(CHAT, json=HELLO).json()["choices"][0]["message"]["content"] == "2 + 2 = 4."
    assert server.stop() == 0
    # Asked for by name it is an error.
    refused = subprocess.run([BIN, "serve", "--model", MODEL, "--port", "0", "--backend", "cuda"], capture_output=True, text=True, env={**os.environ, **env})
    assert refused.returncode == 1 and "--backend cuda: " in refused.stderr and words in refused.stderr


@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="there is a GPU here")
def test_starts_without_a_driver(start):
    """With the real CUDA runtime, on a machine that has no driver."""
    server = start("--backend", "auto", env={"LD_LIBRARY_PATH": ""})
    assert "not cuda: no CUDA driver on this machine" in server.wait_for_line(r"^backend: cpu \(")
    with server.http() as http:
        assert http.post(CHAT, json=HELLO).json()["choices"][0]["message"]["content"] == "2 + 2 = 4."
    assert server.stop() == 0


def test_the_memory_option_is_named(start):
    refused = subprocess.run([BIN, "serve", "--model", MODEL, "--port", "0", "--backend", "cuda", "--gpu-memory", "8MiB"], capture_output=True, text=True)
    assert refused.returncode == 1 and "raise --gpu-memory" in refused.stderr
