"""Decoding: the LM under its task's grammar, SoundStorm, AudioLM, and the way from codes to a waveform."""
