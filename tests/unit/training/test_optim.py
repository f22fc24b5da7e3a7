import copy
import sys

import pytest
import torch
from torch import nn

from speechllm.errors import ConfigError
from speechllm.training.optim import JoinedOptimizer, OptimizerConfig, build_optimizer, split_parameters

KINDS = ["muon", "adamw", "adafactor"]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.conv = nn.Conv1d(8, 8, 3, padding=1)
        self.hidden = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 11, bias=False)

    def get_output_embeddings(self):
        return self.head

    def forward(self, ids):
        x = self.embedding(ids)
        x = x + self.conv(x.transpose(1, 2)).transpose(1, 2)
        return self.head(self.norm(x + self.hidden(x)))


def make(kind, **options):
    torch.manual_seed(0)
    model = Net()
    return model, build_optimizer(model, OptimizerConfig(kind=kind, learning_rate=0.02, **options))


def train(model, optimizer, steps, first=0, scheduler=None):
    for step in range(first, first + steps):
        ids = torch.randint(11, (2, 7), generator=torch.Generator().manual_seed(step))
        loss = nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if scheduler:
            scheduler.step()
    return loss.item()


def test_every_parameter_is_in_exactly_one_group():
    model, optimizer = make("muon")
    seen = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(seen) == sorted(id(p) for p in model.parameters())
    groups = split_parameters(model)
    assert [tuple(p.shape) for p in groups["hidden"]] == [(8, 8)]
    assert {id(p) for p in groups["embeddings"]} == {id(model.embedding.weight), id(model.head.weight)}


def test_given_heads_and_frozen_parameters_are_honoured():
    model = Net()
    model.conv.requires_grad_(False)
    groups = split_parameters(model, heads=[model.hidden.weight])
    assert "hidden" not in groups
    assert all(p.ndim == 1 for p in groups["rest"])


@pytest.mark.parametrize("kind", KINDS)
def test_loss_falls(kind):
    model, optimizer = make(kind)
    before = train(model, optimizer, 1)
    assert train(model, optimizer, 60, first=1) < 0.6 * before


@pytest.mark.parametrize("kind", KINDS)
def test_resume_through_state_dict_is_bit_exact(kind, tmp_path):
    straight, optimizer = make(kind)
    train(straight, optimizer, 8)

    first, optimizer = make(kind)
    train(first, optimizer, 4)
    weights, state = first.state_dict(), optimizer.state_dict()
    second, optimizer = make(kind)
    second.load_state_dict(weights)
    optimizer.load_state_dict(state)
    train(second, optimizer, 4, first=4)
    for name, parameter in straight.state_dict().items():
        assert torch.equal(parameter, second.state_dict()[name]), name


@pytest.mark.parametrize("restored", [False, True])
def test_a_schedule_reaches_the_members(restored):
    model, optimizer = make("muon")
    assert isinstance(optimizer, JoinedOptimizer)
    if restored:
        train(model, optimizer, 1)
        optimizer.load_state_dict(optimizer.state_dict())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(step < 1))
    train(model, optimizer, 1, scheduler=scheduler)
    assert all(group["lr"] == 0 for member in optimizer.members for group in member.param_groups)
    before = {name: p.clone() for name, p in model.named_parameters()}
    train(model, optimizer, 2, scheduler=scheduler)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


def test_embeddings_have_their_own_rate_and_never_decay():
    _, optimizer = make("muon", embedding_learning_rate=0.5, weight_decay=0.1)
    by_name = {group["name"]: group for group in optimizer.param_groups}
    assert by_name["embeddings"]["lr"] == 0.5
    assert by_name["hidden"]["lr"] == by_name["rest"]["lr"] == 0.02
    assert [by_name[n]["weight_decay"] for n in ("hidden", "embeddings", "rest")] == [0.1, 0.0, 0.0]


def test_adafactor_is_the_published_one():
    """Against transformers' version, which follows the authors' code: relative steps of a given size, no momentum."""
    from transformers import Adafactor

    torch.manual_seed(0)
    ours = nn.Linear(12, 9)
    theirs = copy.deepcopy(ours)
    mine = build_optimizer(ours, OptimizerConfig(kind="adafactor", learning_rate=5e-5))
    reference = Adafactor(theirs.parameters(), lr=5e-5, scale_parameter=True, relative_step=False, warmup_init=False)
    start = ours.weight.detach().clone()
    for step in range(5):
        for model, optimizer in ((ours, mine), (theirs, reference)):
            x = torch.randn(6, 12, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            (model(x) ** 2).mean().backward()
            optimizer.step()
    assert torch.allclose(ours.weight - start, theirs.weight - start, rtol=1e-3, atol=1e-8)
    assert torch.allclose(ours.bias, theirs.bias, rtol=1e-5, atol=1e-9)
    assert not torch.equal(ours.weight, start)


def test_moments_in_eight_bits_step_like_adamw_and_resume_exactly():
    pytest.importorskip("bitsandbytes")
    start = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))

    def run(model, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            ((model(x) - 1) ** 2).mean().backward()
            optimizer.step()
        return model, optimizer

    def fresh(kind):
        model = copy.deepcopy(start)
        return model, build_optimizer(model, OptimizerConfig(kind=kind, learning_rate=1e-3, weight_decay=0.1))

    straight, optimizer = run(*fresh("adamw8bit"), 6)
    state = optimizer.state[straight[0].weight]
    assert state["state1"].dtype == state["state2"].dtype == torch.uint8
    plain, _ = run(*fresh("adamw"), 6)
    moved = straight[0].weight - start[0].weight, plain[0].weight - start[0].weight
    assert torch.nn.functional.cosine_similarity(*(m.flatten() for m in moved), dim=0) > 0.98
    half, optimizer = run(*fresh("adamw8bit"), 3)
    rest, empty = fresh("adamw8bit")
    rest.load_state_dict(half.state_dict())
    empty.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(rest, empty, 3)
    assert all(torch.equal(a, b) for a, b in zip(rest.parameters(), straight.parameters(), strict=True))


def test_errors(monkeypatch):
    with pytest.raises(ConfigError, match=r"learning_rate = 0\.0, expected a number above 0"):
        OptimizerConfig(learning_rate=0.0)
    with pytest.raises(ConfigError, match="no trainable parameter"):
        build_optimizer(Net().requires_grad_(False), OptimizerConfig())
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "bitsandbytes", None)
        with pytest.raises(ConfigError, match="optimizer kind 'adamw8bit' needs the package bitsandbytes"):
            build_optimizer(Net(), OptimizerConfig(kind="adamw8bit"))
