"""The commands of `python -m flows`: their arguments, what each runs, and the table that lists them all."""
