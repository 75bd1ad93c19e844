"""From a module to a lifted graph: capture, lower, lift, prove, granularity, in this order."""
