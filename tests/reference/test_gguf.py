"""GGUF: --to bf16 is the gguf library's own dequantisation, rounded once, in Hugging Face's row order; whole files of every type."""
import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
         "ffn_norm": "post_attention_layernorm"}
HEADS = {"attn_q": 9, "attn_k": 3}  # SmolLM2-135M


def hugging_face_name(name):
    parts = name.split(".")
    if parts[0] != "blk":
        return {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}[parts[0]] + ".weight"
    return f"model.layers.{parts[1]}.{NAMES[parts[2]]}.weight"


def test_smollm2(default_model, smollm2_bf16):
    ours = load_file(smollm2_bf16 / "model.safetensors")
    tensors = gguf.GGUFReader(default_model).tensors
    assert len(tensors) == len(ours)
    for tensor in tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        kind = tensor.name.split(".")[2] if tensor.name.startswith("blk.") else ""
        if kind in HEADS:  # undo llama.cpp's permutation: pairs side by side to halves apart
            rows, columns = values.shape
            values = values.reshape(HEADS[kind], rows // HEADS[kind] // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
        want = torch.from_numpy(np.ascontiguousarray(values)).to(torch.bfloat16)
        assert torch.equal(ours[hugging_face_name(tensor.name)], want), tensor.name


# Where the half-precision numbers of a block lie, and a size of theirs that makes weights of about 0.05.
TYPES = {"Q4_0": ([0], 1e-2), "Q4_1": ([0, 2], 5e-3), "Q5_0": ([0], 5e-3), "Q5_1": ([0, 2], 2e-3), "Q8_0": ([0], 7e-4),
         "Q2_K": ([80, 82], 2e-3), "Q3_K": ([108], 1e-3), "Q4_K": ([0, 2], 1e-4), "Q5_K": ([0, 2], 5e-5), "Q6_K": ([208], 3e-5)}  # fmt: skip
SIZES = {"token_embd": (512, 256), "output": (512, 256), "blk.0.attn_q": (256, 256), "blk.0.attn_k": (64, 256), "blk.0.attn_v": (64, 256),
         "blk.0.attn_output": (256, 256), "blk.0.ffn_gate": (512, 256), "blk.0.ffn_up": (512, 256), "blk.0.ffn_down": (256, 512)}  # fmt: skip


def random_blocks(name, rows, columns, random):
    elements, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    halves, scale = TYPES[name]
    blocks = random.integers(0, 256, (rows * columns // elements, size), dtype=np.uint8)
    for at in halves:
        blocks[:, at : at + 2] = (scale * random.uniform(1, 2, len(blocks))).astype(np.float16).view(np.uint8).reshape(-1, 2)
    return blocks.reshape(rows, -1)


def write_gguf(path, tensors):
    """`tensors`: name -> (values, type)."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(256)
    writer.add_feed_forward_length(512)
    writer.add_head_count(8)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(512)
    writer.add_eos_token_id(2)
    for name, (values, kind) in tensors.items():
        writer.add_tensor(name + ".weight", values, raw_dtype=kind)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(name + ".weight", np.ones(256, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("name", TYPES)
def test_a_whole_file_of_every_type(tmp_path, logits, name):
    """Beside a file of the F32 values that the gguf library dequantises to: the same logits in FP32 arithmetic, and in BF16 no further from those."""
    random, kind = np.random.default_rng(11), gguf.GGMLQuantizationType[name]
    blocks = {tensor: random_blocks(name, *size, random) for tensor, size in SIZES.items()}
    write_gguf(tmp_path / "blocks.gguf", {tensor: (values, kind) for tensor, values in blocks.items()})
    exact = {tensor: (gguf.quants.dequantize(values, kind).astype(np.float32), None) for tensor, values in blocks.items()}
    write_gguf(tmp_path / "values.gguf", exact)
    ids = [1, 5, 9, 300, 7, 8, 2, 44, 100, 3]
    want = logits(tmp_path / "values.gguf", ids)
    assert np.abs(logits(tmp_path / "blocks.gguf", ids) - want).max() < 1e-5

    def drift(file):
        return np.sqrt(np.square(logits(tmp_path / file, ids, "bf16") - want).mean())

    assert drift("blocks.gguf") <= 1.2 * drift("values.gguf")
