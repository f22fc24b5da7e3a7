import pytest

from speechllm.errors import RegistryError
from speechllm.registry import Registry


def test_typo_is_answered_with_the_closest_name():
    codecs = Registry[int]("codec", {"mel-rvq": 1, "dac": 2})
    with pytest.raises(
        RegistryError, match=r"unknown codec 'mel-rqv'; did you mean 'mel-rvq'\? \(known: dac, mel-rvq\)"
    ):
        codecs["mel-rqv"]


def test_string_targets_are_imported_when_asked_for():
    registry = Registry("thing", {"fraction": "fractions:Fraction", "missing": "no_such_module:x"})
    assert registry["fraction"](1, 2) * 2 == 1
    assert len(registry) == 2
    with pytest.raises(ModuleNotFoundError):
        registry["missing"]


def test_same_registration_twice_is_harmless_another_is_an_error():
    registry = Registry[int]("thing")
    registry.register("a", 1)
    registry.register("a", 1)
    with pytest.raises(RegistryError, match="already registered as 1"):
        registry.register("a", 2)
    assert registry["a"] == 1
    assert list(registry) == ["a"]
