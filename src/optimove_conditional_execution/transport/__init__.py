"""The transport layer: the only package that sends anything over the network."""
