"""The model: pure PyTorch. Runs in a notebook with torch, numpy, safetensors and tokenizers alone."""
