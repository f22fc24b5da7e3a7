"""The acoustic half of AudioLM and SoundStorm in miniature: voices, speed, drift, iterations, what tokens keep."""
