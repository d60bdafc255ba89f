"""How good something sounds, in numbers."""
