"""Reads the machine code of compiled kernels: cuobjdump's listing of a library, object or program."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:(@!?U?P\w+)\s+)?([A-Z][\w.]*)\s*(.*?)\s*;")
TARGET = re.compile(r"0x([0-9a-f]+)$")
USAGE = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")


@dataclass
class Instruction:
    address: int
    opcode: str  # with all its modifiers
    operands: str

    @property
    def name(self):
        return self.opcode.split(".")[0]

    def has(self, modifier):
        return modifier in self.opcode.split(".")

    @property
    def load_bits(self):
        """Of a load: how many bits each thread reads."""
        for bits in (128, 64, 16, 8):
            if self.has(str(bits)) or self.has(f"U{bits}") or self.has(f"S{bits}"):
                return bits
        return 32


@dataclass
class Kernel:
    name: str  # as C++ spells it
    arch: str  # sm_80
    registers: int = 0
    stack: int = 0
    shared: int = 0  # static
    code: list = field(default_factory=list)

    def count(self, *names):
        return sum(i.name in names for i in self.code)

    def hot_loop(self):
        """The shortest loop that holds most of what the kernel's loops are for: tensor core instructions, or, where it has
        none, loads from global memory. Empty when there is no loop."""
        loops = [self.code[a : b + 1] for a, b in self.loops()]
        for wanted in ("HMMA", "LDG"):
            most = max((sum(i.name == wanted for i in loop) for loop in loops), default=0)
            if most:
                return min((l for l in loops if 2 * sum(i.name == wanted for i in l) >= most), key=len)
        return max(loops, key=len, default=[])

    def loops(self):
        """(first, last) indices of every backward branch and its target."""
        index = {i.address: n for n, i in enumerate(self.code)}
        for n, i in enumerate(self.code):
            target = TARGET.search(i.operands) if i.name == "BRA" else None
            if target and (first := index.get(int(target[1], 16), n)) < n:
                yield first, n


CODES = ("dense", "affine4", "fp4", "codebook4", "affine8")  # as cuda/pack.h orders them


def short_format(match):
    """PackedFormat{(Codes)1, 64, true, 2} as affine4:64:bias:2."""
    codes, fold, bias, scale_bytes = CODES[int(match[1])], match[2], match[3] == "true", match[4]
    return codes if codes == "dense" else f"{codes}:{fold}{':bias' if bias else ''}:{scale_bytes}"


def demangle(names):
    """As C++ spells them, without spaces, the names of namespaces (anonymous ones hold file hashes) and parameters."""
    if not shutil.which("c++filt"):
        return list(names)
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    short = []
    for name in text.splitlines():
        name = re.sub(r"\(anonymous namespace\)::|_GLOBAL__N__\w+::|tramontane::cuda::|tramontane::", "", name)
        name = re.sub(r"^void ", "", name)
        name = re.sub(r"Format<PackedFormat\{\(Codes\)(\d), (\d+), (\w+), (\d)\}>", short_format, name)
        short.append(re.sub(r"\((?:[^()]|\([^()]*\))*\)$", "", name).replace(" ", ""))
    return short


def kernels_of(cuobjdump, path):
    """Every kernel in a file, for every architecture that it was compiled for."""
    environment = dict(os.environ, PATH=f"{Path(cuobjdump).parent}:{os.environ['PATH']}")  # it calls nvdisasm

    def listing(option):
        done = subprocess.run([cuobjdump, option, str(path)], capture_output=True, text=True, env=environment)
        if done.returncode:
            raise RuntimeError(f"cuobjdump {option} {path}: {done.stderr.strip()}")
        return done.stdout

    kernels, current, arch = {}, None, ""
    for line in listing("-sass").splitlines():
        if "code for sm_" in line:
            arch = line.split()[-1]
        elif "Function : " in line:
            name = line.split("Function : ")[1].strip()
            current = kernels[name, arch] = Kernel(name, arch)
        elif current and (match := INSTRUCTION.search(line)):
            current.code.append(Instruction(int(match[1], 16), match[3], match[4]))
    name = ""
    for line in listing("-res-usage").splitlines():
        if line.startswith("arch = "):
            arch = line.split()[-1]
        elif line.strip().startswith("Function "):
            name = line.strip()[len("Function ") :].rstrip(":")
        elif (match := USAGE.search(line)) and (name, arch) in kernels:
            kernel = kernels[name, arch]
            kernel.registers, kernel.stack, kernel.shared = int(match[1]), int(match[2]), int(match[3])
    result = list(kernels.values())
    for kernel, name in zip(result, demangle([k.name for k in result])):
        kernel.name = name
    return sorted(result, key=lambda k: (k.name, k.arch))


def find_cuobjdump(venv, install=True):
    """Beside nvcc, on PATH, or in a virtual environment that is made for it. Raises LookupError saying why there is none."""
    for folder in (os.environ.get("CUDA_PATH", "/usr/local/cuda") + "/bin",):
        if shutil.which("cuobjdump", path=folder) and shutil.which("nvdisasm", path=folder):
            return f"{folder}/cuobjdump"
    if shutil.which("cuobjdump") and shutil.which("nvdisasm"):
        return shutil.which("cuobjdump")
    requirements = Path(__file__).with_name("requirements.txt")
    done = Path(venv) / "requirements.txt"  # copied last: it says that the environment is complete
    if not (done.exists() and done.read_text() == requirements.read_text()):
        if not install:
            raise LookupError("no cuobjdump here")
        commands = (
            ["python3", "-m", "venv", "--clear", venv],
            [f"{venv}/bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", requirements],
        )
        for command in commands:
            made = subprocess.run(list(map(str, command)), capture_output=True, text=True)
            if made.returncode:
                reason = (made.stderr or made.stdout).strip().splitlines()[-1:] or ["no reason given"]
                raise LookupError(f"cuobjdump cannot be installed ({requirements.name}): {reason[0]}")
        shutil.copy(requirements, done)
    found = sorted(Path(venv).glob("lib/python*/site-packages/nvidia/*/bin/cuobjdump"))
    if not found:
        raise LookupError(f"no cuobjdump in {venv}")
    return str(found[0])
