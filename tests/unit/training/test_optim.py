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


def test_errors():
    with pytest.raises(ConfigError, match=r"learning_rate = 0\.0, expected a number above 0"):
        OptimizerConfig(learning_rate=0.0)
    with pytest.raises(ConfigError, match="no trainable parameter"):
        build_optimizer(Net().requires_grad_(False), OptimizerConfig())
