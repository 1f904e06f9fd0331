"""What OpenAI's own client gets from the server, and that it is what the model says."""

import base64
import struct
import threading
from typing import Literal

import openai
import pytest
import torch
from conftest import make_tiny
from pydantic import BaseModel

from tunesmith.model.load import hushed

ASKED = [{"role": "user", "content": "is this review positive or negative?"}]
NAMES = ("tiny", "red", "blue", "dora")


def alone(shelf, tokenizer, name, messages, count):
    """What transformers and PEFT write by themselves, one prompt and one adapter at a time."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(shelf / "tiny", trust_remote_code=False).eval()
    with hushed():
        model = model if name == "tiny" else PeftModel.from_pretrained(model, shelf / name).eval()
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False)
    return tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)


def write(client, name, messages, count=16, **more):
    made = client.chat.completions.create(
        model=name, messages=messages, max_completion_tokens=count, temperature=0, **more
    )
    return made.choices[0].message.content


def test_every_name_is_listed_with_its_base(client):
    found = {one.id: one for one in client.models.list()}
    assert {*NAMES} <= found.keys()
    assert found["tiny"].parent is None and found["red"].parent == "tiny"
    assert client.models.retrieve("blue").id == "blue"


def test_rows_under_unlike_adapters_say_in_one_batch_what_each_says_alone(client, shelf, tokenizer):
    texts = ["one two three", "the quick brown fox jumps over the lazy dog"]
    jobs = [(name, [{"role": "user", "content": text}]) for text in texts for name in NAMES]
    said = [""] * len(jobs)

    def ask(n):
        said[n] = write(client, *jobs[n], count=8 + n)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == [alone(shelf, tokenizer, *job, 8 + n) for n, job in enumerate(jobs)]
    assert len(set(said)) == len(jobs)  # adapters do say something of their own


def test_a_stream_is_the_whole_answer_in_pieces(client):
    whole = client.chat.completions.create(model="red", messages=ASKED, max_tokens=20, seed=5, n=2)
    more = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(model="red", messages=ASKED, max_tokens=20, seed=5, n=2, **more))
    *parts, last = chunks
    assert last.choices == [] and last.usage == whole.usage.model_copy(
        update={"prompt_tokens_details": last.usage.prompt_tokens_details}
    )
    assert {(one.object, one.id, one.model) for one in chunks} == {("chat.completion.chunk", chunks[0].id, "red")}
    for n in (0, 1):
        mine = [one.choices[0] for one in parts if one.choices[0].index == n]
        assert mine[0].delta.role == "assistant"
        assert [one.finish_reason for one in mine if one.finish_reason] == [whole.choices[n].finish_reason]
        assert "".join(one.delta.content or "" for one in mine) == whole.choices[n].message.content
    assert whole.choices[0].message.content != whole.choices[1].message.content


def test_a_seed_says_the_same_in_any_company(client):
    ask = {"model": "blue", "messages": ASKED, "max_tokens": 12, "seed": 7, "temperature": 1.3, "top_p": 0.9}
    first = client.chat.completions.create(**ask).choices[0].message.content
    others = [threading.Thread(target=write, args=(client, name, ASKED, 40)) for name in NAMES]
    for thread in others:
        thread.start()
    again = client.chat.completions.create(**ask).choices[0].message.content
    for thread in others:
        thread.join()
    assert again == first
    assert client.chat.completions.create(**{**ask, "seed": 8}).choices[0].message.content != first


def test_logprobs_are_the_models_own(client, shelf, tokenizer):
    made = client.chat.completions.create(
        model="tiny", messages=ASKED, max_tokens=4, temperature=0, logprobs=True, top_logprobs=3
    )
    ids = tokenizer.apply_chat_template(ASKED, add_generation_prompt=True, return_dict=False)
    model = make_tiny(max_position_embeddings=512).eval()
    for one in made.choices[0].logprobs.content:
        with torch.no_grad():
            logp = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        best = logp.topk(3)
        assert [top.logprob for top in one.top_logprobs] == pytest.approx(best.values.tolist(), abs=1e-4)
        assert one.logprob == one.top_logprobs[0].logprob
        assert bytes(one.bytes).decode("utf-8", "replace") == one.token or "\ufffd" in one.token
        ids.append(int(best.indices[0]))


def test_a_stop_ends_the_answer_and_is_not_in_it(client):
    whole = write(client, "red", ASKED, 30)
    stop = whole[8:11]
    cut = whole[: whole.find(stop)]
    assert write(client, "red", ASKED, 30, stop=stop) == cut
    pieces = client.chat.completions.create(
        model="red", messages=ASKED, max_tokens=30, temperature=0, stop=["never said", stop], stream=True
    )
    found = [one.choices[0] for one in pieces]
    assert "".join(one.delta.content or "" for one in found) == cut and found[-1].finish_reason == "stop"


def test_penalties_and_biases_are_openais(client, tokenizer):
    ids, model = tokenizer("one two")["input_ids"], make_tiny(max_position_embeddings=512).eval()

    def right(presence, frequency, bias):
        said = []
        for _ in range(6):
            with torch.no_grad():
                logits = model(torch.tensor([ids + said])).logits[0, -1]
            for token in set(said):
                logits[token] -= presence + frequency * said.count(token)
            for token, value in bias.items():
                logits[int(token)] += value
            said.append(int(logits.argmax()))
        return [tokenizer.decode([one]) for one in said]

    found, two = [], {"40": 100, "41": 99}
    for asked in ((0, 0, {}), (0, 0, two), (2, 0, two), (0, 2, two)):
        made = client.completions.create(
            model="tiny", prompt="one two", max_tokens=6, temperature=0, logprobs=0, logit_bias=asked[2],
            presence_penalty=asked[0], frequency_penalty=asked[1], extra_body={"ignore_eos": True},
        )  # fmt: skip
        found.append(tuple(made.choices[0].logprobs.tokens))
        assert found[-1] == tuple(right(*asked)), asked
    assert len(set(found)) == len(found)  # each does something, and something else


def test_completions_take_texts_and_tokens_and_give_them_back(client, tokenizer):
    ids = tokenizer("one two three")["input_ids"]
    ask = {"model": "red", "max_tokens": 6, "temperature": 0}
    by_text = client.completions.create(prompt=["one two three", "yes no"], echo=True, n=1, **ask)
    by_ids = client.completions.create(prompt=ids, **ask)
    assert by_text.choices[0].text == "one two three" + by_ids.choices[0].text
    assert [one.index for one in by_text.choices] == [0, 1] and by_text.choices[1].text.startswith("yes no")
    assert by_text.usage.completion_tokens == 12
    chunks = client.completions.create(prompt="one two three", stream=True, **ask)
    assert "".join(one.choices[0].text for one in chunks) == by_ids.choices[0].text


def test_what_is_given_back_says_how_likely_it_was(client, tokenizer, monkeypatch):
    """As lm-eval's local-completions asks: echo, logprobs and one token or none."""
    from tunesmith.serving.pieces import Chances

    monkeypatch.setattr(Chances, "largest", 5)
    texts = ["the quick brown fox jumps over a lazy dog", "yes no"]
    prompts = [tokenizer(text)["input_ids"] for text in texts]
    ask = {"model": "tiny", "temperature": 0, "echo": True, "logprobs": 2}
    none = client.completions.create(prompt=texts, max_tokens=0, **ask)
    one = client.completions.create(prompt=prompts, max_tokens=1, **ask)
    model = make_tiny(max_position_embeddings=512).eval()
    for ids, text, alone, more in zip(prompts, texts, none.choices, one.choices, strict=True):
        assert alone.text == text and alone.finish_reason == "length" and more.text.startswith(text)
        with torch.no_grad():
            logp = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        for found, count in ((alone.logprobs, len(ids)), (more.logprobs, len(ids) + 1)):
            assert found.token_logprobs[0] is None and found.top_logprobs[0] is None
            assert len(found.tokens) == len(found.text_offset) == len(found.token_logprobs) == count
            right = [float(logp[at, token]) for at, token in enumerate(ids[1:])]
            assert found.token_logprobs[1 : len(ids)] == pytest.approx(right, abs=1e-4)
            best = logp[:-1].max(-1).values.tolist()
            assert [max(top.values()) for top in found.top_logprobs[1 : len(ids)]] == pytest.approx(best, abs=1e-4)
            assert "".join(found.tokens[: len(ids)]) == text
        assert more.logprobs.token_logprobs[-1] == pytest.approx(float(logp[-1].max()), abs=1e-4)
    assert none.usage.completion_tokens == 0 and one.usage.completion_tokens == 2
    for most in (0, 3):
        whole = client.completions.create(prompt=texts[0], max_tokens=most, **ask).choices[0]
        chunks = list(client.completions.create(prompt=texts[0], max_tokens=most, stream=True, **ask))
        parts = [part.choices[0] for part in chunks]
        assert "".join(part.text for part in parts) == whole.text and parts[-1].finish_reason == whole.finish_reason
        assert sum((part.logprobs.token_logprobs for part in parts), []) == whole.logprobs.token_logprobs


def test_embeddings_are_the_mean_of_the_last_states(client, tokenizer):
    packed = client.embeddings.create(model="tiny", input=["a warm film", "paris"], encoding_format="base64")
    plain = client.embeddings.create(model="tiny", input=["a warm film", "paris"], encoding_format="float")
    with torch.no_grad():
        ids = torch.tensor([tokenizer("a warm film")["input_ids"]])
        states = make_tiny(max_position_embeddings=512).eval()(ids, output_hidden_states=True).hidden_states[-1][0]
    right = torch.nn.functional.normalize(states.mean(0), dim=0)
    found = struct.unpack(f"<{len(right)}f", base64.b64decode(packed.data[0].embedding))
    assert plain.data[0].embedding == pytest.approx(right.tolist(), abs=1e-5)
    assert list(found) == pytest.approx(plain.data[0].embedding, abs=1e-7)
    short = client.embeddings.create(model="red", input=ids[0].tolist(), dimensions=8).data[0].embedding
    assert len(short) == 8 and sum(one * one for one in short) == pytest.approx(1, abs=1e-5)
    assert short != pytest.approx(plain.data[0].embedding[:8], abs=1e-3)


def test_what_was_read_is_not_read_again_and_changes_nothing(client, shelf, tokenizer):
    turns = [{"role": "user", "content": "the film is a warm and funny story of two friends " * 3}]
    first = client.chat.completions.create(model="blue", messages=turns, max_tokens=12, temperature=0)
    answer = first.choices[0].message.content
    turns += [{"role": "assistant", "content": answer}, {"role": "user", "content": "yes no"}]
    second = client.chat.completions.create(model="blue", messages=turns, max_tokens=12, temperature=0)
    assert second.usage.prompt_tokens_details.cached_tokens >= first.usage.prompt_tokens - 1
    other = client.chat.completions.create(model="red", messages=turns, max_tokens=12, temperature=0)
    assert other.usage.prompt_tokens_details.cached_tokens < first.usage.prompt_tokens  # another adapter read otherwise
    for name, made in (("blue", second), ("red", other)):
        assert made.choices[0].message.content == alone(shelf, tokenizer, name, turns, 12)


SCHEMA = {
    "type": "object",
    "properties": {"mood": {"enum": ["warm", "dull"]}, "stars": {"type": "integer", "minimum": 1, "maximum": 5}},
    "required": ["mood", "stars"],
    "additionalProperties": False,
}


class Stars(BaseModel):
    many: Literal["one", "two"]


class Review(BaseModel):
    mood: Literal["warm", "dull"]
    stars: Stars


def test_an_answer_is_held_to_a_schema(client):
    import json

    pytest.importorskip("llguidance")
    form = {"type": "json_schema", "json_schema": {"name": "review", "schema": SCHEMA, "strict": True}}
    made = client.chat.completions.create(model="red", messages=ASKED, n=3, seed=1, max_tokens=80, response_format=form)
    for choice in made.choices:
        said = json.loads(choice.message.content)
        assert said.keys() == {"mood", "stars"} and said["mood"] in ("warm", "dull") and 1 <= said["stars"] <= 5
        assert choice.finish_reason == "stop"
    form = {"type": "json_schema", "json_schema": {"name": "one", "schema": {"const": {"a": 1}}}}
    whole, cut = (
        client.chat.completions.create(model="red", messages=ASKED, max_tokens=20, stop=stop, response_format=form)
        for stop in ("never said", "}")
    )
    assert [one.choices[0].message.content for one in (whole, cut)] == ['{"a": 1}', '{"a": 1']


def test_a_tool_that_must_be_called_is_called_streamed_too(client):
    import json

    pytest.importorskip("llguidance")
    tool = {"type": "function", "function": {"name": "rate", "parameters": SCHEMA}}
    more = {"tools": [tool], "tool_choice": "required", "max_tokens": 120, "seed": 2}
    made = client.chat.completions.create(model="red", messages=ASKED, **more).choices[0]
    [call] = made.message.tool_calls
    assert made.finish_reason == "tool_calls" and call.function.name == "rate" and made.message.content is None
    assert json.loads(call.function.arguments).keys() == {"mood", "stars"}
    parts = [one.choices[0] for one in client.chat.completions.create(model="red", messages=ASKED, stream=True, **more)]
    streamed = [one.delta.tool_calls[0] for one in parts if one.delta.tool_calls]
    assert streamed[0].function.model_dump() == call.function.model_dump() and parts[-1].finish_reason == "tool_calls"
    assert not any(one.delta.content for one in parts)
    nested = openai.pydantic_function_tool(Review)
    assert "$ref" in str(nested)  # to what stands beside it in its parameters
    more |= {"tools": [nested, tool], "tool_choice": {"type": "function", "function": {"name": "Review"}}}
    [call] = client.chat.completions.create(model="red", messages=ASKED, **more).choices[0].message.tool_calls
    assert Review.model_validate_json(call.function.arguments).stars.many in ("one", "two")
    with pytest.raises(openai.BadRequestError, match="chat template does not write them"):
        client.chat.completions.create(model="red", messages=ASKED, tools=[tool])
