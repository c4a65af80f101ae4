"""What synchronisation decides, free of transport and storage."""
