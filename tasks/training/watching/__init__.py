"""What looks at a training stage between its steps: whose tokens cost what, spikes, and what then happens."""
