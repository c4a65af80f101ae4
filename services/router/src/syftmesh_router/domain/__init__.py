"""Domain of the router: pure rules of calls, without transport."""
