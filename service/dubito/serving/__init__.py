"""What stands between a route (or the command line) and the engine.

    orders.py       what is asked, as frozen dataclasses
    worker.py       one thread that owns the device, and its bounded queue
    budget.py       a bound on what is held at once
    catalogue.py    engines that are loaded
    members.py      the networks that answer: one version or several
    sampling.py     a request's choices over the version's defaults
    outputs.py      the columns of a reply
    calibrating.py  labelled rows to a calibration
    application.py  the facade of it all

Nothing here knows HTTP.
"""
