"""Safe by default: a watermark in generated speech, its detector, and consent before a voice is copied."""

from speechllm.safety.consent import require_consent
from speechllm.safety.watermark import Detection, WatermarkConfig, detect_watermark, embed_watermark

__all__ = ["Detection", "WatermarkConfig", "detect_watermark", "embed_watermark", "require_consent"]
