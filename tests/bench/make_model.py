#!/usr/bin/env python3
"""Writes a GGUF model of a given shape with random weights: something to time, not to talk to.

    make_model.py OUT.gguf [--type BF16|Q4_1|Q4_0|Q8_0] [--layers 8] [--dim 4096 ...]

The defaults are Mistral 7B's shape with 8 of its 32 layers (4 GB in BF16). Needs the PyPI package `gguf`.
Any program that reads GGUF can time the same file.
"""
import argparse

import gguf
import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--type", default="BF16", choices=["BF16", "F32", "Q4_0", "Q4_1", "Q8_0"])
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--dim", type=int, default=4096)
    parser.add_argument("--hidden", type=int, default=14336)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=8)
    parser.add_argument("--vocab", type=int, default=32768)
    a = parser.parse_args()

    head_dim = a.dim // a.heads
    quant = gguf.GGMLQuantizationType[a.type]
    rng = np.random.default_rng(1)
    writer = gguf.GGUFWriter(a.out, "llama", use_temp_file=False)
    writer.add_context_length(32768)
    writer.add_embedding_length(a.dim)
    writer.add_block_count(a.layers)
    writer.add_feed_forward_length(a.hidden)
    writer.add_head_count(a.heads)
    writer.add_head_count_kv(a.kv_heads)
    writer.add_rope_freq_base(1e6)
    writer.add_rope_dimension_count(head_dim)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(a.vocab)
    writer.add_tokenizer_model("none")

    def matrix(name: str, rows: int, cols: int) -> None:
        weights = rng.standard_normal((rows, cols), dtype=np.float32) * np.float32(cols**-0.5)
        writer.add_tensor(name, gguf.quants.quantize(weights, quant), raw_dtype=quant)

    def norm(name: str) -> None:
        writer.add_tensor(name, np.ones(a.dim, dtype=np.float32))

    matrix("token_embd.weight", a.vocab, a.dim)
    for i in range(a.layers):
        norm(f"blk.{i}.attn_norm.weight")
        matrix(f"blk.{i}.attn_q.weight", a.heads * head_dim, a.dim)
        matrix(f"blk.{i}.attn_k.weight", a.kv_heads * head_dim, a.dim)
        matrix(f"blk.{i}.attn_v.weight", a.kv_heads * head_dim, a.dim)
        matrix(f"blk.{i}.attn_output.weight", a.dim, a.heads * head_dim)
        norm(f"blk.{i}.ffn_norm.weight")
        matrix(f"blk.{i}.ffn_gate.weight", a.hidden, a.dim)
        matrix(f"blk.{i}.ffn_up.weight", a.hidden, a.dim)
        matrix(f"blk.{i}.ffn_down.weight", a.dim, a.hidden)
    norm("output_norm.weight")
    matrix("output.weight", a.vocab, a.dim)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
