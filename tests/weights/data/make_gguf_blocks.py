"""Makes gguf_blocks.safetensors: random blocks of each GGUF type and their dequantisation by the public `gguf` package (0.19.0).

pip install gguf numpy; python make_gguf_blocks.py gguf_blocks.safetensors
"""

import json
import struct
import sys

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import GGML_QUANT_SIZES, quants

# Byte offsets of each block's f16 scales: random bytes there would be infinities and NaNs as often as numbers.
F16_AT = {
    T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
    T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208],
}  # fmt: skip
ROWS, COLS = 2, 512

rng = np.random.default_rng(7)
header, data = {}, b""


def add(name, dtype, array):
    global data
    raw = array.tobytes()
    header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
    data += raw


for kind, offsets in F16_AT.items():
    elements, size = GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (ROWS * COLS // elements, size), dtype=np.uint8)
    for at in offsets:
        values = rng.normal(0, 0.05, len(blocks)).astype(np.float16)
        blocks[:, at : at + 2] = values.view(np.uint8).reshape(-1, 2)
    rows = blocks.reshape(ROWS, -1)
    add(f"{kind.name}.expected", "F32", quants.dequantize(rows, kind).astype(np.float32).reshape(ROWS, COLS))
    add(f"{kind.name}.blocks", "U8", rows)

text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
with open(sys.argv[1], "wb") as out:
    out.write(struct.pack("<Q", len(text)) + text + data)
