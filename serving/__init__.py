"""The service: a BentoML service with FastAPI mounted in it. It needs a bundle, and the online store for known users.

command.py    what `python -m serving` does before any worker runs
service.py    how BentoML runs the app
app.py        the app: guards, limits, and the bundle's life
routes.py     the routes
schemas.py    requests and answers
recommend.py  from a request to a ranked list: pure, no HTTP
online.py     the one door to the online store
state.py      which bundle is loaded, and the hot swap
metrics.py    what Prometheus sees
network.py    which addresses mean this machine alone
security.py   API keys, loopback, body limit, headers
pages/        the page at /
"""
