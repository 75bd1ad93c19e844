"""What a collector such as Prometheus is told: counts of what happened, in base units.

    events.py      counts and histograms, raised where things happen
    histogram.py   a histogram that takes many values at once
    labels.py      names of models as labels, of which there are not too many
    tracing.py     spans of a request, its wait and its computation, by OpenTelemetry
    starting.py    whether traces are made, for which OpenTelemetry must be there

What stands at the moment it is asked for is in `dubito.gauges`.
"""

from dubito.telemetry.events import Telemetry

__all__ = ["Telemetry"]
