"""An index in Milvus, for what one machine does not hold.

Rooms: address · server (its collections) · notes · vectors · lease · records · index.
"""
