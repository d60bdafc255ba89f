"""Where the audio comes from: what can be exported into a store."""
