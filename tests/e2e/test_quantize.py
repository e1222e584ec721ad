"""`tramontane quantize` from the command line: every target can be loaded again, and what is unfinished never looks finished."""
import json
import pathlib
import signal
import struct
import subprocess
import sys
import time

import pytest

from conftest import default_model
from test_cli import BIN, ENVIRONMENT, MODEL, assert_one_line_failure, run

FORMATS = {
    "fp4": "bitsandbytes FP4", "nf4": "bitsandbytes NF4", "q8": "MLX affine 8-bit g64", "q6": "MLX affine 6-bit g64",
    "q4": "MLX affine 4-bit g64", "q3": "MLX affine 3-bit g64", "bf16": "Hugging Face BF16",
}  # fmt: skip


def inspect(path):
    result = run("inspect", "--model", str(path), "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("target", FORMATS)
def test_every_target_is_a_checkpoint_that_answers(tmp_path, target):
    out = tmp_path / "out"
    result = run("quantize", "--model", MODEL, "--to", target, "--out", str(out))
    assert result.returncode == 0, result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert inspect(out)["format"] == FORMATS[target]
    answer = run("generate", "--model", str(out), "--prompt", "What is 2+2?", "--temperature", "0", "--max-tokens", "16")
    assert answer.returncode == 0, answer.stderr
    if target in ("bf16", "q8"):
        assert answer.stdout == "2 + 2 = 4.\n"


def test_group_size(tmp_path):
    result = run("quantize", "--model", MODEL, "--to", "q4", "--group", "32", "--out", str(tmp_path / "out"))
    assert result.returncode == 0, result.stderr
    assert inspect(tmp_path / "out")["format"] == "MLX affine 4-bit g32"


def test_bf16_keeps_every_bit(tmp_path):
    out = tmp_path / "out"
    assert run("quantize", "--model", MODEL, "--to", "bf16", "--out", str(out)).returncode == 0
    name = "model.layers.1.mlp.down_proj.weight"
    for path, file in ((MODEL, "before"), (out, "after")):
        result = run("inspect", "--model", str(path), "--dequantize", name, "--out", str(tmp_path / file))
        assert result.returncode == 0, result.stderr
    assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--to", "q5"], ["q5", "fp4, nf4, q8, q6, q4, q3"]),
        (["--to", "gptq"], ["gptq"]),
        (["--to", "awq"], ["awq"]),
        (["--to", "q4", "--group", "48"], ["--group", "48", "32, 64 or 128"]),
        (["--to", "nf4", "--group", "32"], ["--group"]),
        ([], ["--to"]),
    ],
)
def test_unknown_targets_are_refused_and_nothing_is_written(tmp_path, arguments, words):
    result = run("quantize", "--model", MODEL, "--out", str(tmp_path / "out"), *arguments)
    assert_one_line_failure(result, *words)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    result = run("quantize", "--model", MODEL, "--to", "q4", "--out", str(tmp_path / "out"))
    assert_one_line_failure(result, str(tmp_path / "out"), "exists")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_quantised_source_is_refused(tmp_path):
    first = tmp_path / "first"
    assert run("quantize", "--model", MODEL, "--to", "q4", "--out", str(first)).returncode == 0
    result = run("quantize", "--model", str(first), "--to", "q3", "--out", str(tmp_path / "second"))
    assert_one_line_failure(result, "first")
    assert not (tmp_path / "second").exists()


def test_where_the_tokenizer_of_a_gguf_source_is_to_be_had(tmp_path):
    source = default_model()
    result = run("quantize", "--model", source, "--to", "bf16", "--out", str(tmp_path / "out"))
    assert result.returncode == 0, result.stderr
    assert f"use it with --tokenizer {source}" in result.stderr
    assert "--tokenizer" not in run("quantize", "--model", MODEL, "--to", "bf16", "--out", str(tmp_path / "tiny")).stderr


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory):
    """160 MB of zeros (holes in the file): seconds of work. Weights begin at odd places, as old files' may."""
    folder = tmp_path_factory.mktemp("slow")
    config = json.loads((pathlib.Path(MODEL) / "config.json").read_text()) | {"intermediate_size": 131072, "vocab_size": 32768}
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {"model.embed_tokens.weight": [32768, 64], "model.norm.weight": [64], "lm_head.weight": [32768, 64]}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        shapes |= {layer + "input_layernorm.weight": [64], layer + "post_attention_layernorm.weight": [64]}
        shapes |= {layer + f"self_attn.{name}_proj.weight": shape
                   for name, shape in {"q": [128, 64], "k": [32, 64], "v": [32, 64], "o": [64, 128]}.items()}  # fmt: skip
        shapes |= {layer + f"mlp.{name}_proj.weight": shape
                   for name, shape in {"gate": [131072, 64], "up": [131072, 64], "down": [64, 131072]}.items()}  # fmt: skip
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (1 - len(text) % 2)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
    return folder


# A child begins with the peak of the process that started it, so that a small one starts it.
MOST_MEMORY = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stderr=subprocess.DEVNULL)
print(1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.parametrize("target", ["q4", "nf4"])
def test_memory_stays_near_the_largest_tensor(slow_model, tmp_path, target):
    command = [sys.executable, "-c", MOST_MEMORY, BIN, "quantize", "--model", str(slow_model), "--to", target, "--out", str(tmp_path / "out")]
    most = int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=ENVIRONMENT).stdout)
    # A tensor (17 MB) as the file has it, once more where the file does not align it, and its new form; the program itself.
    assert most < 100e6 < (slow_model / "model.safetensors").stat().st_size / 1.5


def start_and_interrupt(slow_model, out, number):
    process = subprocess.Popen(
        [BIN, "quantize", "--model", str(slow_model), "--to", "q6", "--threads", "1", "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    while not any(path.name.startswith("model") for folder in out.parent.glob("out*") for path in folder.iterdir()):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.001)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(slow_model, tmp_path, number):
    code, errors = start_and_interrupt(slow_model, tmp_path / "out", number)
    assert code == 128 + number, errors
    assert "interrupted: nothing was written" in errors
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_leaves_nothing_that_looks_complete(slow_model, tmp_path):
    start_and_interrupt(slow_model, tmp_path / "out", signal.SIGKILL)
    assert not (tmp_path / "out").exists()
    for left in tmp_path.iterdir():
        assert ".partial." in left.name
        assert run("inspect", "--model", str(left)).returncode == 1
