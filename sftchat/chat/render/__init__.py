"""Render replies and status as styled lines."""
