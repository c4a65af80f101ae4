"""The command `syftmesh`: verbs over the SDK, and the frame that all of them share."""
