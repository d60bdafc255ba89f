"""The way out: a committed state, its chunks, frames of them, and what is made of those."""
