"""Parts that stand on their own."""
