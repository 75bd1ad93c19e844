"""Who has the device next, and what is computed there at once.

    job.py       a task that waits, and what may be computed with its likes
    batch.py     several jobs at once: joined, computed, cut apart
    queue.py     jobs that wait, and which of them come next
    shares.py    models that take turns by what they used
    schedule.py  batch after batch, each giving way to what is more urgent

Nothing here has a thread of its own, and time is an argument.
"""
