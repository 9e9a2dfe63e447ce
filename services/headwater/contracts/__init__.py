"""What crosses a topic: records, messages, schemas, codecs, limits and names."""
