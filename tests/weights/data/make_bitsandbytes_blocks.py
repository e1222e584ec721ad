#!/usr/bin/env python3
"""Makes bitsandbytes_blocks.safetensors: matrices and what bitsandbytes 0.50.2 makes of them on the CPU.

Run with the reference libraries (script/bootstrap --with-reference-libraries):
    build/reference-venv/bin/python tests/weights/data/make_bitsandbytes_blocks.py

NAME.values: the matrix; NAME.fp4.weight, .absmax, .state and NAME.nf4...: as in a checkpoint.
"""
import pathlib

import torch
from bitsandbytes.functional import get_4bit_type, quantize_4bit
from safetensors.torch import save_file


def ties(dtype):
    """For each table: every midpoint between two codes, the entries themselves, and their neighbours in `dtype`."""
    rows = []
    for kind in ("fp4", "nf4"):
        table = get_4bit_type(kind, device="cpu").sort().values
        points = torch.cat([table, (table[:-1] + table[1:]) / 2])
        points = torch.cat([points, points * (1 + 1e-7), points * (1 - 1e-7), -points, -points * (1 + 1e-7)]).to(dtype)
        points = torch.nn.functional.pad(points, (0, -len(points) % 63)).reshape(-1, 63)
        rows.append(torch.cat([torch.ones(len(points), 1, dtype=dtype), points], dim=1))  # the leading 1 makes absmax 1
    return torch.cat(rows)


def matrices():
    torch.manual_seed(1)
    normal = torch.randn(24, 128)
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        name = str(dtype).removeprefix("torch.")
        yield f"normal.{name}", (normal * 0.02).to(dtype)
        yield f"ties.{name}", ties(dtype)
    special = torch.zeros(8, 64)  # row 0: zeros
    special[1] = torch.tensor(-0.0)
    special[2] = 0.5
    special[3] = -0.5
    special[4, ::2] = torch.linspace(-1e-38, 1e-38, 32)  # below the reciprocal's limit
    special[5] = torch.randn(64) * 1e-20
    special[6] = torch.randn(64) * 1e30
    special[7, 5] = 3.0
    yield "special.bfloat16", special.to(torch.bfloat16)
    yield "special.float32", special


def main():
    tensors = {}
    for name, matrix in matrices():
        tensors[f"{name}.values"] = matrix
        for kind in ("fp4", "nf4"):
            packed, state = quantize_4bit(matrix, blocksize=64, quant_type=kind)
            parts = state.as_dict(packed=True)
            tensors[f"{name}.{kind}.weight"] = packed
            tensors[f"{name}.{kind}.absmax"] = parts["absmax"]
            tensors[f"{name}.{kind}.map"] = parts["quant_map"]
            tensors[f"{name}.{kind}.state"] = parts[f"quant_state.bitsandbytes__{kind}"]
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, pathlib.Path(__file__).with_name("bitsandbytes_blocks.safetensors"))


main()
