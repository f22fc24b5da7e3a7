"""Safe by default: a watermark in generated speech, its detector, and consent before a voice is copied."""

from speechllm.safety.consent import require_consent
from speechllm.safety.watermark import Detection, WatermarkConfig

__all__ = ["Detection", "WatermarkConfig", "require_consent"]
