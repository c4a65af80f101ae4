"""File records, object transfer and the change feed."""
