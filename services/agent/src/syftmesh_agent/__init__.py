"""A site's daemon: keys, serving, files."""
