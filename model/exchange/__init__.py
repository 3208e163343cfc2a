"""Models of other engines: export and import of Hugging Face folders, MiniMind checkpoints, GGUF files."""
