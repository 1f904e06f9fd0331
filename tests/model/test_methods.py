"""What each method of our own does to a model, and what is refused, each by one sentence."""

import pytest
import torch
from conftest import make_tiny
from tinyrun import loop_of, sequences_for

from tunesmith.errors import RecipeError
from tunesmith.methods.adalora import AdaLoRA
from tunesmith.methods.base import largest_list
from tunesmith.methods.bitfit import BitFit
from tunesmith.methods.boft import BOFT
from tunesmith.methods.bottleneck import Bottleneck
from tunesmith.methods.freeze import Freeze
from tunesmith.methods.ia3 import IA3
from tunesmith.methods.layernorm import LayerNorm
from tunesmith.methods.llama_pro import LlamaPro
from tunesmith.methods.lora import LoRA
from tunesmith.methods.oft import OFT
from tunesmith.methods.prefix_tuning import PrefixTuning
from tunesmith.methods.prompt_tuning import PromptTuning
from tunesmith.model.engine import Engine
from tunesmith.model.load import attach
from tunesmith.objectives.sft import SFT

IDS = torch.tensor([[5, 6, 7, 8, 9, 40, 41, 12]])


def bert(**more):
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    model = BertForSequenceClassification(BertConfig(num_attention_heads=4, num_labels=3, **sizes, **more))
    for name, weight in model.named_parameters():
        if "LayerNorm.weight" in name:
            torch.nn.init.uniform_(weight, 0.5, 1.5)  # fresh norms do nothing to what was normalised
    return model


def mixtral():
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4}
    return MixtralForCausalLM(MixtralConfig(**sizes, **heads))


def learning(model):
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (Freeze(num_layers=1), ("model.layers.1.",)),
        (Freeze(num_layers=0, first_layers=1), ("model.layers.0.",)),
        (Freeze(num_layers=0, modules=(r"layers\.0\.mlp",)), ("model.layers.0.mlp.",)),
        (Freeze(num_layers=0, modules=("norm",), embeddings=True), ("model.norm.", "model.embed_tokens.")),
    ],
    ids=["last", "first", "pattern", "embeddings"],
)
def test_freeze_trains_what_it_names(method, expected):
    model = attach(make_tiny(), method)
    assert learning(model) == {name for name, _ in make_tiny().named_parameters() if name.startswith(expected)}


def test_bitfit_trains_the_biases_that_it_names():
    assert all(name.endswith("bias") for name in learning(attach(make_tiny(attention_bias=True), BitFit())))
    some = learning(attach(make_tiny(attention_bias=True), BitFit(terms=("q_proj",))))
    assert some == {f"model.layers.{n}.self_attn.q_proj.bias" for n in range(2)}


@pytest.mark.parametrize("added", [1, 2])
def test_llama_pro_changes_nothing_at_first_and_is_saved_as_a_deeper_model(added, model_folder, tmp_path):
    from transformers import AutoModelForCausalLM

    loop = loop_of(make_tiny, LlamaPro(num_expand=added), SFT(), sequences_for(SFT()), max_steps=3, learning_rate=1e-2)
    model = loop.policy.model
    untouched = make_tiny().eval()(IDS).logits
    assert torch.allclose(model.eval()(IDS).logits, untouched, atol=1e-6)
    assert learning(model) == {
        name for name, _ in model.named_parameters() if any(f".{n}." in name for n in new(added))
    }
    list(loop.fit())
    loop.method.save(model, tmp_path / "model")
    with torch.no_grad():
        said = model.eval()(IDS, use_cache=False).logits
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
        assert plain.config.num_hidden_layers == len(largest_list(plain)) == 2 + added
        assert torch.allclose(plain(IDS).logits, said, atol=1e-5)
        first = plain(IDS[:, :5], use_cache=True)
        rest = plain(IDS[:, 5:], past_key_values=first.past_key_values).logits
        assert torch.allclose(rest, said[:, 5:], atol=1e-5)
    assert not torch.allclose(said, untouched, atol=1e-3)


def new(added):
    return {1: (2,), 2: (1, 3)}[added]


def test_llama_pro_copies_what_a_config_says_of_each_block():
    from transformers import Qwen2Config, Qwen2ForCausalLM

    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    kinds = ["sliding_attention", "full_attention"]
    more = {"num_attention_heads": 4, "num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 4}
    model = Qwen2ForCausalLM(Qwen2Config(layer_types=kinds, **sizes, **more))
    grown = attach(model, LlamaPro(num_expand=2))
    assert grown.config.layer_types == [kind for kind in kinds for _ in range(2)]


@pytest.mark.parametrize("method", [Bottleneck(), Bottleneck(placement="pfeiffer"), IA3(), LayerNorm()], ids=str)
def test_an_encoder_is_found_its_way_in_too(method):
    """In BERT the end of one layer's name is the whole of another's, which pfeiffer and ia3 must not mean."""
    model = attach(bert(), method, ("classifier",))
    wrapped = {name.rpartition(".")[0] for name in learning(model) if "attention.output.dense" in name}
    assert bool(wrapped) == (isinstance(method, Bottleneck) and method.placement == "houlsby")
    assert any("classifier" in name for name in learning(model))


def test_experts_are_named_not_forgotten():
    with pytest.raises(
        RecipeError, match="all-linear does not reach the experts of Mixtral.*target_parameters"
    ) as said:
        attach(mixtral(), LoRA(r=2))
    assert "\n" not in str(said.value)
    method = LoRA(r=2, target_parameters=("experts.gate_up_proj", "experts.down_proj"))
    names = learning(attach(mixtral(), method))
    assert any(".experts." in name for name in names) and any("q_proj" in name for name in names)


def test_a_prompt_begins_as_the_words_that_are_given(tokenizer):
    def encode(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    model = attach(make_tiny(), PromptTuning(num_virtual_tokens=7, prompt_tuning_init_text="warm film"), (), encode)
    words = encode("warm film")
    expected = model.get_input_embeddings().weight[(words * 7)[:7]]
    assert torch.equal(model.prompt_encoder["default"].embedding.weight, expected)


def test_a_prefix_begins_as_what_the_model_makes_of_words(tokenizer):
    """What it says then is what the words themselves, written before a text, have it say."""

    def encode(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    model = attach(make_tiny(), PrefixTuning(num_virtual_tokens=7, init_text="warm film"), (), encode).eval()
    words, text = (encode("warm film") * 7)[:7], [5, 6, 7, 8]
    with torch.no_grad():
        said = model(input_ids=torch.tensor([text]), attention_mask=torch.ones(1, 4)).logits[0, -4:]
        with model.disable_adapter():
            expected = model(input_ids=torch.tensor([words + text])).logits[0, -4:]
    assert torch.allclose(said, expected, atol=1e-5)
    with pytest.raises(RecipeError, match="cannot begin as those of words"):
        attach(make_tiny(), PrefixTuning(prefix_projection=True, init_weights="words"))
    with pytest.raises(RecipeError, match="init_text: is empty"):
        attach(make_tiny(), PrefixTuning(init_text=""), (), encode)


@pytest.mark.parametrize("method", [PromptTuning(num_virtual_tokens=3), PrefixTuning(num_virtual_tokens=3)], ids=str)
def test_a_soft_prompt_is_heard_when_answers_are_written(method, tokenizer):
    """Word after word from a memory, several prompts at once, or all at once by plain PEFT: the same."""
    loop = loop_of(make_tiny, method, SFT(), sequences_for(SFT()), max_steps=3, learning_rate=0.3)
    list(loop.fit())
    model = loop.policy.model.eval()
    prompts = [[5, 6, 7, 8, 30, 31], [5, 6, 7, 9], [5, 6, 7, 10, 11, 12, 13]]
    options = [[[20, 21], [22]]] * 3
    ranks = Engine(model, tokenizer).rank(prompts, options)
    for row, prompt in enumerate(prompts):
        for column, option in enumerate(options[row]):
            ids = torch.tensor([[*prompt, *option]])
            with torch.no_grad():
                logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -len(option) - 1 : -1]
            expected = logits.log_softmax(-1)[range(len(option)), option].sum()
            assert float(ranks[row, column]) == pytest.approx(float(expected), abs=1e-4)
    with model.disable_adapter():
        off = Engine(model, tokenizer).rank(prompts, options)
    assert torch.allclose(off, Engine(make_tiny().eval(), tokenizer).rank(prompts, options), atol=1e-5)
    assert not torch.allclose(off, ranks, atol=1e-3)


def test_prefix_tuning_recomputes_blocks_to_the_same_gradient():
    """PEFT refuses gradient checkpointing here."""
    gradients = []
    for recompute in (False, True):
        loop = loop_of(make_tiny, PrefixTuning(num_virtual_tokens=3), SFT(), sequences_for(SFT()))
        if recompute:
            loop.policy.model.activation_checkpointing_enable({"use_reentrant": False})
        loop.gradient(0)
        gradients.append(torch.cat([weight.grad.flatten() for weight in loop.weights.values()]))
    assert gradients[0].any()
    assert torch.allclose(*gradients, atol=1e-5)


REFUSED = {
    "no such layer": (LoRA(target_modules=("q_prj",)), "target_modules: no linear layer of the model is named q_prj; "
        "it has .*down_proj.*q_proj"),
    "one of several": (LoRA(target_modules=("q_proj", "w_q")), "is named w_q; it has"),
    "no layer": (LoRA(target_modules=("mlp",)), "mlp means model.layers.0.mlp, which is no linear layer but LlamaMLP"),
    "no pattern": (LoRA(target_modules="q_proj("), r"q_proj\( is neither all-linear nor a pattern"),
    "nothing": (LoRA(target_modules=()), "target_modules: names no layer"),
    "too high a rank": (LoRA(r=17), "method.r: 17 is more than model.layers.0.self_attn.k_proj has, which is 16 x 32; "
        "take at most 16"),
    "a pattern's rank": (LoRA(r=4, rank_pattern={"v_proj": 99}), "method.r: 99 is more than .*v_proj"),
    "a rank of nothing": (LoRA(r=4, rank_pattern={"wv": 2}), "method.rank_pattern: wv is no layer that is updated"),
    "loftq": (LoRA(init_lora_weights="loftq"), "init_lora_weights: loftq makes up for"),
    "eva's share": (LoRA(eva_rho=2.0), "method.eva_rho: is for init_lora_weights=eva; leave it out"),
    "eva elsewhere": (LoRA(init_lora_weights="eva", adapter="a"), "eva and adapter exclude each other"),
    "eva's directions": (LoRA(r=9, init_lora_weights="eva"), "method.r: 9 times an eva_rho of 2 is too much for "
        ".*q_proj, which is 32 x 32"),
    "rounds of nothing": (LoRA(pissa_niter=4), "pissa_niter: is for init_lora_weights=pissa"),
    "no such module": (LoRA(r=4, modules_to_save=("head",)), "modules_to_save: no module of the model is named head"),
    "no such parameter": (LoRA(r=4, target_parameters=("experts.w",)), "target_parameters: no parameter"),
    "ranks that grow": (AdaLoRA(init_r=4, target_r=8), "target_r: 8 must be less than init_r, 4"),
    "adalora's rank": (AdaLoRA(init_r=20), "method.init_r: 20 is more than"),
    "blocks": (OFT(oft_block_size=24), "oft_block_size: .* inputs of 32 features, which are not made of blocks of 24"),
    "factors": (BOFT(boft_n_butterfly_factor=2), "boft_n_butterfly_factor: more than 1 needs a GPU"),
    "norms": (LayerNorm(target_modules=("q_proj",)), "q_proj means .*, which is no norm but Linear"),
    "no biases": (BitFit(), "bitfit trains biases, and LlamaForCausalLM has none"),
    "too narrow": (Bottleneck(bottleneck_size=64), "bottleneck_size: 64 is more than the model's own width, 32"),
    "too many blocks": (Freeze(num_layers=3), "num_layers: the model has 2 blocks"),
    "nothing learns": (Freeze(num_layers=0), "leaves nothing to learn"),
    "no such part": (Freeze(modules=("mlpp",)), "no module of the model is named mlpp; it has .*mlp"),
    "too deep": (LlamaPro(num_expand=3), "num_expand: 3 is more than the 2 blocks"),
    "ia3's inner": (IA3(target_modules=("k_proj",), feedforward_modules=("up_proj",)), "up_proj is not among target"),
}  # fmt: skip


@pytest.mark.parametrize(("method", "says"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_by_one_sentence(method, says):
    with pytest.raises(RecipeError, match=says) as refusal:
        attach(make_tiny(), method)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("method", "says"),
    [
        (PrefixTuning(), "prefix_tuning is for models that read from left to right"),
        (LlamaPro(num_expand=1), "llama_pro does not fit Bert.*says something else before anything is learnt"),
        (Bottleneck(placement="parallel"), "parallel needs a feed-forward part in one module"),
    ],
    ids=["prefix_tuning", "llama_pro", "parallel"],
)
def test_a_method_that_does_not_fit_an_encoder_is_refused(method, says):
    with pytest.raises(RecipeError, match=says):
        attach(bert(), method, ("classifier",))


def test_dropping_ranks_needs_steps_to_drop_them_in():
    loop = loop_of(make_tiny, AdaLoRA(init_r=4, target_r=2, tinit=5), SFT(), sequences_for(SFT()), max_steps=4)
    with pytest.raises(RecipeError, match="tinit: 5 and tfinal, 0, leave none of the run's 4 steps"):
        list(loop.fit())


def test_patterns_are_read_from_a_recipe_and_written_back():
    from tunesmith.config.load import load, to_yaml
    from tunesmith.run import Run

    words = ["model.path=a", "data.path=b", "method.rank_pattern={v_proj: 2}", "method.target_modules=.*_proj"]
    loaded = load(Run, None, words)
    assert loaded.value.method.rank_pattern == {"v_proj": 2}
    assert load(Run, text=to_yaml(loaded.value, loaded.origins)).value == loaded.value
    with pytest.raises(RecipeError, match="rank_pattern: "):
        load(Run, None, [*words, "method.rank_pattern={v_proj: none}"])
