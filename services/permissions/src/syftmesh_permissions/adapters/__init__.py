"""How the domain's ports are met: the read model of the file log."""
