"""The same application over many devices, by Ray (the extra `dubito[ray]`).

    installed.py    whether Ray is there, asked before anything of it is imported
    autoscaling.py  how many replicas the work asks for; without Ray
    joining.py      a cluster that is there, or one on this machine
    deploying.py    the application as a deployment of Ray Serve
    routing.py      which replicas a request may go to, by its model
    proxying.py     what Serve's proxies do before a replica is chosen
    doors.py        how the connections of those proxies are bounded
    headers.py      by which they tell others what they know of a request
    replica.py      one replica, as Serve makes it
    peer.py         the same without Serve: the application in its frame, and what others ask of it
    peers.py        what it asks of all: to see its changes, to keep and to tell what they answered
    searching.py    a selection from a pool, by workers
    frame.py        what a replica puts around it: headers, metrics of all, a warm start

Nothing else of Dubito imports it, but the commands `serve` and `select` once `--ray` is given.
"""
