#!/usr/bin/env python3
"""Holds the machine code of every product kernel to sass_budgets.txt.

    tests/cuda/sass_test.py build/cuda/cuda/libtramontane_cuda.a [--architectures '80;86-real;89-real;90-real'] [--report]

Every kernel needs a line in the table, every line a kernel. No kernel may spill: no stack, no LDL or STL. Looks at every
architecture that the library holds machine code for and says which; each of --architectures (CMake's list) must be among
them, with every kernel. Exits with 0, 1 (over a budget) or 77 (skipped: no
cuobjdump, or no machine code). --report prints the figures of every kernel as the table of cuda/README.md takes them.
"""

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from sass import find_cuobjdump, kernels_of

SKIPPED = 77
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class Budget:
    """One line of the table; "-" leaves a figure open."""

    kernel: str  # regular expression for the whole name
    registers: float
    weights: float  # that a lane multiplies by one HMMA of the hot loop; 0: not asked
    per_weight: float  # instructions of the hot loop
    small_loads: float  # global loads of fewer than 16 bytes in the hot loop
    needs: list  # instructions that the hot loop must hold
    used: bool = False


def read_budgets(path):
    number = lambda text, open_end: open_end if text == "-" else float(text)
    budgets = []
    for n, line in enumerate(path.read_text().splitlines(), 1):
        cells = line.split("#")[0].split()
        if not cells:
            continue
        if len(cells) != 6:
            sys.exit(f"{path}:{n}: expected 6 columns, got {len(cells)}")
        budgets.append(
            Budget(cells[0], number(cells[1], 255), number(cells[2], 0), number(cells[3], float("inf")),
                   number(cells[4], float("inf")), [] if cells[5] == "-" else cells[5].split(","))
        )
    return budgets


def small_loads(loop):
    return sum(i.name == "LDG" and i.load_bits < 128 for i in loop)


def per_weight(kernel, budget):
    """Instructions of the hot loop for one weight of one lane; None where it is not asked."""
    loop = kernel.hot_loop()
    products = sum(i.name == "HMMA" for i in loop)
    return len(loop) / (products * budget.weights) if products and budget.weights else None


def faults_of(kernel, budget):
    loop = kernel.hot_loop() or kernel.code
    if kernel.stack or kernel.count("LDL", "STL"):
        yield f"spills: {kernel.stack} bytes of stack, {kernel.count('LDL', 'STL')} LDL and STL"
    if kernel.registers > budget.registers:
        yield f"{kernel.registers} registers, at most {budget.registers:.0f}"
    if small_loads(loop) > budget.small_loads:
        yield f"{small_loads(loop)} global loads under 16 bytes in the hot loop, at most {budget.small_loads:.0f}"
    cost = per_weight(kernel, budget)
    if cost is None and budget.weights:
        yield "no HMMA in the hot loop"
    if cost is not None and cost > budget.per_weight:
        yield f"{cost:.2f} instructions per weight in the hot loop, at most {budget.per_weight:.2f}"
    for name in budget.needs:
        if not any(i.opcode.startswith(name) for i in loop):
            yield f"no {name} in the hot loop"


def missing_from(kernels, architectures):
    """What the list of architectures promises and the library does not hold."""
    names = {kernel.name for kernel in kernels}
    for number in re.findall(r"\b(\d+)(?!\d|-virtual)", architectures):
        absent = names - {kernel.name for kernel in kernels if kernel.arch == f"sm_{number}"}
        if absent:
            yield f"sm_{number}: no machine code of {len(absent)} kernels, {min(absent)} among them"


def report(kernel, budget):
    loop = kernel.hot_loop()
    count = lambda name: sum(i.name == name for i in loop)
    cost = per_weight(kernel, budget) if budget else None
    print(f"{kernel.arch} {kernel.registers:4} regs {kernel.shared:6} smem {len(kernel.code):6} instr, hot loop {len(loop):5}: "
          f"HMMA {count('HMMA'):3} LDG {count('LDG'):3} (small {small_loads(loop):2}) LDGSTS {count('LDGSTS'):2} LDSM {count('LDSM'):2} "
          f"LDS {count('LDS'):3} BAR {count('BAR'):2}  {'' if cost is None else f'{cost:.2f}/weight '} {kernel.name}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", nargs="+")
    parser.add_argument("--architectures", default="")
    parser.add_argument("--budgets", type=Path, default=Path(__file__).with_name("sass_budgets.txt"))
    parser.add_argument("--venv", default=REPOSITORY / "build" / "cuda-venv", help="where cuobjdump is installed when there is none")
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    try:
        cuobjdump = find_cuobjdump(arguments.venv)
    except LookupError as why:
        print(f"SASS budgets: skipped, {why}")
        return SKIPPED
    budgets = read_budgets(arguments.budgets)
    kernels = [kernel for path in arguments.library for kernel in kernels_of(cuobjdump, path)]
    if not kernels:
        print(f"SASS budgets: skipped, no machine code in {' '.join(arguments.library)} (only PTX was compiled)")
        return SKIPPED
    failed = 0
    for kernel in kernels:
        budget = next((b for b in budgets if re.fullmatch(b.kernel, kernel.name)), None)
        if arguments.report:
            report(kernel, budget)
        if budget:
            budget.used = True
        for fault in faults_of(kernel, budget) if budget else [f"no line in {arguments.budgets.name}"]:
            print(f"{kernel.arch} {kernel.name}: {fault}")
            failed += 1
    for budget in budgets:
        if not budget.used:
            print(f"{arguments.budgets.name}: no kernel matches {budget.kernel}")
            failed += 1
    for fault in missing_from(kernels, arguments.architectures):
        print(fault)
        failed += 1
    architectures = ", ".join(sorted({k.arch for k in kernels}))
    print(f"SASS budgets: {len(kernels)} kernels for {architectures}, {failed} over budget")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
