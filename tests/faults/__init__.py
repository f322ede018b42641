"""
What faults and abuse do to the services: each test holds a floor, and prints the figure that it measured.

They take minutes, and want a machine of their own: they run when they are asked for by their path, as `make fault-test`
does, and are left out otherwise.
"""
