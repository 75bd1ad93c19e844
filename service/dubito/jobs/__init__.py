"""Long work that survives a restart: predictions of a stored pool, selections from one, fits.

    orders.py      what was asked, as a record keeps it
    desk.py        jobs asked for, looked at, cancelled; their results
    runner.py      the thread that takes jobs, keeps them, and ends them
    lane.py        the device worker's lane behind all requests
    task.py        one job from where it stands to its end
    needed.py      the networks, the pool and the search of a job, by its record
    plan.py        what is settled when a job begins, so that a restart computes the same bits
    scan.py        a pool through the network, block by block, with checkpoints
    predicting.py  what a prediction keeps of every block
    selecting.py   what a selection keeps
    fit_orders.py  a fit that is asked for, checked
    fitting.py     what a fit of `laplace` keeps, and the fit
    distilling.py  what a fit of `distilled` keeps, and the fit
    agreeing.py    what a fit of `agreement` keeps, and what each way of `auto` is worth
    results.py     parts to one `.npz` or `.parquet`

Flow: order → checked and settled → record → taken by a server → blocks of rows → parts → result.
"""

from dubito.jobs.desk import Desk
from dubito.jobs.runner import Runner

__all__ = ["Desk", "Runner"]
