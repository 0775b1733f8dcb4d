"""The audit log: its catalogue, the bytes that are hashed and signed, what vouches for them, and their verification."""
