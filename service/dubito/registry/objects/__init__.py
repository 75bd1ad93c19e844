"""Bundles, pools and fits by their SHA-256, in a folder or a bucket.

store.py    the store of objects
buckets.py  folders and buckets, and their addresses
cache.py    the objects of a distant store, kept here
"""

from dubito.registry.objects.store import Objects, StoredObject

__all__ = ["Objects", "StoredObject"]
