"""The command ``norbert-store``, and what it prints."""
