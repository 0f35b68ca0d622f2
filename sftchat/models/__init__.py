"""Models: what a MODEL argument may be, which bytes it is, how it is prompted, and what is known of its making."""
