"""What stands between a route (or the command line) and the engine.

    asking.py       from an order to its reply
    predicting.py   what predictions have in common, and a task for the rows of each
    resolve.py      order → version, networks, sampling, calibration
    ways.py         method `auto`: of the ways that were measured, the one that will do
    bounds.py       rows of an order, checked against network and settings
    rows.py         rows as the network reads them, made as its bundle declares
    admission.py    room for a request before its body is read
    passage.py      what requests wait for beside the device
    worker.py       the bounded queue before the devices
    device_worker.py  one thread that owns a device
    inferences.py   how many inferences a version made, and how long they took
    turns/          who has the device next, and what is computed there at once
    vitals.py       whether the server lives, and is ready
    labelled.py     labelled rows: to a calibration, or to a report
    selecting.py    whether a selection fits, and the search for it
    outputs.py      the columns of a reply
    overflow.py     rows where a network has none

Nothing here knows HTTP.
"""
