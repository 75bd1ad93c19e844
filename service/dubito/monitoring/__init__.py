"""Is a served model still calibrated, and do its inputs still look as they did?

    monitor.py     what routes ask: outcomes taken, figures and alarms told
    observing.py   from a prediction to what of it is observed
    observed.py    the rows of one request, until their truth is known
    recorder.py    a bounded queue and the thread that keeps observations
    drifts.py      drift tests of the calibrations in use, kept between runs
    ranks.py       scores to p-values against all earlier ones, in bounded memory
    martingale.py  p-values to the capital of a gambler who wins only if something changed
    drift.py       both together, for the scores of one calibration
    windows.py     outcomes counted in disjoint windows, and the alarm at their ends
    outcomes.py    one outcome; figures over the last of them

The last five know neither HTTP nor the database.
"""
