"""Makes grpo.json: what TRL's own GRPO loss comes to on a few made-up log-probabilities, and its gradients.

Run it by a Python that has TRL 1.16 and is not this project's: python tests/parity/trl_grpo.py
"""

import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import torch
import transformers
import trl
from trl import GRPOTrainer

LENGTHS = (3, 5, 1, 4, 6, 2, 4, 7)
LONGEST = 9
ADVANTAGE = (1.3, -0.4, -1.1, 0.2, 0.9, -0.9, 1.7, -1.7)
TRUNCATED = (1, 4)
"""Answers that are left out where a case masks those that were cut."""
CASES = {
    "grpo": {"loss_type": "grpo"},
    "dapo": {"loss_type": "dapo"},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "dapo, clip higher": {"loss_type": "dapo", "epsilon_high": 0.28},
    "grpo, narrow": {"loss_type": "grpo", "epsilon": 0.03, "epsilon_high": 0.05},
    "grpo, kl": {"loss_type": "grpo", "beta": 0.2},
    "dr_grpo, kl": {"loss_type": "dr_grpo", "beta": 0.07},
    **{
        f"gspo, {kind}": {"loss_type": kind, "importance_sampling_level": "sequence", "epsilon": 0.01}
        for kind in ("grpo", "dapo", "dr_grpo")
    },
    "gspo, kl": {"loss_type": "grpo", "importance_sampling_level": "sequence", "beta": 0.2},
    **{
        f"{kind}, masked": {"loss_type": kind, "mask_truncated_completions": True, "beta": 0.1}
        for kind in ("grpo", "dapo", "dr_grpo")
    },
}


def padded(rows):
    width = max(map(len, rows))
    return torch.stack([torch.nn.functional.pad(row, (0, width - len(row))) for row in rows])


def grpo(options, token, old, reference):
    """GRPOTrainer's loss of one batch, asked as it is when a trainer measures: neither split nor accumulated."""
    given = {"beta": 0.0, "epsilon": 0.2, "importance_sampling_level": "token"} | options
    kept = [not (options.get("mask_truncated_completions") and n in TRUNCATED) for n in range(len(token))]
    values, mask = padded(token), padded([torch.full([len(row)], float(k)) for row, k in zip(token, kept, strict=True)])
    accelerator = SimpleNamespace(
        num_processes=1, gather=lambda x: x, gather_for_metrics=lambda x: x, reduce=lambda x, reduction: x
    )
    trainer = SimpleNamespace(
        accelerator=accelerator,
        model=torch.nn.Identity().eval(),
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _get_per_token_logps_and_entropies=lambda *a, **more: (values, torch.zeros_like(values), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        _entropy_bonus_enabled=False,
        max_completion_length=LONGEST,
        loss_type=given["loss_type"],
        beta=given["beta"],
        epsilon_low=given["epsilon"],
        epsilon_high=given.get("epsilon_high", given["epsilon"]),
        importance_sampling_level=given["importance_sampling_level"],
    )
    ids = torch.ones_like(mask).long()
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1],
        "completion_ids": ids,
        "completion_mask": mask,
        "advantages": torch.tensor(ADVANTAGE, dtype=torch.float64),
        "old_per_token_logps": padded(old),
        "ref_per_token_logps": padded(reference),
        "num_items_in_batch": mask.sum(),
    }
    return GRPOTrainer._compute_loss(trainer, None, inputs)


def main():
    draw = torch.Generator().manual_seed(0)
    token = [-3 * torch.rand(length, generator=draw, dtype=torch.float64) for length in LENGTHS]
    near = [0.25 * torch.randn(len(row), generator=draw, dtype=torch.float64) for row in token]
    old = [row + by for row, by in zip(token, near, strict=True)]
    reference = [row + torch.randn(len(row), generator=draw, dtype=torch.float64) for row in token]
    found = []
    for name, options in CASES.items():
        learnt = [row.clone().requires_grad_() for row in token]
        value = grpo(options, learnt, old, reference)
        slopes = [slope.tolist() for slope in torch.autograd.grad(value, learnt)]
        found.append({"name": name, "options": options, "value": float(value), "gradient": slopes})
    made = {
        "made by": {"trl": trl.__version__, "torch": torch.__version__, "transformers": transformers.__version__},
        "longest": LONGEST,
        "advantage": ADVANTAGE,
        "truncated": TRUNCATED,
        **{name: [row.tolist() for row in rows] for name, rows in (("token", token), ("old", old))},
        "reference": [row.tolist() for row in reference],
        "cases": found,
    }
    Path(__file__).with_name("grpo.json").write_text(json.dumps(made) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
