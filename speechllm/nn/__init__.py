"""Building blocks in torch: Conformer, rotary positions, the folder format of small models."""
