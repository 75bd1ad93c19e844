"""What stands between a route (or the command line) and the engine.

    orders.py       what is asked, as frozen dataclasses
    opening.py      the registry of the settings
    worker.py       one thread that owns the device, and its bounded queue
    budget.py       a bound on what is held at once
    library.py      models, versions, aliases: what is kept, and what of it is loaded
    catalogue.py    engines that are loaded
    warming.py      made-up rows, so that the first request is not the slow one
    memory.py       what an engine holds, and giving it back
    pins.py         models that are always loaded
    members.py      the networks that answer: one version or several
    sampling.py     a request's choices over the version's defaults
    outputs.py      the columns of a reply
    observing.py    what monitoring takes of a prediction
    recording.py    the thread that writes it down, off the requests' path
    drifts.py       the drift tests of this server
    monitoring.py   feedback, and how things stand
    calibrating.py  labelled rows to a calibration
    application.py  the facade of it all

Nothing here knows HTTP.
"""
