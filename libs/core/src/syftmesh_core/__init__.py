"""Pure domain code of SyftMesh: ids, errors, permissions, envelopes, state machines; no I/O."""
