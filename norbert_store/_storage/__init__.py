"""Keys to bytes, wherever a store lies; one writer at a time; what is remembered."""
