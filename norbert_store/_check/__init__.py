"""What can be wrong with a store, part by part: documents, the track table, shards."""
