"""What frozen models give, kept on disk and addressed by content, so that it is computed once.

Torch is needed for the values themselves; shards, records of use and pruning do without it.
"""
