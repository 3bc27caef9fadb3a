"""Simulated arms at the far end of real protocols: processes, never imported by ``deploy``.

``python -m genpolicy_sim.peers.NAME`` speaks the protocol of driver NAME with physics behind it.
Its first line on stdout is JSON, ``{"ready": {...}}`` with where to connect; orders (see
``orders.Orders``) come as lines on stdin, and it ends when stdin closes.
"""
