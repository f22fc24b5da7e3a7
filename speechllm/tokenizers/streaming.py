"""Codecs on audio that arrives in pieces: the pieces together give what the whole would give.

    stream = codec.streaming_encoder()                 # one per batch of waveforms; Mimi and SoundStream have it
    codes = [stream.push(piece) for piece in pieces]   # pieces of any length, [B, S]; [B, K, 0] while a frame fills
    codes.append(stream.flush())                       # silence fills the last frame
    stream = codec.streaming_decoder()
    waveforms = [stream.push(piece) for piece in codes]

"Together" is exact but for the last bits of float32, which can decide a code that is a near tie.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from speechllm.errors import AudioError
from speechllm.tokenizers.codec import check_codes, check_waveforms, pad_to_frames


class StreamingEncoder:
    """Cuts pieces of any length into whole frames for a `step` that remembers what came before."""

    def __init__(
        self,
        step: Callable[[Float[Tensor, "B S"]], Int[Tensor, "B K T"]],
        *,
        num_codebooks: int,
        samples_per_frame: int,
        device: torch.device,
    ):
        self.step, self.num_codebooks, self.samples_per_frame = step, num_codebooks, samples_per_frame
        self.device = device
        self._rest: Tensor | None = None

    @torch.no_grad()
    def push(self, waveforms: Float[Tensor, "B S"]) -> Int[Tensor, "B K T"]:
        """Return the codes of the frames that are complete now, perhaps none.

        Raises:
            AudioError: no samples, or samples that are not finite.
        """
        check_waveforms(waveforms)
        waveforms = waveforms.to(self.device)
        pending = waveforms if self._rest is None else torch.cat([self._rest, waveforms], dim=1)
        whole = pending.shape[1] // self.samples_per_frame * self.samples_per_frame
        self._rest = pending[:, whole:]
        return self._codes(pending[:, :whole])

    @torch.no_grad()
    def flush(self) -> Int[Tensor, "B K T"]:
        """Return the codes of the last, partial frame (if there is one): the end of the stream."""
        if self._rest is None:
            raise AudioError("flush came before any push: give the stream a piece of audio first")
        rest, self._rest = self._rest, self._rest[:, :0]
        return self._codes(pad_to_frames(rest, self.samples_per_frame))

    def _codes(self, whole: Float[Tensor, "B S"]) -> Int[Tensor, "B K T"]:
        if whole.shape[1] == 0:
            return torch.zeros(len(whole), self.num_codebooks, 0, dtype=torch.long, device=whole.device)
        return self.step(whole)


class StreamingDecoder:
    """Gives each piece of codes to a `step` that remembers what came before."""

    def __init__(
        self,
        step: Callable[[Int[Tensor, "B K T"]], Float[Tensor, "B S"]],
        *,
        num_codebooks: int,
        codebook_size: int,
        device: torch.device,
    ):
        self.step, self.num_codebooks, self.codebook_size = step, num_codebooks, codebook_size
        self.device = device

    @torch.no_grad()
    def push(self, codes: Int[Tensor, "B K T"]) -> Float[Tensor, "B S"]:
        """Return the samples that these codes add.

        Raises:
            VocabularyError: more levels than the codec has, or a code outside its codebook.
        """
        check_codes(codes, self.num_codebooks, self.codebook_size)
        codes = codes.to(self.device)
        if codes.shape[2] == 0:
            return torch.zeros(len(codes), 0, device=codes.device)
        return self.step(codes)


@runtime_checkable
class StreamingCodec(Protocol):
    """A codec that may work on audio in pieces."""

    @property
    def streams(self) -> bool:
        """Whether this one does: of a class for many models only some may."""
        ...

    def streaming_encoder(self) -> StreamingEncoder:
        """Return an encoder for one batch of waveforms that arrive in pieces."""
        ...

    def streaming_decoder(self) -> StreamingDecoder:
        """Return a decoder for one batch of codes that arrive in pieces."""
        ...


class MimiEncoderStep:
    """Mimi's encoder with the caches that transformers keeps for its convolutions and attention."""

    def __init__(self, model: Any, num_codebooks: int):
        self.model, self.num_codebooks = model, num_codebooks
        self._caches: dict[str, Any] = {"padding_cache": None, "encoder_past_key_values": None}

    def __call__(self, waveforms: Float[Tensor, "B S"]) -> Int[Tensor, "B K T"]:
        """Return the codes of the next whole frames."""
        asked = max(self.num_codebooks, self.model.config.num_semantic_quantizers)
        output = self.model.encode(waveforms[:, None], num_quantizers=asked, use_streaming=True, **self._caches)
        self._caches = {name: getattr(output, name) for name in self._caches}
        return output.audio_codes[:, : self.num_codebooks]


class MimiDecoderStep:
    """Mimi's decoder in steps.

    transformers caches its attention alone. Its convolutions are causal and see finitely far back, so they are
    run again on as many of the frames before.
    """

    def __init__(self, model: Any):
        self.model, self.decoder = model, model.decoder
        self.context = convolution_context(self.decoder.decoder_seanet)
        self._latent: Tensor | None = None
        self._hidden: Tensor | None = None
        self._past: Any = None

    def __call__(self, codes: Int[Tensor, "B K T"]) -> Float[Tensor, "B S"]:
        """Return the samples of the next frames."""
        latents = self.model.quantizer.decode(codes)
        new = latents.shape[2] * self.decoder.config.latent_stride
        joined = latents if self._latent is None else torch.cat([self._latent, latents], dim=2)
        # The upsampling kernel spans two frames: one before is all it needs.
        upsampled = self.decoder.upsample(joined)[:, :, -new:]
        self._latent = joined[:, :, -1:]
        attended = self.decoder.decoder_transformer(
            upsampled.transpose(1, 2), past_key_values=self._past, use_cache=True
        )
        self._past = attended.past_key_values
        hidden = attended.last_hidden_state.transpose(1, 2)
        joined = hidden if self._hidden is None else torch.cat([self._hidden, hidden], dim=2)
        self._hidden = joined[:, :, -self.context :]
        samples = self.decoder.decoder_seanet(joined)[:, 0]
        return samples[:, -new * (samples.shape[1] // joined.shape[2]) :].clamp(-1, 1)


def convolution_context(seanet: Any) -> int:
    """Return how many input frames before its own an output sample of Mimi's SEANet decoder can depend on."""
    context = 0
    for layer in reversed(seanet.layers):
        convolution = getattr(layer, "conv", None)
        if isinstance(convolution, torch.nn.ConvTranspose1d):
            context = -(-context // convolution.stride[0]) + convolution.kernel_size[0] // convolution.stride[0]
        else:
            inner = [layer] if convolution is not None else getattr(layer, "block", [])
            context += sum(int(part.padding_total) for part in inner if hasattr(part, "padding_total"))
    return context
