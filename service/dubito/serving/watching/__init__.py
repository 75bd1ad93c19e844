"""Monitoring of what is served.

observing   what is taken of a prediction
recording   the thread that writes it down, off the requests' path
drifts      the drift tests of this server
monitoring  feedback, and how things stand
"""
