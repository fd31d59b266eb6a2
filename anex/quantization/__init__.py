"""``anex.quantize``."""
Quantized = quantize = None
