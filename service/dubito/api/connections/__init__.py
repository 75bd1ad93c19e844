"""The connections below the routes: what each may take, how long it may take, and how it ends.

limits.py      the bounds, from the settings
crowd.py       all connections: how many there are, which of them have to go
connection.py  one connection: uvicorn's, with its bounds
tls.py         its certificate
refusals.py    error bodies where no request has reached a route yet
"""
