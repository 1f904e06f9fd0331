"""Makes preference.json: what TRL's own losses come to on a few made-up log-probabilities, and their gradients.

Run it by a Python that has TRL 1.16 and is not this project's: python tests/parity/trl_preference.py
"""

import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import torch
import transformers
import trl
from trl import DPOTrainer, KTOTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

LENGTHS = (3, 5, 1, 4, 6, 2, 4, 4, 2, 7)
LIKED = (True, False, False, True, True, False, True, True, False, False)
KL = 0.35
SMOOTH = {"label_smoothing": 0.1}
DPO = {
    **{name: {"loss_type": name} for name in ("sigmoid", "sigmoid_norm", "hinge", "ipo", "nca_pair", "bco_pair")},
    **{name: {"loss_type": name} for name in ("sppo_hard", "apo_zero", "apo_down", "discopop", "aot", "aot_unpaired")},
    **{name: {"loss_type": name, **SMOOTH} for name in ("robust", "exo_pair")},
    "aot, smoothed": {"loss_type": "aot", **SMOOTH},
    "sigmoid, beta 0.7": {"loss_type": "sigmoid", "beta": 0.7},
    "discopop, tau 0.5": {"loss_type": "discopop", "discopop_tau": 0.5},
    "sigmoid, ld_alpha 0.3": {"loss_type": "sigmoid", "ld_alpha": 0.3},
    "ipo, ld_alpha 0.3": {"loss_type": "ipo", "ld_alpha": 0.3},
    "sft": {"loss_type": "sft"},
    "sigmoid + bco_pair + sft": {
        "loss_type": ["sigmoid", "bco_pair", "sft"],
        "loss_weights": [0.8, 0.2, 1.0],
    },
}
KTO = {
    "kto": {},
    "kto, weighted": {"desirable_weight": 1.5, "undesirable_weight": 0.5},
    "apo_zero_unpaired": {"loss_type": "apo_zero_unpaired"},
}
CPO = {
    "cpo, no nll": {"beta": 0.1, "cpo_alpha": 0.0},
    "cpo, no nll, smoothed": {"beta": 0.1, "cpo_alpha": 0.0, **SMOOTH},
    "simpo": {"beta": 2.0, "simpo_gamma": 1.0},
}


def padded(rows):
    """Tokens of answers behind a prompt of one token, as TRL lays them out: [N, T], and the mask of [N, T + 1]."""
    width = max(map(len, rows))
    values = torch.stack([torch.nn.functional.pad(row, (0, width - len(row))) for row in rows])
    mask = torch.tensor([[0] + [1] * len(row) + [0] * (width - len(row)) for row in rows])
    return values, mask


def around(**options):
    """All that TRL's losses ask of a trainer."""
    accelerator = SimpleNamespace(device=torch.device("cpu"), gather_for_metrics=lambda x: x, gather=lambda x: x)
    metrics = defaultdict(lambda: defaultdict(list))
    model = Speaker(None)
    usual = {"aux_loss_enabled": False, "precompute_ref_logps": True, "_tp_size": 1, "_total_train_tokens": 0}
    return SimpleNamespace(accelerator=accelerator, _metrics=metrics, model=model, **usual, **options)


def said(token):
    """A model that says these log-probabilities."""
    nothing = torch.zeros_like(token)
    return SimpleNamespace(log_probs=token, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())


def dpo(options, token, reference):
    """DPOTrainer's loss; batches of one pair where a term is a mean over a batch's tokens, and then their mean."""
    kinds = options["loss_type"] if isinstance(options["loss_type"], list) else [options["loss_type"]]
    size = 1 if "sft" in kinds else len(token) // 2
    losses = []
    for start in range(0, len(token) // 2, size):
        places = range(start, start + size)
        rows = [token[2 * n] for n in places] + [token[2 * n + 1] for n in places]
        values, mask = padded(rows)
        before = torch.stack([reference[2 * n + side].sum() for side in (0, 1) for n in places])
        trainer = around(
            loss_types=kinds,
            loss_weights=options.get("loss_weights") or [1.0] * len(kinds),
            beta=options.get("beta", 0.1),
            label_smoothing=options.get("label_smoothing", 0.0),
            args=SimpleNamespace(discopop_tau=options.get("discopop_tau", 0.05)),
            ld_alpha=options.get("ld_alpha"),
            f_divergence_type="reverse_kl",
            use_weighting=False,
        )
        inputs = {"input_ids": mask, "attention_mask": torch.ones_like(mask), "completion_mask": mask}
        if "ld_alpha" in options:  # TRL does not weigh log-probabilities that were computed before
            trainer.precompute_ref_logps = False
            other = said(padded([reference[2 * n + side] for side in (0, 1) for n in places])[0])
            trainer.args.gradient_checkpointing_kwargs = None
            trainer.ref_model = Speaker(other)
        else:
            inputs |= {"ref_chosen_logps": before[:size], "ref_rejected_logps": before[size:]}
        losses.append(DPOTrainer._compute_loss(trainer, Speaker(said(values)), inputs, False))
    return torch.stack(losses).mean()


class Speaker(torch.nn.Module):
    def __init__(self, says):
        super().__init__()
        self.says = says
        self.is_gradient_checkpointing = False

    def forward(self, **inputs):
        return self.says


def kto(options, token, reference):
    values, mask = padded(token)
    trainer = around(
        loss_type=options.get("loss_type", "kto"),
        beta=0.1,
        desirable_weight=options.get("desirable_weight", 1.0),
        undesirable_weight=options.get("undesirable_weight", 1.0),
        calculate_KL=options.get("loss_type", "kto") == "kto",
        _compute_kl_logps=lambda model, batch: torch.full((len(token),), KL, dtype=torch.float64),
        args=SimpleNamespace(),
    )
    batch = {
        "input_ids": mask,
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "label": torch.tensor(LIKED),
        "ref_logps": torch.stack([row.sum() for row in reference]),
        "ref_KL_logps": torch.zeros(len(token), dtype=torch.float64),
    }
    return KTOTrainer._compute_loss(trainer, Speaker(said(values)), batch, False)


def cpo(options, token, reference):
    kind = "simpo" if "simpo_gamma" in options else "sigmoid"
    given = {"label_smoothing": 0.0, "simpo_gamma": 0.5} | options
    rows = torch.stack([row.mean() if kind == "simpo" else row.sum() for row in token])
    return CPOTrainer.cpo_loss(around(loss_type=kind, alpha=0.0, **given), rows[::2], rows[1::2])[0].mean()


def orpo(options, token, reference):
    rows = torch.stack([row.mean() for row in token])
    return -ORPOTrainer.odds_ratio_loss(around(beta=0.1), rows[::2], rows[1::2])[0].mean()


def main():
    draw = torch.Generator().manual_seed(0)
    token = [-3 * torch.rand(length, generator=draw, dtype=torch.float64) for length in LENGTHS]
    reference = [row + 2.5 * torch.randn(len(row), generator=draw, dtype=torch.float64) for row in token]
    cases = [("dpo", name, options, dpo) for name, options in DPO.items()]
    cases += [("kto", name, options, kto) for name, options in KTO.items()]
    cases += [("simpo" if name == "simpo" else "cpo", name, options, cpo) for name, options in CPO.items()]
    cases += [("orpo", "orpo, no nll", {}, orpo)]
    found = []
    for objective, name, options, compute in cases:
        learnt = [row.clone().requires_grad_() for row in token]
        value = compute(options, learnt, reference)
        slopes = torch.autograd.grad(value, learnt, allow_unused=True)
        slopes = [[0.0] * len(row) if s is None else s.tolist() for s, row in zip(slopes, learnt, strict=True)]
        made = {"objective": objective, "name": name, "options": options, "value": float(value), "gradient": slopes}
        found.append(made)
    made = {
        "made by": {"trl": trl.__version__, "torch": torch.__version__, "transformers": transformers.__version__},
        "token": [row.tolist() for row in token],
        "reference": [row.tolist() for row in reference],
        "liked": LIKED,
        "kl": KL,
        "cases": found,
    }
    Path(__file__).with_name("preference.json").write_text(json.dumps(made) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
