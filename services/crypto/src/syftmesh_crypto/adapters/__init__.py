"""Adapters of the key directory: the key log and its journal."""
