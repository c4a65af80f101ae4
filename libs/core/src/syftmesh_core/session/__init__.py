"""Sessions between two devices: prekeys, the PQXDH agreement, and the double ratchet behind our own types."""
