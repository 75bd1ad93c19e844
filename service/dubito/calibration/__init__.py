"""What is fitted on held-out rows, so that the figures keep their promises.

Flow: samples and truths (`sampled`) → `fit` (`splits`, a head's scaling and promise, `flags`,
`judge`) → `record.Calibration`, which is kept with the version (`stored`) and applied to
predictions; `verdict` tells whether a fit is worth having, `judge` reports without fitting. What
differs by kind of head is in `heads`, which call `scaling` and `promises`. numpy, scipy and
scikit-learn; torch only where scales are applied as the engine does. No HTTP, no database.
"""
