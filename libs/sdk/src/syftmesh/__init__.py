"""SyftMesh for people: the Python SDK and the syftmesh command."""
