"""A folder of images through a model, in shards, without HTTP.

    folder ──► read, digest ──► Pipeline.answer ──► maps to files ──► a line of the part
    (names of   (a thread)      (as for a request)   (atomically)     (in order of the names)
    this shard)

What one process does is a shard, and leaves one file of JSON lines, its part. A run that was killed is
started again by the same command, and goes on where it stopped.
"""
