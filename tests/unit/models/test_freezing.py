import pytest

from speechllm.errors import ConfigError
from speechllm.models.freezing import freeze_modules
from tests.support.tiny import tiny_model


def trained(model):
    return {name for name, parameter in model.named_parameters(remove_duplicate=False) if parameter.requires_grad}


@pytest.mark.parametrize("pattern", ["model.layers.0", "model.layers.0.*", "model.layers.[0].*"])
def test_a_block_is_frozen_whole_and_alone(pattern):
    model = tiny_model(40)
    everything = trained(model)
    freeze_modules(model, freeze=[pattern])
    assert trained(model) == {name for name in everything if not name.startswith("model.layers.0.")}


def test_unfreeze_has_the_last_word():
    model = tiny_model(40)
    freeze_modules(model, freeze=["*"], unfreeze=["*.mlp.up_proj", "lm_head"])
    assert trained(model) == {*(f"model.layers.{i}.mlp.up_proj.weight" for i in (0, 1)), "lm_head.weight"}


@pytest.mark.parametrize("name", ["lm_head", "model.embed_tokens.weight"])
def test_tied_matrices_go_by_both_names(name):
    model = tiny_model(40, tied=True)
    freeze_modules(model, freeze=[name])
    assert not model.lm_head.weight.requires_grad
    assert model.model.norm.weight.requires_grad


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (
            {"freeze": ["model.layer.0.*"]},
            r"freeze: nothing .* 'model\.layer\.0\.\*'; did you mean 'model\.layers\.0\.\*'",
        ),
        ({"freeze": ["*"], "unfreeze": ["lm_haed"]}, r"unfreeze: nothing .* 'lm_haed'; did you mean 'lm_head'"),
        ({"freeze": ["zzz"]}, r"modules: model, model\.embed_tokens, model\.layers, model\.norm, lm_head"),
        ({"freeze": ["*"]}, r"freeze = \['\*'\] leaves nothing to train"),
    ],
)
def test_errors_are_one_line_with_suggestions(patterns, message):
    with pytest.raises(ConfigError, match=message) as raised:
        freeze_modules(tiny_model(40), **patterns)
    assert "\n" not in str(raised.value)
