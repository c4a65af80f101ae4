"""The key log: entries, their Merkle tree, its tiles, proofs and signed heads, and who follows them."""
