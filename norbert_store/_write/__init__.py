"""The way in: bundles of tracks to shards, and the commit that makes them visible."""
