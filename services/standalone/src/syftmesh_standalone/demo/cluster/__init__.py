"""The story on a real cluster: a hub and two sites in namespaces of their own, driven by kubectl and helm."""
