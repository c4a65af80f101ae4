"""SQLite, folders, the hub and the machine behind the domain's ports."""
