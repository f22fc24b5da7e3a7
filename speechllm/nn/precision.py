"""Which numbers a device has.

widest_float("cpu"), widest_float("mps")        # torch.float64, torch.float32
"""

import torch


def widest_float(device: str | torch.device) -> torch.dtype:
    """Return float64, or float32 where there is nothing wider: Apple's MPS."""
    return torch.float32 if torch.device(device).type == "mps" else torch.float64
