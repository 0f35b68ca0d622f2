"""Chat templates: conversations rendered as token ids and labels, and the proof that training and inference see the same."""
