#!/usr/bin/env python3
"""Served load: N clients stream chats at a time, each one chat after another; tokens a second, time to the first token and time between
tokens as a client sees them. Servers take turns (A B A B), each started fresh; nothing else may run on the machine.

    tests/bench/serve_bench.py --rounds 2 --streams 1,4,16 \\
        --server "ours=build/release/tramontane serve --model MODEL --port {port}" \\
        --server "llama.cpp=llama-server -m MODEL -t 2 -np {streams} -c {context} --port {port}"

{port}, {streams} (the most clients at a time) and {context} (tokens for all of them) are filled in. Every chat is greedy, goes on past the
end-of-sequence token and has a prompt of its own, so that all servers do equal work and no prefix is found again. Needs Python only.
"""

import argparse
import asyncio
import json
import os
import random
import shlex
import socket
import statistics
import subprocess
import time
import urllib.request

WORDS = "river stone light morning table window garden winter letter music bridge forest silver market summer island paper shadow engine wheel".split()


class Chat:
    """One streamed answer and when its pieces came."""

    def __init__(self):
        self.started = time.perf_counter()
        self.pieces = []
        self.tokens = 0


def body_of(number, prompt_words, answer_tokens):
    words = random.Random(number)
    text = f"Story {number}: " + " ".join(words.choice(WORDS) for _ in range(prompt_words))
    return json.dumps({
        "messages": [{"role": "user", "content": text}], "max_tokens": answer_tokens, "temperature": 0, "ignore_eos": True,
        "stream": True, "stream_options": {"include_usage": True}}).encode()


async def stream_chat(port, body):
    """Reads the lines of the event stream; chunk sizes of the transfer encoding are lines of their own and fall through."""
    chat = Chat()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nConnection: close\r\n"
                 b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    status = await reader.readline()
    if b" 200 " not in status:
        raise RuntimeError(f"{status.decode().strip()}: {(await reader.read(2000)).decode(errors='replace')}")
    while line := await reader.readline():
        if not line.startswith(b"data: {"):
            if line.startswith(b"data: [DONE]"):
                break
            continue
        now = time.perf_counter()
        event = json.loads(line[6:])
        if event.get("usage"):
            chat.tokens = event["usage"]["completion_tokens"]
        if event.get("choices") and event["choices"][0]["delta"].get("content"):
            chat.pieces.append(now)
    writer.close()
    return chat


async def load(port, streams, each, prompt_words, answer_tokens, first_number):
    async def client(index):
        return [await stream_chat(port, body_of(first_number + index * each + i, prompt_words, answer_tokens)) for i in range(each)]

    began = time.perf_counter()
    chats = [chat for one in await asyncio.gather(*(client(i) for i in range(streams))) for chat in one]
    took = time.perf_counter() - began
    short = [chat.tokens for chat in chats if chat.tokens != answer_tokens]
    if short:
        raise RuntimeError(f"answers of {short} tokens instead of {answer_tokens}")
    first = [chat.pieces[0] - chat.started for chat in chats]
    between = [b - a for chat in chats for a, b in zip(chat.pieces, chat.pieces[1:])]
    return {"tokens_s": sum(chat.tokens for chat in chats) / took, "first": first, "between": between}


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(command, streams, context):
    port = free_port()
    began = time.perf_counter()
    process = subprocess.Popen(shlex.split(command.format(port=port, streams=streams, context=context)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        if process.poll() is not None:
            raise SystemExit(f"it ended with {process.returncode}: {command}")
        try:
            if urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).status == 200:
                return process, port, time.perf_counter() - began
        except OSError:
            time.sleep(0.02)


def memory_mib(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", action="append", required=True, metavar="NAME=COMMAND")
    parser.add_argument("--streams", default="1,4,16")
    parser.add_argument("--each", type=int, default=2, help="chats of each client, one after another")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--prompt-words", type=int, default=100)
    parser.add_argument("--answer-tokens", type=int, default=128)
    options = parser.parse_args()
    counts = [int(count) for count in options.streams.split(",")]
    servers = [tuple(server.split("=", 1)) for server in options.server]
    context = max(counts) * (options.prompt_words * 3 + options.answer_tokens + 64)
    seen = {}
    for turn in range(options.rounds):
        for name, command in servers:
            print(f"round {turn + 1}, {name}: load average {os.getloadavg()[0]:.2f}", flush=True)
            process, port, ready = start(command, max(counts), context)
            try:
                asyncio.run(load(port, 1, 1, options.prompt_words, 8, 0))  # warm
                for count in counts:
                    result = asyncio.run(load(port, count, options.each, options.prompt_words, options.answer_tokens, 1000 * (count + 100 * turn)))
                    seen.setdefault((count, name), []).append(result)
                    print(f"  {count:3} streams: {result['tokens_s']:7.1f} tok/s", flush=True)
                print(f"  ready after {ready:.2f} s, at most {memory_mib(process.pid):.0f} MiB", flush=True)
            finally:
                process.terminate()
                process.wait()
    print("\n| streams | server | out tok/s, each round | first token, s: median / 95th | between tokens, ms: median / 95th |\n|---|---|---|---|---|")
    for count in counts:
        for name, _ in servers:
            results = seen[count, name]
            first = [value for result in results for value in result["first"]]
            between = [1e3 * value for result in results for value in result["between"]]
            rates = ", ".join(f"{result['tokens_s']:.0f}" for result in results)
            print(f"| {count} | {name} | {rates} | {statistics.median(first):.2f} / {percentile(first, 0.95):.2f} "
                  f"| {statistics.median(between):.1f} / {percentile(between, 0.95):.1f} |")


if __name__ == "__main__":
    main()
