"""The balancer: shares of the gradient by weight, whatever the scale of the losses."""

import pytest
import torch

from speechllm.errors import ConfigError
from speechllm.training.balancer import Balancer


def losses(output, scale=1.0):
    return {"near": (output - 1).square().mean(), "far": scale * (output + 2).abs().mean()}


def gradient(balancer, scale):
    output = torch.linspace(-1, 3, 12).reshape(2, 6).requires_grad_()
    loss = balancer(losses(output, scale), output)
    loss.backward()
    return float(loss.detach()), output.grad


def alone(name):
    output = torch.linspace(-1, 3, 12).reshape(2, 6).requires_grad_()
    losses(output)[name].backward()
    return output.grad / output.grad.norm()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_weights_are_shares_of_the_gradient(scale):
    loss, grad = gradient(Balancer({"near": 1.0, "far": 3.0}), scale)
    torch.testing.assert_close(grad, 0.25 * alone("near") + 0.75 * alone("far"))
    output = torch.linspace(-1, 3, 12).reshape(2, 6)
    expected = losses(output, scale)
    assert loss == pytest.approx(float(expected["near"] + 3 * expected["far"]), rel=1e-5)


def test_lengths_are_averaged_over_the_steps():
    balancer = Balancer({"near": 0.0, "far": 1.0}, decay=0.5)
    gradient(balancer, 1.0)
    _, grad = gradient(balancer, 4.0)
    # The mean of 1 and 4 with weights 0.5 and 1: 3. The gradient of length 4 is divided by it.
    torch.testing.assert_close(float(grad.norm()), 4 / 3, atol=1e-5, rtol=0)


def test_its_averages_are_saved():
    balancer = Balancer({"near": 1.0, "far": 1.0})
    gradient(balancer, 2.0)
    again = Balancer({"near": 1.0, "far": 1.0})
    again.load_state_dict(balancer.state_dict())
    assert torch.equal(gradient(again, 3.0)[1], gradient(balancer, 3.0)[1])


def test_losses_of_a_copy_give_the_output_the_same_gradient_and_reach_no_further():
    output = torch.linspace(-1, 3, 12).reshape(2, 6).requires_grad_()
    copy = output.detach().requires_grad_()
    value = Balancer({"near": 1.0, "far": 3.0})(losses(copy), output, copy)
    value.backward()
    loss, expected = gradient(Balancer({"near": 1.0, "far": 3.0}), 1.0)
    assert float(value.detach()) == pytest.approx(loss)
    assert torch.equal(output.grad, expected)
    assert copy.grad is None


def test_an_absent_loss_has_no_share():
    output = torch.linspace(-1, 3, 12).reshape(2, 6).requires_grad_()
    balancer = Balancer({"near": 1.0, "far": 3.0})
    balancer({"near": losses(output)["near"]}, output).backward()
    torch.testing.assert_close(output.grad, alone("near"))
    torch.testing.assert_close(gradient(balancer, 1.0)[1], 0.25 * alone("near") + 0.75 * alone("far"))


def test_without_a_graph_it_is_the_weighted_sum():
    output = torch.zeros(1, 4)
    assert float(Balancer({"near": 2.0, "far": 1.0})(losses(output), output)) == pytest.approx(4.0)


@pytest.mark.parametrize("weights", [{}, {"near": -1.0}, {"near": 0.0}])
def test_weights_that_share_nothing_are_refused(weights):
    with pytest.raises(ConfigError, match="loss weights"):
        Balancer(weights)
