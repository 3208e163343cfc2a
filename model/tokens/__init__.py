"""Tokens without torch: tokenizer, chat template, packing, the order of batches."""
