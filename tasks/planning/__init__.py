"""What a stage will cost, and what it chooses at its start to cost less."""
