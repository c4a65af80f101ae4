"""Who somebody is: recovery phrase, account root, devices, device lists and safety numbers."""
