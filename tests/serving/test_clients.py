"""What other people's programs make of the server: LangChain, and schemathesis, which sends whatever OpenAPI allows."""

import json
import re

import pytest
from served import send


def test_a_chain_of_langchain_answers_and_streams_as_the_client_does(client, site):
    langchain = pytest.importorskip("langchain_openai", reason="of the extra dev")
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate

    model = langchain.ChatOpenAI(
        model="red", base_url=f"{site}/v1", api_key="none", temperature=0, max_tokens=12, max_retries=0
    )
    prompt = ChatPromptTemplate.from_messages([("system", "You are helpful"), ("user", "is {what} warm?")])
    chain = prompt | model | StrOutputParser()
    turns = [{"role": "system", "content": "You are helpful"}, {"role": "user", "content": "is the film warm?"}]
    made = client.chat.completions.create(model="red", messages=turns, temperature=0, max_tokens=12)
    right = made.choices[0].message.content
    assert chain.invoke({"what": "the film"}) == right
    assert "".join(chain.stream({"what": "the film"})) == right
    assert chain.batch([{"what": "the film"}, {"what": "the fox"}])[0] == right
    said = model.invoke(turns)
    assert said.usage_metadata["output_tokens"] == made.usage.completion_tokens
    assert said.response_metadata["finish_reason"] == made.choices[0].finish_reason


def fit(case):
    """Of a model that is there, and short, so that more is come to than the first refusal."""
    if isinstance(case.body, dict) and "model" in case.body:
        case.body["model"] = "red"
        if case.operation.path in ("/v1/chat/completions", "/v1/completions"):
            case.body.pop("max_completion_tokens", None)
            case.body["max_tokens"] = 2


def test_whatever_openapi_allows_is_answered_without_a_server_error(site):
    schemathesis = pytest.importorskip("schemathesis", reason="of the extra dev")
    from hypothesis import HealthCheck, given, settings

    often = settings(
        max_examples=4, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    document = send(site, "/openapi.json")[1]
    parts = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert parts and parts == document["components"]["schemas"].keys()  # or it passes over what refers to them
    operations = [one.ok() for one in schemathesis.openapi.from_url(f"{site}/openapi.json").get_all_operations()]
    seen = {}

    for one in operations:

        @often
        @given(case=one.as_strategy())
        def ask(case):
            fit(case)
            answer = case.call(base_url=site, timeout=60)
            seen.setdefault(case.operation.label, set()).add(answer.status_code)
            assert answer.status_code < 500, (case.operation.label, case.body, answer.text[:300])

        ask()
    assert len(seen) == len(operations) > 8
