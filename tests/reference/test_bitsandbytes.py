"""bitsandbytes checkpoints: loaded by transformers, equal to what transformers quantises itself; its own read here."""
import numpy as np
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from conftest import PROMPT
from transformers import AutoModelForCausalLM, BitsAndBytesConfig


def load(folder, kind=None):
    """`kind`: quantise while loading; without it as the folder's own config says."""
    options = {}
    if kind:  # an explicit None would override what the config says
        options["quantization_config"] = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_compute_dtype=torch.bfloat16)
    return AutoModelForCausalLM.from_pretrained(folder, device_map="cpu", dtype="auto", **options).eval()


def projections(model):
    return {name: module.weight for name, module in model.named_modules() if isinstance(module, Linear4bit)}


def check(source, out, kind, count):
    ours, theirs = load(out), load(source, kind)
    our_weights, their_weights = projections(ours), projections(theirs)
    assert len(our_weights) == count and our_weights.keys() == their_weights.keys()
    for name, want in their_weights.items():
        got = our_weights[name]
        assert torch.equal(got.data, want.data), name
        assert torch.equal(got.quant_state.absmax, want.quant_state.absmax), name
        assert torch.equal(got.quant_state.code, want.quant_state.code), name
        assert (got.quant_state.dtype, got.quant_state.shape, got.quant_state.blocksize, got.quant_state.quant_type) == (
            want.quant_state.dtype, want.quant_state.shape, want.quant_state.blocksize, want.quant_state.quant_type), name
        assert torch.equal(dequantize_4bit(got.data, got.quant_state), dequantize_4bit(want.data, want.quant_state)), name
    dense = {name: value for name, value in theirs.state_dict().items() if value.dtype != torch.uint8 and ".weight." not in name}
    for name, want in dense.items():
        assert ours.state_dict()[name].dtype == want.dtype and torch.equal(ours.state_dict()[name], want), name
    with torch.no_grad():
        prompt = torch.tensor([PROMPT])
        assert torch.equal(ours(prompt).logits, theirs(prompt).logits)


@pytest.mark.parametrize("kind", ["fp4", "nf4"])
def test_equals_transformers(tiny_model, quantize, tmp_path, kind):
    check(tiny_model, quantize(tiny_model, kind, tmp_path / "out"), kind, 3 * 7)


@pytest.mark.parametrize("kind", ["fp4", "nf4"])
def test_equals_transformers_on_smollm2(smollm2_bf16, quantize, tmp_path, kind):
    check(smollm2_bf16, quantize(smollm2_bf16, kind, tmp_path / "out"), kind, 30 * 7)


@pytest.mark.parametrize("kind", ["fp4", "nf4"])
def test_the_file_is_what_save_pretrained_writes(tiny_model, quantize, tmp_path, kind):
    """Names, dtypes, shapes and bytes of every tensor, the quant_state texts among them."""
    from safetensors.torch import load_file

    load(tiny_model, kind).save_pretrained(tmp_path / "theirs")
    ours = load_file(quantize(tiny_model, kind, tmp_path / "ours") / "model.safetensors")
    theirs = load_file(tmp_path / "theirs/model.safetensors")
    assert ours.keys() == theirs.keys()
    for name, want in theirs.items():
        assert ours[name].dtype == want.dtype and torch.equal(ours[name], want), name


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("kind,double,skipped", [
    ("fp4", False, None), ("nf4", True, None), ("fp4", True, ["lm_head", "down_proj"]), ("nf4", False, ["model.layers.1", "lm_head"]),
    ("nf4", True, ["none of them"])])  # fmt: skip
def test_reads_what_transformers_writes(tiny_model, tmp_path, logits, dtype, kind, double, skipped):
    """In shards, with modules left in `dtype`, against the same file in transformers, weights dequantised to FP32: the logits agree to 1e-4."""
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=double,
                                bnb_4bit_compute_dtype=torch.float32, llm_int8_skip_modules=skipped)  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(tiny_model, device_map="cpu", dtype=dtype, quantization_config=config)
    model.save_pretrained(tmp_path / "out", max_shard_size="2MB")
    theirs = load(tmp_path / "out")
    for module in theirs.modules():
        if isinstance(module, Linear4bit):
            module.weight.quant_state.dtype = torch.float32
            module.support_avx512bf16_for_cpu = False
        elif not list(module.children()):
            module.float()
    with torch.no_grad():
        want = theirs(torch.tensor([PROMPT])).logits[0].numpy()
    assert np.abs(logits(tmp_path / "out") - want).max() < 1e-4


def test_int8_is_refused(tiny_model, tmp_path, fault):
    config = BitsAndBytesConfig(load_in_8bit=True)
    AutoModelForCausalLM.from_pretrained(tiny_model, device_map="cpu", dtype=torch.float16, quantization_config=config).save_pretrained(tmp_path / "out")
    assert "LLM.int8" in fault(tmp_path / "out")
