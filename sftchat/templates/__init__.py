"""Chat templates: rendering of conversations as token ids and labels, and checks that training and inference use the same tokens."""
