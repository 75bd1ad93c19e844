"""What replies say: the schemas of `/openapi.json`, and the small replies themselves.

    base.py          what all pages share
    models.py        models, versions, aliases, changes, health
    predictions.py   columns of a prediction; what was drawn
    calibrations.py  records, evaluations and their reports
    curves.py        curves of reports
    fits.py          fits of further methods
    work.py          pools, jobs, selections
    monitoring.py    outcomes, drift, alarms

A page is made of a fact and written as it is. Predictions and calibration records are written from
their own arrays and documents; their pages say what is in them, and tests hold the two together.
"""
