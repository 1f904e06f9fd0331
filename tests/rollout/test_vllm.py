"""Answers by vLLM: a server that speaks as vLLM's does, and really draws, by the weights that it is given."""

import json
import sys
from types import ModuleType

import pytest
from tinyrun import buffer_of, low_first, sequences_for
from vllm_served import LLM, LoRARequest, vllm_serving

from tunesmith.config.load import load
from tunesmith.errors import BadEnvironment, RecipeError, Refusal
from tunesmith.methods.base import method
from tunesmith.model.load import attach, load_model
from tunesmith.model.policy import Policy
from tunesmith.objectives.grpo import GRPO
from tunesmith.run import Run
from tunesmith.samplers import _vllm_server
from tunesmith.samplers.own import Exact, Half
from tunesmith.samplers.vllm import VLLM
from tunesmith.training import checkpoint
from tunesmith.training.online import drawing, refuse_sampler
from tunesmith.training.train import train


def words(folder, *more) -> list[str]:
    said = [f"model.path={folder}", "data.path=asked.jsonl", "objective=grpo", "output=run", "eval.max_samples=2"]
    said += ["objective.max_completion_length=3", "rewards.0.name=regex", "rewards.0.pattern=^[a-m]"]
    said += [f"train.{word}" for word in ("max_steps=4", "learning_rate=0.03", "per_device_train_batch_size=2")]
    return [*said, "train.logging_steps=1", *more]


TWICE = "objective.num_iterations=2"
"""Learnt from twice, answers are looked at beforehand, and what is drawn is held against that at once."""


def run_of(folder, *more) -> Run:
    return load(Run, None, words(folder, *more)).value


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_vllm_server, "WAITS", (0.0, 0.0, 0.0))
    rows = [{"prompt": f"what is {n}?", "answer": str(n)} for n in range(20)]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.mark.parametrize("name", ["lora", "full"])
def test_a_run_learns_from_answers_that_a_server_draws_by_what_was_learnt(here, model_folder, name):
    """Were it drawn by other weights than the trainer's, the mismatch would say so: rates are large."""
    with vllm_serving(model_folder) as site:
        run = run_of(model_folder, f"method={name}", "objective.sampler=vllm", f"objective.sampler.url={site.url}/v1")
        train(run, quiet=True)
    lines = [json.loads(line) for line in (here / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["sampler_mismatch"] < 1e-4 for line in lines if "sampler_mismatch" in line] == [True] * 4
    prompts = [body for path, body in site.asked if path == "/v1/completions"]
    assert len({body["seed"] for body in prompts[2:-2]}) == len(prompts) - 4  # held-out ones have the same twice
    assert not site.adapters and not (here / "run/sampler").exists()
    if name == "lora":
        assert len(set(site.loaded)) == 1 + 4  # as it began, and after each step: the last is measured alone
        assert len({body["model"] for body in prompts}) == 6  # each under a name of its own
        assert len(list((here / "run/adapter").iterdir())) > 2
    else:
        assert len(set(site.reloaded)) == 6 + 1 and site.reloaded[-1] == str(model_folder)  # the base again
        assert {body["model"] for body in prompts} == {str(model_folder)}


@pytest.mark.parametrize(
    ("how", "mode"),
    [
        ({"temperature": 0.7}, "processed_logprobs"),
        ({"top_k": 40, "top_p": 0.9}, "raw_logprobs"),
        ({"min_p": 0.1, "stop": ["e"]}, "raw_logprobs"),
    ],
)
def test_a_token_has_the_log_probability_that_the_trainer_gives_it(here, model_folder, how, mode):
    said = [f"objective.{key}={json.dumps(value)}" for key, value in how.items()]
    other = "raw_logprobs" if mode == "processed_logprobs" else "processed_logprobs"
    with vllm_serving(model_folder, mode=mode) as site:
        run = run_of(model_folder, TWICE, *said, f"objective.sampler={{name: vllm, url: {site.url}}}")
        refuse_sampler(run, model_folder)
        policy = Policy(load_model(model_folder)[0])
        policy.temperature = run.objective.temperature
        policy.model.requires_grad_(True)
        answers = buffer_of(policy, run.objective, method["full"](), sequences_for(run.objective))
        with drawing(run, model_folder, closing(answers), here):
            assert answers.fill(0, [0, 1])["sampler_mismatch"].mean() < 1e-5
            first = answers.rows.sequences
            answers.fill(0, [0, 1])
            assert first == answers.rows.sequences  # by the same seed the same answers
        site.drawing.mode = other
        with pytest.raises(BadEnvironment, match=rf"begin it with --logprobs-mode {mode}, or leave temperature, top_p"):
            refuse_sampler(run, model_folder)


class Low:
    """Rewards that can be closed."""

    __call__ = staticmethod(low_first)

    def close(self):
        pass


def closing(answers):
    answers.scorer = Low()
    return answers


REFUSED = {
    "method=prompt_tuning": "method: vllm takes adapters of lora, .* it cannot be given prompt_tuning: take one of",
    "method=bottleneck": "it cannot be given bottleneck",
    "method=llama_pro": "it cannot be given llama_pro",
    "method.use_dora=true": "method.use_dora=true: vllm does not know it in an adapter; leave it out",
    "method.bias=all": "method.bias=all: vllm does not know it",
    "method.modules_to_save=[lm_head]": "method.modules_to_save: vllm does not know it",
    "model.precision=nf4": "vllm would hold the base otherwise than model.precision does",
    "model.adapters=[one]": "model.adapters: are merged in memory, where vllm does not see them; write the model",
    "model.rope_scaling={name: linear, factor: 2.0}": "model.rope_scaling: linear stretches positions in memory",
    "objective.sampler.gpu_memory_utilization=0.5": "gpu_memory_utilization: is for vllm in this process: give it to",
    "objective.sampler.max_model_len=64": "max_model_len: is for vllm in this process: give it to the server",
    "objective.sampler.url=127.0.0.1:8000": r"url: must begin with http:// or https:// \(got 127.0.0.1:8000\)",
    "objective={temperature: 0.5, top_p: 0.9}": "objective.temperature: vllm tells log-probabilities at a temperature",
}


@pytest.mark.parametrize("word", REFUSED)
def test_what_vllm_cannot_be_given_is_refused_in_one_sentence(here, model_folder, word):
    run = run_of(model_folder, "objective.sampler={name: vllm, url: 'http://127.0.0.1:1'}", word)
    with pytest.raises(RecipeError, match=REFUSED[word]) as said:
        refuse_sampler(run)
    assert "\n" not in str(said.value)


def test_what_a_place_does_not_have_is_refused_before_weights_are_read(here, model_folder, monkeypatch):
    run = run_of(model_folder, "objective.sampler=vllm")
    with pytest.raises(
        BadEnvironment, match=r"vllm is not installed: pip install 'tunesmith\[vllm\]'; or name a server"
    ):
        train(run, quiet=True)
    monkeypatch.setattr("tunesmith.samplers.vllm.find_spec", lambda name: name)
    with pytest.raises(
        BadEnvironment, match=r"vllm in this process needs a GPU; name a server by objective.sampler.url"
    ):
        train(run, quiet=True)
    for key, value in {"timeout": 3.0, "served_model": "it"}.items():
        with pytest.raises(RecipeError, match=rf"sampler.{key}: is for vllm behind an address: name one by url"):
            refuse_sampler(run_of(model_folder, f"objective.sampler={{name: vllm, {key}: {value}}}"))
    run = run_of(model_folder, "objective.sampler={name: vllm, url: 'http://127.0.0.1:1'}")
    with pytest.raises(
        BadEnvironment, match=r"http://127.0.0.1:1/v1/models gives no answer .*see whether `vllm serve`"
    ):
        train(run, quiet=True)
    quantised = here / "few"
    quantised.mkdir()
    (quantised / "config.json").write_text('{"quantization_config": {"quant_method": "gptq"}}')
    with pytest.raises(RecipeError, match="take a base that is not quantised"):
        refuse_sampler(run, quantised)


def test_a_server_with_another_base_or_that_takes_nothing_is_refused(here, model_folder, tmp_path):
    said = "objective.sampler={{name: vllm, url: '{}'}}"
    with vllm_serving(model_folder, name="it") as site:
        run = run_of(model_folder, said.format(site.url))
        refuse_sampler(run, model_folder)  # its folder is the same, whatever it is called
        site.root = "org/other"
        with pytest.raises(RecipeError, match=rf"serves it \(of org/other\), and not {model_folder}; begin it with"):
            refuse_sampler(run, model_folder)
        named = run_of(model_folder, said.format(site.url), "objective.sampler.served_model=it")
        refuse_sampler(named, model_folder)
        wrong = run_of(model_folder, said.format(site.url), "objective.sampler.served_model=that")
        with pytest.raises(RecipeError, match=r"serves it \(of org/other\), and none named that"):
            refuse_sampler(wrong, model_folder)
        site.dynamic, site.root = False, str(model_folder)
        with pytest.raises(
            BadEnvironment, match="takes no adapters while it serves; begin it with VLLM_ALLOW_RUNTIME_"
        ):
            refuse_sampler(run, model_folder)
        whole = run_of(model_folder, said.format(site.url), "method=full")
        with pytest.raises(
            BadEnvironment, match="takes no weights while it serves; begin it with VLLM_SERVER_DEV_MODE"
        ):
            refuse_sampler(whole, model_folder)


def test_a_busy_server_is_asked_again_and_another_fault_is_said_once(here, model_folder, monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "the-key-of-it")
    with vllm_serving(model_folder) as site:
        run = run_of(model_folder, TWICE, f"objective.sampler={{name: vllm, url: '{site.url}'}}")
        answers = buffer_of(
            Policy(attach(load_model(model_folder)[0], run.method, ())), run.objective, run.method, PROMPTS
        )
        with drawing(run, model_folder, closing(answers), here):
            site.faults = [(503, "busy"), (500, "busy")]
            assert answers.fill(0, [0])["sampler_mismatch"].mean() < 1e-4
            site.faults = [(400, {"error": {"message": "longer than the context, the-key-of-it"}})] * 9
            with pytest.raises(
                Refusal, match=r"/v1/completions refuses with 400: .*the context, \*\*\*.*mend that"
            ) as said:
                answers.fill(1, [0, 1])
            assert "\n" not in str(said.value) and "the-key-of-it" not in str(said.value)
            far = {"token_ids": [1], "logprobs": {"token_logprobs": [10**999]}, "finish_reason": "stop"}
            for said in ([{"index": n} for n in range(8)], [far | {"index": n} for n in range(8)], None):
                site.faults = [(200, {"choices": said} if said else "[" * 100_000)]
                with pytest.raises(
                    BadEnvironment, match="answers without token_ids and token_logprobs; take a newer vLLM"
                ):
                    answers.fill(1, [0])
        assert not site.adapters and set(site.keys) == {"Bearer the-key-of-it"}


PROMPTS = sequences_for(GRPO())


def test_in_this_process_it_is_given_the_same(here, model_folder, monkeypatch):
    """By a stand-in for the package, which has its names and draws by the model of the folder that it is given."""
    made = stand_in(monkeypatch)
    for name, more in {"lora": ["method.r=4"], "full": []}.items():
        room = ["objective.sampler.gpu_memory_utilization=0.4", "objective.sampler.max_model_len=64"]
        run = run_of(model_folder, TWICE, "objective.sampler=vllm", f"method={name}", *more, *room)
        policy = Policy(attach(load_model(model_folder)[0], run.method, ()))
        answers = buffer_of(policy, run.objective, run.method, PROMPTS)
        with drawing(run, model_folder, closing(answers), here):
            for number in range(2):
                assert answers.fill(number, [0, 1])["sampler_mismatch"].mean() < 1e-4
                for weight in policy.trainable().values():
                    weight.data += 0.1
        assert not (here / "sampler").exists()
        told = {"model": str(model_folder), "dtype": "float32", "gpu_memory_utilization": 0.4, "max_model_len": 64}
        told |= {"generation_config": "vllm", "logprobs_mode": "raw_logprobs"}
        adapter = {"enable_lora": True, "max_loras": 1, "max_lora_rank": 8} if name == "lora" else {}
        assert made.pop("told") == told | adapter


def stand_in(monkeypatch) -> dict:
    vllm, lora, request = (ModuleType(name) for name in ("vllm", "vllm.lora", "vllm.lora.request"))
    vllm.LLM, vllm.SamplingParams, request.LoRARequest = LLM, dict, LoRARequest
    for module in (vllm, lora, request):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return LLM.made


def test_words_for_a_sampler_are_read_as_they_were(here, model_folder):
    assert run_of(model_folder).objective.sampler == Exact()
    assert run_of(model_folder, "objective.sampler=half").objective.sampler == Half()
    one, other = (run_of(model_folder, f"objective.sampler={{name: vllm, url: 'http://{at}'}}") for at in "ab")
    assert one.objective.sampler == VLLM(url="http://a")
    assert checkpoint.deciding(one) == checkpoint.deciding(other)  # a run goes on by a server elsewhere
    assert checkpoint.deciding(one) != checkpoint.deciding(run_of(model_folder))
    with pytest.raises(RecipeError, match=r"no such sampler 'vlm'; did you mean 'vllm'\?"):
        run_of(model_folder, "objective.sampler=vlm")
