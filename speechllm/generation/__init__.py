"""Decoding: the LM under its task's grammar, SoundStorm, and the way from codes to a waveform."""
