"""Writes starting points for the fuzzers: python tests/fuzz/make_seeds.py FOLDER, then fuzz_gguf FOLDER/gguf …

Each is a small good file, so that the fuzzer's first mutations get past the header.
"""

import json
import pathlib
import struct
import sys

LAYER = {"attn_norm": [8], "ffn_norm": [8], "attn_q": [8, 8], "attn_k": [4, 8], "attn_v": [4, 8], "attn_output": [8, 8],
         "ffn_gate": [32, 8], "ffn_up": [32, 8], "ffn_down": [8, 32]}  # fmt: skip
SIZES = {"block_count": 1, "context_length": 64, "embedding_length": 8, "feed_forward_length": 32,
         "attention.head_count": 2, "attention.head_count_kv": 1}  # fmt: skip
# number -> (elements, bytes) of a block; down_proj's rows of one block carry the quantised types.
TYPES = {0: (1, 4), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84), 11: (256, 110),
         12: (256, 144), 13: (256, 176), 14: (256, 210), 30: (1, 2)}  # fmt: skip


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(down_type):
    meta = [text("general.architecture") + struct.pack("<I", 8) + text("llama")]
    hidden = max(32, TYPES[down_type][0])
    sizes = SIZES | {"feed_forward_length": hidden}
    meta += [text("llama." + key) + struct.pack("<II", 4, value) for key, value in sizes.items()]
    meta.append(text("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5))
    meta.append(text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b"))
    tensors = {"token_embd": [6, 8], "output_norm": [8]} | {
        "blk.0." + name: [hidden if size == 32 else size for size in shape] for name, shape in LAYER.items()
    }
    entries, data = b"", b""
    for name, shape in tensors.items():
        kind = down_type if name.endswith("ffn_down") else 0
        block, size = TYPES[kind]
        data += bytes(-len(data) % 32)
        entries += text(name + ".weight") + struct.pack("<I", len(shape))
        entries += b"".join(struct.pack("<Q", n) for n in reversed(shape)) + struct.pack("<IQ", kind, len(data))
        count = 1
        for n in shape:
            count *= n
        data += bytes(i % 60 for i in range(count // block * size))  # small halves: finite scales
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(meta)) + b"".join(meta) + entries
    return head + bytes(-len(head) % 32) + data


def safetensors(tensors, contents={}):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    body = json.dumps(header).encode()
    data = b"".join(contents.get(name, bytes(size)) for name, (_, _, size) in tensors.items())
    return struct.pack("<Q", len(body)) + body + data


def varint(value):
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def proto(*fields):  # (number, int, float or bytes) of a protobuf message
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        elif isinstance(value, float):
            out += varint(number << 3 | 5) + struct.pack("<f", value)
        else:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def sentencepiece(add_dummy_prefix):
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)] + [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    pieces += [("▁a", -1.0, 1), ("ab", -2.0, 1), ("▁ab", -3.0, 5), ("[X]", 0.0, 4), ("▁", -4.0, 1), ("a", -5.0, 1)]
    model = [(1, proto((1, piece.encode()), (2, score), (3, kind))) for piece, score, kind in pieces]
    normalizer = proto((1, b"identity"), (3, add_dummy_prefix), (4, 0), (5, 1))
    return proto(*model, (2, proto((3, 2), (35, 1))), (3, normalizer))


HF = {"architectures": ["MistralForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 8, "head_dim": 16,
      "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 512, "rms_norm_eps": 1e-5, "sliding_window": None,
      "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}, "eos_token_id": [2, 3],
      "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}  # fmt: skip
PARAMS = {"dim": 64, "n_layers": 2, "head_dim": 16, "hidden_dim": 128, "n_heads": 8, "n_kv_heads": 2, "norm_eps": 1e-5,
          "vocab_size": 512, "rope_theta": 1e6}  # fmt: skip
GGUF_KEYS = {"general.architecture": "llama", "llama.vocab_size": 512, "llama.attention.layer_norm_rms_epsilon": 1e-5} | {
    "llama." + key: value for key, value in SIZES.items()
}
GENERATION = {"temperature": 0.7, "top_p": 0.9, "top_k": 50, "repetition_penalty": 1.1}
MLX = {"bits": 4, "group_size": 64, "mode": "affine", "lm_head": {"bits": 8, "group_size": 32}, "model.norm": False}

# The weights that read_weights.h asks for.
WEIGHTS = {"lm_head": (5, 32), "model.layers.0.mlp.down_proj": (3, 64), "model.layers.0.mlp.up_proj": (2, 128),
           "model.layers.0.self_attn.q_proj": (4, 96)}  # fmt: skip


def split(head, rest):
    return struct.pack("<H", len(head)) + head + rest


def mlx(bits, group):
    tensors = {"model.norm.weight": ("BF16", [32], 64)}
    for name, (rows, cols) in WEIGHTS.items():
        if cols % group or cols * bits % 32:
            tensors[name + ".weight"] = ("BF16", [rows, cols], 2 * rows * cols)
            continue
        tensors[name + ".weight"] = ("U32", [rows, cols * bits // 32], rows * cols * bits // 8)
        for part in (".scales", ".biases"):
            tensors[name + part] = ("BF16", [rows, cols // group], 2 * rows * cols // group)
    config = {"bits": bits, "group_size": group, "mode": "affine", "model.norm": False}
    return split(json.dumps(config).encode(), safetensors(tensors))


def quant_state(kind, shape, nested):
    state = {"quant_type": kind, "blocksize": 64, "dtype": "bfloat16", "shape": shape}
    if nested:
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.0625}
    return json.dumps(state).encode()


def bitsandbytes(kind, nested):
    tensors, texts = {"model.norm.weight": ("F16", [32], 64)}, {}
    for name, (rows, cols) in WEIGHTS.items():
        name += ".weight"
        if cols % 64:
            tensors[name] = ("F16", [rows, cols], 2 * rows * cols)
            continue
        blocks, state = rows * cols // 64, quant_state(kind, [rows, cols], nested)
        tensors[name] = ("U8", [rows * cols // 2, 1], rows * cols // 2)
        tensors[name + ".absmax"] = ("U8", [blocks], blocks) if nested else ("F32", [blocks], 4 * blocks)
        tensors[name + ".quant_map"] = ("F32", [16], 64)
        if nested:
            tensors[name + ".nested_absmax"] = ("F32", [1], 4)
            tensors[name + ".nested_quant_map"] = ("F32", [256], 1024)
        tensors[name + ".quant_state.bitsandbytes__" + kind] = ("U8", [len(state)], len(state))
        texts[name + ".quant_map"] = struct.pack("<16f", *(NF4 if kind == "nf4" else FP4))
        texts[name + ".quant_state.bitsandbytes__" + kind] = state
    return safetensors(tensors, texts)


# bitsandbytes' tables (FORMATS.md).
FP4 = [v / 192 for v in (0, 1, 128, 192, 64, 96, 32, 48)]
FP4 += [-v for v in FP4]
NF4 = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
       -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
       0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]  # fmt: skip

QUESTIONS = [
    {"id": "a", "question": "?", "options": ["x", "y", "z"], "gold": 0, "unknown": 2, "stereotyped": 1, "context": "c"},
    {"question": "q", "options": ["x", "y"]},
]
PROMPTS = [{"prompt": "Hello"}, {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}]

folder = pathlib.Path(sys.argv[1])
seeds = {f"gguf/type{kind}": gguf(kind) for kind in TYPES}
two = safetensors({"a": ("BF16", [2, 3], 12), "b": ("U8", [4], 4)})
seeds["safetensors/two"] = two
for shard in ("one.safetensors", "three.safetensors"):
    weight_map = {"a": "one.safetensors", "b": shard}
    seeds[f"index/{shard[:-12]}"] = split(json.dumps({"metadata": {"total_size": 16}, "weight_map": weight_map}).encode(), two)
for prefix in (0, 1):
    seeds[f"sentencepiece/prefix{prefix}"] = sentencepiece(prefix)
for i, config in enumerate([HF, PARAMS, GGUF_KEYS, GENERATION, MLX]):
    seeds[f"model_config/{i}"] = bytes([i]) + json.dumps(config).encode()
for bits, group in ((2, 32), (3, 64), (4, 64), (4, 32), (5, 128), (6, 64), (8, 32)):
    seeds[f"mlx/q{bits}g{group}"] = mlx(bits, group)
for kind in ("fp4", "nf4"):
    for nested in (False, True):
        seeds[f"bitsandbytes/{kind}{'-double' if nested else ''}"] = bitsandbytes(kind, nested)
        seeds[f"quant_state/{kind}{'-double' if nested else ''}"] = bytes([(kind == "fp4") + 2 * nested]) + quant_state(kind, [8, 128], nested)
seeds["questions/items"] = "\n".join(map(json.dumps, QUESTIONS)).encode()
seeds["questions/prompts"] = "\n".join(map(json.dumps, PROMPTS)).encode()
seeds["questions/lines"] = b"# comment\nHello\n\nWhat is 2+2?\n"
for name, seed in seeds.items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(seed)
