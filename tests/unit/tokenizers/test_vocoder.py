import pytest
import torch

from speechllm.errors import ConfigError
from speechllm.tokenizers.mel import LogMel, LogMelConfig
from speechllm.tokenizers.vocoder import GriffinLim, GriffinLimConfig

MEL = LogMelConfig()


@pytest.fixture
def speechlike():
    time = torch.arange(8_000) / 16_000
    harmonics = sum(torch.sin(2 * torch.pi * 150 * h * time) / h for h in range(1, 8))
    return (0.2 * harmonics * (1 + torch.sin(2 * torch.pi * 4 * time)) / 2)[None]


def test_analysis_of_synthesis_is_the_identity(speechlike):
    vocoder = GriffinLim(MEL, GriffinLimConfig())
    spectrum = vocoder._analyse(speechlike)
    rebuilt = vocoder._synthesise(spectrum, vocoder._window_sum(spectrum.shape[2]))
    torch.testing.assert_close(rebuilt[:, 400:-400], speechlike[:, 400:-400], atol=1e-5, rtol=0)


def test_more_iterations_fit_the_mel_spectrogram_better(speechlike):
    mel = LogMel(MEL)
    target = mel(speechlike)
    errors = []
    for iterations in (1, 4, 32):
        waveform = GriffinLim(MEL, GriffinLimConfig(num_iterations=iterations))(target)
        errors.append(float((mel(waveform).exp() - target.exp()).square().mean()))
    assert errors[0] > errors[1] > errors[2]


def test_a_row_sounds_the_same_in_any_batch(speechlike):
    vocoder = GriffinLim(MEL, GriffinLimConfig(num_iterations=4))
    target = LogMel(MEL)(torch.cat((speechlike, speechlike * 0.1)))
    torch.testing.assert_close(vocoder(target)[:1], vocoder(target[:1]), atol=1e-4, rtol=0)


def test_it_is_deterministic_and_length_is_frames_times_hop():
    vocoder = GriffinLim(MEL, GriffinLimConfig(num_iterations=2))
    target = torch.randn(1, 80, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(vocoder(target, seed=1), vocoder(target, seed=1))
    assert vocoder(target).shape == (1, 7 * 160)
    assert vocoder(target[:, :, :0]).shape == (1, 0)


def test_impossible_effort_is_refused():
    with pytest.raises(ConfigError):
        GriffinLimConfig(momentum=1.0)
