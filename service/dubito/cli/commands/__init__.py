"""The commands; `dubito.cli` says how one is found.

serve.py       serve
demo.py        demo
imports.py     export, import
examine.py     examine
inspect.py     inspect
bench.py       bench
models.py      register, models, show
lifecycle.py   alias, unalias, retire, restore, delete
device.py      load, unload
database.py    db upgrade, db current
registry.py    registry check, registry audit
backup.py      backup create, backup restore
keys.py        keys create, keys list, keys revoke
pool.py        pool add, pool list, pool show, pool delete
jobs.py        jobs, jobs show, jobs cancel, jobs result
predict.py     predict
calibrate.py   calibrate
evaluate.py    evaluate
fit.py         fit
monitor.py     monitor
select.py      select
train.py       train
"""
