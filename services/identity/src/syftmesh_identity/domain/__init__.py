"""The rules of identity: devices, refresh families, join tokens, sites. No I/O."""
