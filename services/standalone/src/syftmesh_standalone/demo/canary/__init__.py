"""The canary scan: whether any private value stands in what the hub holds, in plain, encoded or compressed."""
