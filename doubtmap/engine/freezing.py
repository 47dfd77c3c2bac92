"""Imported last by the process that workers are forked from, which does nothing else.

What it has imported then stays out of the garbage collector's sight: a collection in a worker would
write into every page of it, so that each worker had a copy of its own.
"""

import gc

gc.collect()
gc.freeze()
