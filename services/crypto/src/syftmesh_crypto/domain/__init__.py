"""The rules of the key directory. No I/O."""
