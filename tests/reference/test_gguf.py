"""--to bf16 from GGUF: the gguf library's own dequantisation, rounded once, in Hugging Face's row order."""
import gguf
import numpy as np
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
