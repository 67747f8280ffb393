"""The network: the only room that sends anything."""
