"""A critic with a trunk of its own, which begins as the policy's."""

from __future__ import annotations

from copy import deepcopy

from .policy import Policy


def twin(policy: Policy) -> Policy:
    """The same policy with weights of its own where they learn, but for a head that is no part of the trunk."""
    inside = {id(one) for one in policy.trunk.parameters()}
    head = [one for one in policy.head.parameters() if id(one) not in inside] if callable(policy.head) else []
    shared = [*head, *(one for one in policy.model.parameters() if not one.requires_grad)]
    made = Policy(deepcopy(policy.model, {id(one): one for one in shared}))
    made.apart, made.first = policy.apart, policy.first
    return made
