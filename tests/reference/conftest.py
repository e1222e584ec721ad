"""What `tramontane quantize` writes, read by the libraries it was written for; what they write, read here. TRAMONTANE_BIN names the program."""
import json
import os
import pathlib
import subprocess

import pytest
from safetensors.numpy import load_file

os.environ.setdefault("HF_HUB_OFFLINE", "1")

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("TRAMONTANE_BIN", str(REPOSITORY / "build/release/tramontane"))
DEFAULT_MODEL = pathlib.Path.home() / ".cache/tramontane/SmolLM2-135M-Instruct.Q4_1.gguf"


def run_quantize(source, to, out, *arguments):
    command = [PROGRAM, "quantize", "--model", str(source), "--to", to, "--out", str(out), *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return out


def run_logits(model, tmp_path, ids, arithmetic):
    """Of every position; in FP32 arithmetic with the weights exactly as stored."""
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    command = [PROGRAM, "logits", "--model", str(model), "--ids", str(tmp_path / "ids.json"), "--arithmetic", arithmetic, "--backend", "cpu"]
    result = subprocess.run([*command, "--out", str(tmp_path / "logits.safetensors")], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return load_file(tmp_path / "logits.safetensors")["logits"]


@pytest.fixture(scope="session")
def quantize():
    return run_quantize


@pytest.fixture
def fault():
    def inspect(folder):
        result = subprocess.run([PROGRAM, "inspect", "--model", str(folder)], capture_output=True, text=True)
        assert result.returncode == 1
        return result.stderr

    return inspect


@pytest.fixture
def logits(tmp_path):
    return lambda model, ids=PROMPT, arithmetic="f32": run_logits(model, tmp_path, ids, arithmetic)


@pytest.fixture(scope="session")
def tiny_model():
    return REPOSITORY / "tests/golden/data/tiny-v0.3-bf16"


@pytest.fixture(scope="session")
def default_model():
    if not DEFAULT_MODEL.exists():
        pytest.skip("the default model is not in the cache folder: run script/default-model")
    return DEFAULT_MODEL


@pytest.fixture(scope="session")
def smollm2_bf16(default_model, tmp_path_factory):
    return run_quantize(default_model, "bf16", tmp_path_factory.mktemp("smollm2") / "bf16")


PROMPT = [1, 415, 5565, 302, 4843, 349, 264, 2990, 395, 1287, 3567, 28723, 733, 16289]
