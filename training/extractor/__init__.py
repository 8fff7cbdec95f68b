"""The extractor: signatures to embeddings whose distance tells genuine from forged."""
