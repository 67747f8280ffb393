"""The adapters under real servers and inside real frameworks."""
