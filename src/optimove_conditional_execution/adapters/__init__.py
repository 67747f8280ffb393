"""One module a server interface: each turns what a server hands over into a `Request`, reading no more than allowed."""
