"""What is learnt in equal time beside MiniMind, and what each technique adds."""
