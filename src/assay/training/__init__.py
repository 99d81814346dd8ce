"""Training for robustness: recipes, and the one loop that drives them."""
