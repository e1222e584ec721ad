#!/usr/bin/env python3
"""Breaks one line of the source at a time and sees that the test which must notice does.

    tests/cuda/mutants/run.py                    all of mutants.toml (an hour and more: every mutant is a build)
    tests/cuda/mutants/run.py rope 'attention-*' those whose name begins so, or matches
    tests/cuda/mutants/run.py --sample 4         some, chosen by --seed: what CI can afford
    tests/cuda/mutants/run.py --check            only whether every mutant's line is still there

Works in a copy of the tree, build/mutants, that builds PTX alone for the PTX emulator. For each test named in the list the
unbroken tree must pass first. A mutant is killed when its test fails, survives when that passes, and is invalid when its
line is not found or does not compile; all but killed are failures.
"""

import argparse
import filecmp
import fnmatch
import os
import random
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
PROGRAM_LIMIT = 600  # seconds: a mutant may never end


def read_mutants():
    mutants = tomllib.loads(Path(__file__).with_name("mutants.toml").read_text())["mutant"]
    for m in mutants:
        unknown = set(m) - {"name", "file", "line", "becomes", "test", "breaks", "nth"}
        if unknown or not {"name", "file", "line", "becomes", "test", "breaks"} <= set(m):
            sys.exit(f"mutants.toml: {m.get('name', m)}: wrong or missing keys {sorted(unknown)}")
    names = [m["name"] for m in mutants]
    if len(set(names)) != len(names):
        sys.exit(f"mutants.toml: name twice: {sorted(n for n in set(names) if names.count(n) > 1)}")
    return mutants


def mutated(mutant, text):
    """The text with the mutant's line replaced; None when the line is not there, or there more often than `nth` can say."""
    count = text.count(mutant["line"])
    nth = mutant.get("nth", 1)
    if count < nth or (count > 1 and "nth" not in mutant):
        return None
    at = -1
    for _ in range(nth):
        at = text.index(mutant["line"], at + 1)
    return text[:at] + mutant["becomes"] + text[at + len(mutant["line"]) :]


class Copy:
    """A copy of the tree with a build of its own."""

    def __init__(self, jobs):
        self.source = REPOSITORY / "build" / "mutants"
        self.build = self.source / "build" / "cuda"
        self.jobs = jobs
        # The preset's options and folders: ccache takes what the tree's own build of the same files has made.
        self.environment = dict(os.environ, CCACHE_BASEDIR=str(self.source), CCACHE_NOHASHDIR="true")

    def refresh(self):
        listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=REPOSITORY, capture_output=True, check=True)
        files = {name for name in listed.stdout.decode().split("\0") if name and (REPOSITORY / name).is_file()}
        for folder, folders, names in os.walk(self.source):
            if Path(folder) == self.source and "build" in folders:
                folders.remove("build")
            for old in (Path(folder) / name for name in names):
                if str(old.relative_to(self.source)) not in files:
                    old.unlink()
        for name in files:
            to = self.source / name
            if to.exists() and filecmp.cmp(REPOSITORY / name, to, shallow=False):
                continue  # what is unchanged is not built again
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, to)
        options = ["-DCMAKE_CUDA_ARCHITECTURES=80-virtual", f"-DTRAMONTANE_HTTPLIB_DIR={REPOSITORY / 'third_party' / 'cpp-httplib'}"]
        self.run(["cmake", "--preset", "cuda", "--log-level=WARNING", *options], check=True)

    def run(self, command, limit=None, check=False):
        try:
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=limit,
                                  env=self.environment, cwd=self.source)
        except subprocess.TimeoutExpired as slow:
            return 124, (slow.stdout or b"").decode() if isinstance(slow.stdout, bytes) else slow.stdout or ""
        if check and done.returncode:
            sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
        return done.returncode, done.stdout + done.stderr

    def make(self, program):
        return self.run(["cmake", "--build", self.build, "-j", self.jobs, "--target", program])

    def test(self, test):
        """A test is "program filter": the filter is GoogleTest's."""
        program, gtest_filter = test.split()
        for folder in ("tests/cuda", "tests/cuda_emulator", "tests/ops", "tests/engine"):
            path = self.build / folder / program
            if path.exists():
                return self.run([path, f"--gtest_filter={gtest_filter}", "--gtest_brief=1"], PROGRAM_LIMIT)
        sys.exit(f"{program} was not built")


def verdict(copy, mutant):
    """(killed, survived or invalid; what was seen)."""
    path = copy.source / mutant["file"]
    original = path.read_text()
    text = mutated(mutant, original)
    if text is None:
        return "invalid", f"{mutant['file']} does not hold the line once"
    try:
        path.write_text(text)
        code, output = copy.make(mutant["test"].split()[0])
        if code:
            error = re.search(r".*\berror\b.*", output)
            return "invalid", error[0][:160] if error else "does not build"
        code, output = copy.test(mutant["test"])
        if code == 0:
            return "survived", ""
        # The emulator's own tests provoke reports; there only the test's name tells.
        return "killed", evidence(code, output, reports="emulator" not in mutant["file"])
    finally:
        path.write_text(original)


def evidence(code, output, reports):
    """What the test said, in one line: a report of the emulator if there is one and `reports` are asked for."""
    if code == 124:
        return "did not end"
    if reports and (report := re.search(r"PTX emulator: (?!CUDA runs)(.*)", output)):
        return re.sub(r"(, which|,? at (shared address )?0x| by thread).*", "", report[1])[:110]
    for pattern in (r"\[  FAILED  \] ([\w./]+)", r"(terminate called.*|.*Error:.*)"):
        if found := re.search(pattern, output):
            return found[1][:110]
    return f"exit status {code}"


def choose(mutants, arguments):
    if arguments.names:
        mutants = [m for m in mutants if any(m["name"].startswith(n) or fnmatch.fnmatch(m["name"], n) for n in arguments.names)]
    if arguments.sample:
        mutants = random.Random(arguments.seed).sample(mutants, min(arguments.sample, len(mutants)))
    return mutants


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--seed", default=time.strftime("%Y-%m-%d"), help="of --sample; the date if none is given")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--jobs", default=os.environ.get("TRAMONTANE_JOBS", "2"))
    arguments = parser.parse_args()
    mutants = choose(read_mutants(), arguments)
    if arguments.check:
        gone = [m["name"] for m in mutants if mutated(m, (REPOSITORY / m["file"]).read_text()) is None]
        print(f"{len(mutants)} mutants, {len(gone)} whose line is gone or not unique{': ' + ', '.join(gone) if gone else ''}")
        return 1 if gone else 0
    copy = Copy(arguments.jobs)
    copy.refresh()
    for test in sorted({m["test"] for m in mutants}):
        code, output = copy.make(test.split()[0])
        if not code:
            code, output = copy.test(test)
        if code or "[  PASSED  ] 0 tests" in output:
            sys.exit(f"{test}: does not pass, or runs nothing, without any mutant:\n{output[-3000:]}")
    counts = {"killed": 0, "survived": 0, "invalid": 0}
    for mutant in mutants:
        begin = time.monotonic()
        what, seen = verdict(copy, mutant)
        counts[what] += 1
        print(f"{what:8} {mutant['name']:34} {mutant['test']}: {seen or mutant['breaks']} ({time.monotonic() - begin:.0f} s)", flush=True)
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    return 0 if counts["killed"] == len(mutants) else 1


if __name__ == "__main__":
    sys.exit(main())
