"""Replies and status as styled lines."""
