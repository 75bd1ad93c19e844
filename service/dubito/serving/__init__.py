"""What stands between a route (or the command line) and the engine.

    bounds.py       rows of an order, checked against network and settings
    budget.py       a bound on what is held at once
    sampling.py     a request's choices over the version's defaults
    worker.py       one thread that owns the device, and its bounded queue
    labelled.py     labelled rows: to a calibration, or to a report
    selecting.py    rows to label from a pool that comes with the request
    outputs.py      the columns of a reply; overflow.py where a network has none

Nothing here knows HTTP.
"""
