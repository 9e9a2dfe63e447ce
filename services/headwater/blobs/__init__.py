"""The store of blobs: values by reference, and the collector of those that nothing refers to."""
