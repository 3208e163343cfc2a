"""Settings tried on a recipe's own data: learning-rate range test and sweep."""
