"""Ordered maps over shards of data: in this process, in several processes, or as tasks on a Ray cluster.

A shard is a list of consecutive batches. Results come in the order of the shards, and only a bounded number
of shards is in memory. They depend neither on the number of shards nor on where the function runs, if the
function treats each row by itself or its results can be merged exactly.
"""
