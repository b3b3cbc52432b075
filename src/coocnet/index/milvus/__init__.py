"""An index in Milvus, for what one machine does not hold: records · address · server (its collections) · index."""
