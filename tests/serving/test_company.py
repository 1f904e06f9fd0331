"""What befalls one answer befalls no other: a failure is told to those whom it concerns, and the server goes on."""

from copy import deepcopy
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from served import adapter

from tunesmith.errors import Refusal
from tunesmith.model.engine import Engine
from tunesmith.model.going import Together
from tunesmith.model.load import hushed
from tunesmith.model.side_by_side import Beside
from tunesmith.rollout.each import Draw
from tunesmith.serving import loop as module
from tunesmith.serving import memory
from tunesmith.serving.answers import Asking
from tunesmith.serving.fault import Fault
from tunesmith.serving.lane import Lane
from tunesmith.serving.loop import Loop
from tunesmith.serving.metrics import Metrics
from tunesmith.serving.models import Models
from tunesmith.serving.row import Ask, Piece
from tunesmith.serving.settings import Serving
from tunesmith.serving.text import Text
from tunesmith.serving.wire import Completion

PROMPTS = [5, 6, 7, 8, 9], [20, 21, 22]


class Server:
    """A server's model and its loop, whose turns a test takes itself."""

    def __init__(self, shelf, **more) -> None:
        self.models = Models(Serving(model=str(shelf / "tiny"), **more))
        self.loop = Loop(self.models.settings, self.models.lane, Metrics(), self.models.holds)

    def ask(self, prompt, most, name="tiny", **more):
        heard, served, how = [], self.models.served[name], {"temperature": 0.0, **more.pop("how", {})}
        more = {"ends": served.ends, "hear": heard.append, "ignore_end": True, **more}
        asked = Ask(served.adapter, prompt, Draw(**how), most, **more)
        self.loop.submit(asked)
        return asked, heard

    def all_over(self, *heard):
        for _ in range(40):
            self.loop.turn()
        ends = [one[-1] if one else None for one in heard]
        assert all(isinstance(one, Fault) or (isinstance(one, Piece) and one.finish) for one in ends), ends
        return ends

    def text(self, prompt, most):
        _, heard = self.ask(prompt, most)
        self.all_over(heard)
        return "".join(piece.text for piece in heard)


@pytest.fixture(scope="module")
def server(shelf):
    made = Server(shelf)
    made.right = [made.text(prompt, most) for prompt, most in zip(PROMPTS, (3, 20), strict=True)]
    return made


def once(error, when=lambda *_: True):
    """Raises an error the first time that it is called so."""
    left = [error]

    def call(*given):
        if left and when(*given):
            raise left.pop()

    return call


def test_a_pass_that_fails_costs_nobody_an_answer_that_was_whole(server):
    one_row = once(RuntimeError("broken"), lambda ids: ids.shape == (1, 1))
    look = lambda _, __, given: one_row(given["input_ids"])  # noqa: E731
    hook, failed = server.models.model.register_forward_pre_hook(look, with_kwargs=True), server.loop.metrics.failed
    (_, short), (_, long) = server.ask(PROMPTS[0], 3), server.ask(PROMPTS[1], 20)
    ends = server.all_over(short, long)  # the pass after the short one's last token is the long one's alone
    hook.remove()
    assert ends[0].finish == "length" and "".join(piece.text for piece in short) == server.right[0]
    assert ends[1].status == 500 and server.loop.metrics.failed == failed + 1
    assert server.text(PROMPTS[1], 20) == server.right[1]


def test_a_row_that_cannot_go_on_leaves_alone(server, monkeypatch):
    plain = Text.add
    broken = once(ValueError("no text"), lambda text: text.stops and len(text.starts) > 4)
    monkeypatch.setattr(Text, "add", lambda text, token: broken(text) or plain(text, token))
    (_, bad), (_, good) = server.ask(PROMPTS[0], 20, how={"stop": ("\0",)}), server.ask(PROMPTS[1], 20)
    ends = server.all_over(bad, good)
    assert ends[0].status == 500 and "".join(piece.text for piece in good) == server.right[1]


def test_what_fails_before_a_prompt_is_read_or_as_a_row_leaves_is_told(server, monkeypatch):
    for place, name, error, status in (
        (Lane, "begun", RuntimeError("broken"), 500),
        (Together, "keep", RuntimeError("DefaultCPUAllocator: can't allocate memory"), 503),
    ):
        fails, plain = once(error), getattr(place, name)
        (first, heard), (_, other) = server.ask(PROMPTS[0], 20), server.ask(PROMPTS[1], 20)
        if place is Together:
            server.loop.turn()
            first.cancelled = True
            heard = other
        with monkeypatch.context() as patch:
            patch.setattr(place, name, lambda self, *given, f=fails, p=plain: f() or p(self, *given))
            assert server.all_over(heard)[0].status == status
        if place is Lane:
            assert "".join(piece.text for piece in other) == server.right[1]
        assert server.text(PROMPTS[1], 20) == server.right[1]


def test_whose_time_runs_out_meanwhile_is_not_forgotten(server, monkeypatch):
    clock = count(1)
    asked, heard = server.ask(PROMPTS[0], 3, until=1.5)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock), perf_counter=lambda: 0.0))
    server.loop.drop_all()
    assert asked in server.loop.waiting
    server.loop.drop_all()
    server.loop.flush()
    assert [one.status for one in heard] == [504] and not server.loop.waiting


def test_bytes_that_are_no_character_do_not_end_a_text():
    from tokenizers import Tokenizer, decoders, models

    vocabulary = {"<unk>": 0, "<0x41>": 1, "<0xFF>": 2, "word": 3, "<0x42>": 4}
    core = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token="<unk>"))
    core.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    for ids, said in (([1, 2, 3, 3], "A\ufffdwordword"), ([3, 1, 2, 4, 3, 1, 3], "wordA\ufffd\ufffdwordAword")):
        plain, text = decoders.DecodeStream(), Text(SimpleNamespace(backend_tokenizer=core), ())
        with pytest.raises(Exception, match="Invalid prefix"):
            for token in ids:
                plain.step(core, token)
        shown = ""
        for token in ids:
            text.add(token)
            shown += text.fresh()
        text.finish(ids)
        assert shown + text.fresh(over=True) == said


def test_unlike_adapters_stand_beside_each_other_in_a_shared_expert(tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "moe_intermediate_size": 16, "num_experts": 2}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "num_experts_per_tok": 1}
    model = Qwen2MoeForCausalLM(
        Qwen2MoeConfig(vocab_size=384, shared_expert_intermediate_size=16, **sizes, **heads)
    ).eval()
    beside = Beside(model)
    for name, rank in (("one", 2), ("two", 4)):
        shared = r".*shared_expert\.(gate|up|down)_proj"
        with hushed():
            tuned = get_peft_model(deepcopy(model), LoraConfig(r=rank, target_modules=shared))
        for part, weight in tuned.named_parameters():
            if "lora_B" in part:
                weight.data.normal_(0, 0.3)
        tuned.save_pretrained(tmp_path / name)
    for name in ("one", "two"):
        beside.load(name, tmp_path / name)
    ids, rows = torch.randint(384, (3, 5)), ("two", None, "one")
    with torch.no_grad():
        with beside.under(rows):
            found = model(ids).logits
        plain = model(ids).logits
        right = []
        for name in ("two", "one"):
            with beside.alone(name):
                right.append(model(ids).logits)
    assert torch.allclose(found, torch.stack([right[0][0], plain[1], right[1][2]]), atol=1e-5)
    assert not torch.allclose(found[0], plain[0], atol=1e-3)


def test_an_adapter_whose_template_ends_turns_otherwise_ends_there(shelf, tokenizer, tmp_path):
    other = deepcopy(tokenizer)
    other.chat_template = "{% for m in messages %}{{ m.role + ':' + m.content + bos_token }}{% endfor %}"
    other.save_pretrained(adapter(tmp_path / "other", 1))
    server, says = Server(shelf, adapters=(f"other={tmp_path / 'other'}",)), {"logit_bias": ((0, 100.0),)}
    asked = [server.ask(PROMPTS[0], 3, name, how=says, ignore_end=False)[1] for name in ("other", "tiny")]
    end, goes_on = server.all_over(*asked)
    assert (end.finish, end.tokens, goes_on.finish) == ("stop", 1, "length")


def test_an_adapter_that_cannot_be_used_leaves_nothing_and_what_writes_is_there_before_it_is_asked(shelf, tmp_path):
    models = Server(shelf, adapters=(f"dora={shelf / 'dora'}",)).models
    lanes = dict(models.lanes)
    assert set(lanes) == {"", "a1"} and models.lane("") is lanes[""] and models.lane("a1") is lanes["a1"]
    (adapter(tmp_path / "bad", 1) / "tokenizer.json").write_text('{"version": ')
    for _ in range(2):
        with pytest.raises(Refusal, match="has no tokenizer that can be read"):
            models.load("bad", tmp_path / "bad")
    assert set(models.beside.names) == {"a1"} == set(models.beside.tuned.peft_config) and "bad" not in models.served


def test_no_more_is_written_at_once_than_there_is_room_for(shelf, server):
    """Three answers, of which two may be remembered together; what is kept of ended ones has a quarter of the room."""
    narrow = Server(shelf, cache_tokens=60)
    assert narrow.models.lane("").kept.tokens == 15 and narrow.models.length() == 60
    texts = [narrow.ask(PROMPTS[1], 20)[1] for _ in range(3)]
    running = []
    for _ in range(60):
        narrow.loop.turn()
        running.append((narrow.loop.busy(), narrow.loop.held()))
    assert max(running) == (2, 46) and running[-1] == (0, 0)
    assert ["".join(piece.text for piece in heard) for heard in texts] == [server.right[1]] * 3
    asking = Asking(narrow.models.settings, narrow.loop, narrow.models.length(), narrow.models.words)
    with pytest.raises(Fault, match="'n': 3 answers of 20 tokens are more than fit here"):
        asking.ask(Completion(model="tiny", prompt="one", n=3), narrow.models.served["tiny"], PROMPTS[1], 20, None)


def test_the_room_is_half_of_what_is_free(server, monkeypatch):
    free, config = 10_000_000, server.models.model.config
    monkeypatch.setattr(memory, "memory", lambda: SimpleNamespace(free=free))
    width = config.hidden_size // config.num_attention_heads * config.num_key_value_heads
    assert memory.affordable(Engine(server.models.model, None)) == free // 2 // (8 * width * config.num_hidden_layers)
