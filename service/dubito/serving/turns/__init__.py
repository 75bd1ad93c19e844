"""Who may wait for the device, who has it next, and what is computed there at once.

    job.py       a task that waits, and what may be computed with its likes
    batch.py     several jobs at once: joined, computed, cut apart
    queue.py     jobs that wait, and which of them come next
    shares.py    models that take turns by what they used
    schedule.py  batch after batch, each giving way to what is more urgent
    rates.py     how long work takes, learned from what ran
    backlog.py   what waits, in seconds, and how much of it is ahead of a newcomer
    slack.py     how long a line may be: a burst longer than what never ends
    entrance.py  who may wait, and who is refused at once

Nothing here has a thread of its own, and time is an argument.
"""
