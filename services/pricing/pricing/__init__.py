"""pricing: finds the price that earns most, by simulation; needs CPU in proportion to its requests."""
