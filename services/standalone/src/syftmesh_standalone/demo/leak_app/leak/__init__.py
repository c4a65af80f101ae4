"""An app that leaks, for the control of the canary scan."""
