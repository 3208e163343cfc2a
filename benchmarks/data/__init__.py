"""The data stages beside the usual ways."""
