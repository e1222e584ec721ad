"""MLX affine checkpoints: loaded by mlx_lm, equal to its own conversion in every tensor and logit; its own read here."""
import json

import mlx.core as mx
import pytest
from conftest import PROMPT
from mlx.utils import tree_flatten
from mlx_lm.convert import mixed_quant_predicate_builder
from mlx_lm.utils import load_model, quantize_model, save_config, save_model
from safetensors.numpy import save_file
import numpy as np


def converted(source, bits, group):
    """What mlx_lm.convert holds in memory before it saves."""
    model, config = load_model(source, lazy=True)
    if dtype := config.get("torch_dtype"):
        model.set_dtype(getattr(mx, dtype))
    return quantize_model(model, config, group, bits)


def assert_same(ours, theirs):
    ours, theirs = dict(tree_flatten(ours.parameters())), dict(tree_flatten(theirs.parameters()))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype, name
        # NaN cannot be among them; signed zeros would show in the quotient's bits.
        assert mx.array_equal(ours[name].view(mx.uint8), value.view(mx.uint8)), name
    return len(theirs)


@pytest.mark.parametrize("bits,group", [(8, 64), (6, 64), (4, 64), (3, 64), (4, 32), (3, 32), (8, 128)])
def test_equals_mlx_lm(tiny_model, quantize, tmp_path, bits, group):
    out = quantize(tiny_model, f"q{bits}", tmp_path / "out", "--group", str(group))
    ours, our_config = load_model(out)
    theirs, their_config = converted(tiny_model, bits, group)
    assert_same(ours, theirs)
    assert our_config["quantization"] == their_config["quantization"]
    prompt = mx.array([PROMPT])
    assert mx.array_equal(ours(prompt), theirs(prompt))


@pytest.mark.parametrize("bits", [8, 6, 4, 3])
def test_equals_mlx_lm_on_smollm2(smollm2_bf16, quantize, tmp_path, bits):
    ours, _ = load_model(quantize(smollm2_bf16, f"q{bits}", tmp_path / "out"))
    theirs, _ = converted(smollm2_bf16, bits, 64)
    assert assert_same(ours, theirs) == 211 * 3 + 61  # 30 layers of 7 matrices, the embeddings; the norms
    prompt = mx.array([PROMPT])
    assert mx.array_equal(ours(prompt), theirs(prompt))


@pytest.mark.parametrize("stored,declared", [("float16", None), ("float32", None), ("float32", "bfloat16"), ("float32", "float16")])
@pytest.mark.parametrize("bits", [8, 3])
def test_other_dtypes(quantize, tmp_path, stored, declared, bits):
    """Weights of every magnitude, constant groups and zeros, in F16 and F32, cast to what the config declares."""
    source = tmp_path / "source"
    write_random_model(source, stored, declared)
    ours, _ = load_model(quantize(source, f"q{bits}", tmp_path / "out", "--group", "32"))
    theirs, _ = converted(source, bits, 32)
    assert_same(ours, theirs)


def write_random_model(folder, dtype, declared):
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
              "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 96,
              "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 64, "tie_word_embeddings": False,
              "bos_token_id": 1, "eos_token_id": 2}
    if declared:
        config["torch_dtype"] = declared
    random = np.random.default_rng(7)

    def matrix(rows, columns):
        values = random.standard_normal((rows, columns)) * 10.0 ** random.integers(-6, 3, (rows, 1))
        values[0], values[1], values[2] = 0, 0.3, -0.3
        values[3] = np.abs(values[3])
        return values.astype(dtype)

    shapes = {"self_attn.q_proj": (64, 64), "self_attn.k_proj": (32, 64), "self_attn.v_proj": (32, 64), "self_attn.o_proj": (64, 64),
              "mlp.gate_proj": (128, 64), "mlp.up_proj": (128, 64), "mlp.down_proj": (64, 128)}
    tensors = {f"model.layers.0.{name}.weight": matrix(*shape) for name, shape in shapes.items()}
    for name in ("model.embed_tokens", "lm_head"):
        tensors[name + ".weight"] = matrix(96, 64)
    for name in ("model.norm", "model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm"):
        tensors[name + ".weight"] = np.ones(64, dtype)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def some_layers(path, _):
    """A recipe of one's own: 8 bits in groups of 32, 2 bits, the block's own setting, and modules left alone."""
    if "v_proj" in path or path == "model.embed_tokens":
        return False
    if "down_proj" in path or path == "lm_head":
        return {"bits": 8, "group_size": 32}
    return {"bits": 2, "group_size": 64} if "gate_proj" in path else True


@pytest.mark.parametrize("bits,group,recipe,dtype,tied", [
    (2, 32, None, "bfloat16", False), (3, 64, None, "float16", False), (5, 64, None, "bfloat16", False), (6, 32, None, "bfloat16", True),
    (4, 64, None, "bfloat16", True), (8, 64, None, "float32", False), (4, 64, some_layers, "bfloat16", False),
    (4, 64, "mixed_2_6", "bfloat16", False), (4, 64, "mixed_3_4", "bfloat16", False)])  # fmt: skip
def test_reads_what_mlx_lm_writes(tiny_model, tmp_path, logits, bits, group, recipe, dtype, tied):
    """Against mlx_lm with the same file in FP32: the logits agree to 1e-4."""
    model, config = load_model(tiny_model, lazy=True)
    if tied:  # the head becomes the embeddings
        config["tie_word_embeddings"] = model.args.tie_word_embeddings = True
        model.pop("lm_head")
    model.set_dtype(getattr(mx, dtype))
    predicate = mixed_quant_predicate_builder(recipe, model, group) if isinstance(recipe, str) else recipe
    model, config = quantize_model(model, config, group, bits, quant_predicate=predicate)
    out = tmp_path / "out"
    save_model(out, model)
    save_config(config, out / "config.json")
    split_into_shards(out)
    theirs, _ = load_model(out)
    theirs.set_dtype(mx.float32)
    assert np.abs(logits(out) - np.array(theirs(mx.array([PROMPT]))[0])).max() < 1e-4


def split_into_shards(folder):
    """mlx_lm splits at 5 GB only; three files, a matrix's parts in different ones."""
    tensors, files = mx.load(str(folder / "model.safetensors")), {}
    (folder / "model.safetensors").unlink()
    for i in range(3):
        name = f"model-{i + 1:05}-of-00003.safetensors"
        part = {key: tensors[key] for key in sorted(tensors)[i::3]}
        mx.save_safetensors(str(folder / name), part, {"format": "mlx"})
        files |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
