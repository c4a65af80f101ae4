"""Generated code of SyftMesh's protos; never edited."""
