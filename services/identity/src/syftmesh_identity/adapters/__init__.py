"""Adapters of identity: key-value buckets, key file, local token file."""
