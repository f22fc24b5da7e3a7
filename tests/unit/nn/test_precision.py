import torch

from speechllm.nn.precision import widest_float


def test_every_device_gets_what_it_has():
    assert [widest_float(name) for name in ("cpu", "cuda:1", "mps")] == [torch.float64, torch.float64, torch.float32]
