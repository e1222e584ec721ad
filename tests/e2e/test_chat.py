"""Chat completions through the official client, every response validated strictly."""

import concurrent.futures

import pytest

QUESTION = [{"role": "user", "content": "What is 2+2?"}]
ANSWER = "2 + 2 = 4."


def ask(client, **options):
    return client.chat.completions.create(model="tiny", **{"messages": QUESTION, "temperature": 0, "max_tokens": 20, **options})


def join(stream):
    """The choices of a stream: index -> {text, finish, logprobs, ids}, and the usage."""
    choices, usage = {}, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            one = choices.setdefault(choice.index, {"text": "", "finish": None, "logprobs": [], "ids": [], "role": None})
            one["role"] = choice.delta.role or one["role"]
            one["text"] += choice.delta.content or ""
            one["finish"] = choice.finish_reason or one["finish"]
            if choice.logprobs:
                one["logprobs"] += [entry.model_dump() for entry in choice.logprobs.content]
            one["ids"] += getattr(choice, "token_ids", None) or []
    return choices, usage


def test_answers(client):
    answer = ask(client)
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.object == "chat.completion" and answer.model == "tiny"
    assert answer.id.startswith("chatcmpl-")
    assert answer.system_fingerprint.startswith("fp_")
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens > 5 and usage.completion_tokens > 3
    assert usage.prompt_tokens_details.cached_tokens >= 0


def test_streams_the_same(client):
    chunks = list(ask(client, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[0].choices[0].delta.content == ""
    assert all(chunk.usage is None for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == 1
    last = chunks[-1].choices[0]
    assert last.finish_reason == "stop" and not last.delta.content
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    assert len(chunks) > 4, "not one piece"


def test_stream_usage(client):
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens == ask(client).usage.total_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_text_parts_and_system(client):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "What is 2+2?"}]}]
    assert ask(client, messages=messages).choices[0].message.content


def test_max_tokens(client):
    answer = ask(client, max_tokens=2)
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 2
    assert ask(client, max_tokens=None, max_completion_tokens=3).usage.completion_tokens == 3
    assert ANSWER.startswith(answer.choices[0].message.content)


def test_no_limit_ends_by_itself(client):
    answer = client.chat.completions.create(model="tiny", messages=QUESTION, temperature=0)
    assert answer.choices[0].message.content == ANSWER


@pytest.mark.parametrize("stop, expected", [("=", "2 + 2 "), ([" = 4"], "2 + 2"), (["nothing", "+ 2 ="], "2 "), ("2", ""), ("4.", "2 + 2 = ")])
def test_stop_strings(client, stop, expected):
    whole = ask(client, stop=stop)
    assert whole.choices[0].message.content == expected and whole.choices[0].finish_reason == "stop"
    choices, _ = join(ask(client, stop=stop, stream=True))
    assert choices[0]["text"] == expected and choices[0]["finish"] == "stop"


def test_a_stop_string_ends_the_work(client):
    """The sequence is cancelled at the stop string, so it does not use up its 4000 tokens."""
    answer = ask(client, stop="=", max_tokens=4000, extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens < 20


def test_stop_token_ids_and_min_tokens(client):
    full = ask(client, extra_body={"return_token_ids": True}).model_dump()
    ids = full["choices"][0]["token_ids"]
    assert len(full["prompt_token_ids"]) == full["usage"]["prompt_tokens"]
    cut = ask(client, extra_body={"stop_token_ids": [ids[2]], "return_token_ids": True}).model_dump()
    first = ids.index(ids[2])
    assert cut["choices"][0]["token_ids"] == ids[:first] and cut["choices"][0]["finish_reason"] == "stop"
    longer = ask(client, max_tokens=30, extra_body={"min_tokens": 25})
    assert longer.usage.completion_tokens >= 25
    assert ask(client, max_tokens=40, extra_body={"ignore_eos": True}).usage.completion_tokens == 40


def test_logprobs(client):
    answer = ask(client, logprobs=True, top_logprobs=3, extra_body={"return_token_ids": True})
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens == len(answer.model_dump()["choices"][0]["token_ids"])
    text = b"".join(bytes(entry.bytes or []) for entry in content).decode()
    assert text.strip() == ANSWER
    for entry in content:
        assert len(entry.top_logprobs) == 3 and entry.logprob <= 0
        assert entry.top_logprobs[0].token == entry.token, "greedy takes the likeliest"
        assert [top.logprob for top in entry.top_logprobs] == sorted((top.logprob for top in entry.top_logprobs), reverse=True)
    choices, _ = join(ask(client, logprobs=True, top_logprobs=3, stream=True))
    assert choices[0]["logprobs"] == [entry.model_dump() for entry in content]
    assert ask(client, logprobs=True).choices[0].logprobs.content[0].top_logprobs == []
    assert ask(client).choices[0].logprobs is None


def test_logprobs_with_a_held_back_stop_string(client):
    whole = ask(client, logprobs=True, stop="2 = 4")
    choices, _ = join(ask(client, logprobs=True, stop="2 = 4", stream=True))
    assert choices[0]["logprobs"] == [entry.model_dump() for entry in whole.choices[0].logprobs.content]


def test_n(client):
    whole = ask(client, n=4, temperature=1.5, seed=3)
    assert [choice.index for choice in whole.choices] == [0, 1, 2, 3]
    choices, usage = join(ask(client, n=4, temperature=1.5, seed=3, stream=True, stream_options={"include_usage": True}))
    assert [choices[i]["text"] for i in range(4)] == [choice.message.content for choice in whole.choices]
    assert [choices[i]["finish"] for i in range(4)] == [choice.finish_reason for choice in whole.choices]
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert all(choices[i]["role"] == "assistant" for i in range(4))
    assert len({choice.message.content for choice in whole.choices}) > 1, "seeds differ"


def test_seed(client):
    def sample(seed):
        return ask(client, temperature=1.9, seed=seed, max_tokens=30).choices[0].message.content

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in range(5)}) > 1


def test_sampling_parameters_are_taken(client):
    answer = ask(
        client, temperature=0.7, top_p=0.9, presence_penalty=0.5, frequency_penalty=-0.5, logit_bias={"5": -100}, seed=1, user="u",
        extra_body={"top_k": 5, "min_p": 0.01, "repetition_penalty": 1.1, "priority": 1, "timeout": 50, "cache_salt": "s"},
    )
    assert answer.choices[0].finish_reason in ("stop", "length")


def test_logit_bias_forbids(client):
    first = ask(client, extra_body={"return_token_ids": True}).model_dump()["choices"][0]["token_ids"][0]
    other = ask(client, logit_bias={str(first): -100}, extra_body={"return_token_ids": True}).model_dump()["choices"][0]["token_ids"]
    assert first != other[0]


def test_continue_final_message(client):
    messages = QUESTION + [{"role": "assistant", "content": "2 + 2"}]
    answer = ask(client, messages=messages, extra_body={"continue_final_message": True})
    assert answer.choices[0].message.content == " = 4."


def test_tools_on_the_way_in(client):
    tools = [{"type": "function", "function": {"name": "get_current_weather", "parameters": {"type": "object", "properties": {}}}}]
    assert ask(client, tools=tools, tool_choice="none").usage.prompt_tokens > ask(client).usage.prompt_tokens


def test_prefix_cache_is_counted_and_changes_nothing(client):
    messages = [{"role": "user", "content": "Tell me about " + "the north wind and " * 30}]
    runs = [ask(client, messages=messages, logprobs=True, max_tokens=30) for _ in range(2)]
    assert runs[0].usage.prompt_tokens_details.cached_tokens < runs[1].usage.prompt_tokens_details.cached_tokens
    assert runs[0].choices == runs[1].choices
    salted = ask(client, messages=messages, logprobs=True, max_tokens=30, extra_body={"cache_salt": "mine"})
    assert salted.usage.prompt_tokens_details.cached_tokens == 0 and salted.choices == runs[0].choices


def test_same_tokens_under_concurrency(client):
    """32 at once, streamed and not, long and short: each as if alone."""
    prompts = ["What is 2+2?", "Tell me a story.", "What is the licence?", "Hello, how are you?"]

    def one(i):
        return dict(
            messages=[{"role": "user", "content": prompts[i % 4] + " please" * (i % 3)}], temperature=1.2 if i % 2 else 0, seed=i // 4,
            max_tokens=24, logprobs=True, top_logprobs=2, extra_body={"return_token_ids": True, "ignore_eos": i % 5 == 0},
        )

    def whole(i):
        choice = ask(client, **one(i)).choices[0]
        return choice.message.content, choice.finish_reason, choice.model_dump()["token_ids"], [entry.model_dump() for entry in choice.logprobs.content]

    def streamed(i):
        choice = join(ask(client, **one(i), stream=True))[0][0]
        return choice["text"], choice["finish"], choice["ids"], choice["logprobs"]

    alone = [whole(i) for i in range(32)]
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        together = list(pool.map(lambda i: streamed(i) if i % 2 else whole(i), range(32)))
        other = list(pool.map(lambda i: whole(i) if i % 2 else streamed(i), range(32)))
    assert together == alone and other == alone
