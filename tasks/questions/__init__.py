"""Questions about rows and models, answered from the home's files alone."""
