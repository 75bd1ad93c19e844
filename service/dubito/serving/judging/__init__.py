"""Labelled rows: to a calibration, or to a report.

calibrating      read the truths, take all passes, fit
evaluating       take all passes, judge them as they would be served
position_labels  truths of rows with several labels or positions
"""
