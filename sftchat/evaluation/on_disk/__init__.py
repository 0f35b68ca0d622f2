"""A million stored items in flat memory: ids, places of lines and counts are kept, texts are read again when they are shown."""
