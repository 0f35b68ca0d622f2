"""Engines: everything that turns a prompt into a reply, behind one protocol (``base``)."""
