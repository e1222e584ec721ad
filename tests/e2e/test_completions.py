"""Completions, models and the tokenizer endpoints."""

import pytest

PROMPT = "The licence is"


def complete(client, prompt=PROMPT, **options):
    return client.completions.create(model="tiny", prompt=prompt, **{"temperature": 0, "max_tokens": 12, **options})


def ids_of(http, text):
    return http.post("/tokenize", json={"prompt": text}).json()["tokens"]


def test_answers(client):
    answer = complete(client)
    assert answer.object == "text_completion" and answer.id.startswith("cmpl-")
    assert answer.choices[0].text and answer.choices[0].logprobs is None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_streams_the_same(client, loose):
    whole = complete(client, n=2, temperature=1, seed=4)
    texts, finish, usage = {0: "", 1: ""}, {}, None
    for chunk in complete(loose, n=2, temperature=1, seed=4, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            finish[choice.index] = choice.finish_reason or finish.get(choice.index)
    assert [texts[i] for i in range(2)] == [choice.text for choice in whole.choices]
    assert [finish[i] for i in range(2)] == [choice.finish_reason for choice in whole.choices]
    assert usage.completion_tokens == whole.usage.completion_tokens


def test_prompt_forms_agree(client, http):
    ids = ids_of(http, PROMPT)
    assert ids[0] == 1, "a text begins with BOS"
    texts = {str(prompt): complete(client, prompt).choices[0].text for prompt in (PROMPT, [PROMPT], ids, [ids])}
    assert len(set(texts.values())) == 1, texts


def test_several_prompts(client, loose):
    prompts = [PROMPT, "Permission is hereby", "What is"]
    answer = complete(client, prompts, n=2, temperature=0.9, seed=1)
    assert [choice.index for choice in answer.choices] == list(range(6))
    for i, prompt in enumerate(prompts):
        alone = complete(client, prompt, n=2, temperature=0.9, seed=1)
        assert [choice.text for choice in alone.choices] == [choice.text for choice in answer.choices[2 * i : 2 * i + 2]]
    streamed = [""] * 6
    for chunk in complete(loose, prompts, n=2, temperature=0.9, seed=1, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
    assert streamed == [choice.text for choice in answer.choices]


def test_the_first_word_keeps_its_space(client, http):
    """The text goes on from the prompt: prompt and answer tokenize as they were generated."""
    answer = complete(client, extra_body={"return_token_ids": True}).model_dump()["choices"][0]
    whole = http.post("/detokenize", json={"tokens": answer["prompt_token_ids"] + answer["token_ids"]}).json()["prompt"]
    assert PROMPT + answer["text"] == whole


def test_logprobs(client):
    answer = complete(client, logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == len(logprobs.text_offset) == answer.usage.completion_tokens
    assert "".join(logprobs.tokens) == answer.choices[0].text
    assert logprobs.text_offset == [len("".join(logprobs.tokens[:i])) for i in range(len(logprobs.tokens))]
    for token, logprob, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs):
        assert len(top) == 2 and top[token] == logprob == max(top.values())
    assert len(complete(client, logprobs=0).choices[0].logprobs.top_logprobs[0]) == 1


def test_echo_with_logprobs(http):
    """What evaluation harnesses send. The first token has no log probability: OpenAI's null, which its own client's types do not allow."""
    sent = {"prompt": PROMPT, "echo": True, "logprobs": 1, "max_tokens": 3, "temperature": 0}
    answer = http.post("/v1/completions", json=sent).json()
    choice = answer["choices"][0]
    logprobs = choice["logprobs"]
    n_prompt = answer["usage"]["prompt_tokens"]
    assert choice["text"].startswith(PROMPT)
    assert len(logprobs["tokens"]) == n_prompt + 3
    assert logprobs["token_logprobs"][0] is None and logprobs["top_logprobs"][0] is None
    assert all(value <= 0 for value in logprobs["token_logprobs"][1:])
    # The same tokens generated, or given and scored, have the same log probabilities.
    ids = ids_of(http, PROMPT)
    plain = http.post("/v1/completions", json={**sent, "echo": False, "return_token_ids": True}).json()["choices"][0]
    scored = http.post("/v1/completions", json={**sent, "prompt": ids + plain["token_ids"], "max_tokens": 1}).json()["choices"][0]
    assert scored["logprobs"]["token_logprobs"][n_prompt : n_prompt + 3] == plain["logprobs"]["token_logprobs"]
    assert scored["logprobs"]["token_logprobs"][1:n_prompt] == logprobs["token_logprobs"][1:n_prompt]


def test_echo_alone(client, loose):
    answer = complete(client, echo=True, max_tokens=0)
    assert answer.choices[0].text == PROMPT and answer.usage.completion_tokens == 0
    assert complete(client, echo=True).choices[0].text == PROMPT + complete(client).choices[0].text
    streamed = "".join(chunk.choices[0].text for chunk in complete(loose, echo=True, stream=True))
    assert streamed == PROMPT + complete(client).choices[0].text


def test_echo_streams_the_same_logprobs(http):
    sent = {"prompt": PROMPT, "echo": True, "logprobs": 1, "max_tokens": 3, "temperature": 0}
    whole = http.post("/v1/completions", json=sent).json()["choices"][0]
    collected = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    text = ""
    for chunk in events(http, "/v1/completions", {**sent, "stream": True}):
        text += chunk["choices"][0]["text"]
        for name, values in (chunk["choices"][0]["logprobs"] or {}).items():
            collected[name] += values
    assert text == whole["text"] and collected == whole["logprobs"]


def events(http, path, body):
    import json

    with http.stream("POST", path, json=body) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                yield json.loads(line[6:])


def test_models(client):
    models = client.models.list().data
    assert [model.id for model in models] == ["tiny"]
    one = client.models.retrieve("tiny")
    assert one == models[0] and one.owned_by and one.created > 0 and one.model_extra["max_model_len"] > 1000


@pytest.mark.parametrize("text", ["", "hello", " leading", "two\nlines\t", "héllo 🙂 漢字", "<s>[INST] not control [/INST]</s>", "a\u0000b"])
def test_tokenize_and_back(http, text):
    answer = http.post("/tokenize", json={"prompt": text, "return_token_strs": True}).json()
    assert answer["count"] == len(answer["tokens"]) == len(answer["pieces"]) and answer["max_model_len"] > 0
    assert answer["tokens"][0] == 1 and answer["pieces"][0] == "<s>" and 3 not in answer["tokens"] and 2 not in answer["tokens"]
    assert http.post("/detokenize", json={"tokens": answer["tokens"]}).json() == {"prompt": text}
    bare = http.post("/tokenize", json={"prompt": text, "add_special_tokens": False}).json()
    assert bare["tokens"] == answer["tokens"][1:]


def test_apply_template_is_what_the_model_sees(http):
    chat = {"messages": [{"role": "user", "content": "What is 2+2?"}], "max_tokens": 1}
    shown = http.post("/apply-template", json=chat).json()
    assert shown["prompt"].startswith("<s>[INST]")
    assert http.post("/tokenize", json={"messages": chat["messages"]}).json()["tokens"] == shown["tokens"]
    answer = http.post("/v1/chat/completions", json={**chat, "return_token_ids": True}).json()
    assert answer["prompt_token_ids"] == shown["tokens"] and answer["usage"]["prompt_tokens"] == len(shown["tokens"])
