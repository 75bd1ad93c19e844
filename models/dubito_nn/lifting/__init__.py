"""From a module to a lifted graph: capture, lower, lift, prove, in this order."""
