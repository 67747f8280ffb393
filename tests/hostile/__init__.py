"""What hostile senders and curious log readers get."""
