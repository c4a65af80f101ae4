"""What the gateway lets pass. No I/O."""
